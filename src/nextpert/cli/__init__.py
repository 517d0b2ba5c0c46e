"""The command ``nextpert``."""

from nextpert.cli.main import main

__all__ = ["main"]
