"""``python -m llmops`` is the command ``llmops``."""

from llmops.cli import main

main()
