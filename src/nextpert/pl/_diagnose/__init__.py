"""``pl.diagnose`` and its panels."""

from nextpert.pl._diagnose.diagnose import diagnose

__all__ = ["diagnose"]
