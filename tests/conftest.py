"""Fixtures for every test; each group lives in a module of ``tests/support``."""

pytest_plugins = ["support.services", "support.embedder", "support.evaluations"]
