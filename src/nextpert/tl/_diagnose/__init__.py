"""``tl.diagnose`` and its helpers."""

from nextpert.tl._diagnose.diagnose import diagnose

__all__ = ["diagnose"]
