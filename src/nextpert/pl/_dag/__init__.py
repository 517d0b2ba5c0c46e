"""``pl.dag`` and its helpers."""

from nextpert.pl._dag.dag import dag

__all__ = ["dag"]
