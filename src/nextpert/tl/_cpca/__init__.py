"""``tl.cpca`` and its helpers."""

from nextpert.tl._cpca.cpca import cpca

__all__ = ["cpca"]
