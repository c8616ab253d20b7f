"""Figures of this machine, each as a ratio against a limit or a peer measured in the same run."""
