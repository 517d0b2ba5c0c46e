"""The array core: moments, graphs, posterior, acquisitions, domains; no AnnData here."""

from nextpert.core.dag import CycleError, Dag
from nextpert.core.moments import Moments

__all__ = ["CycleError", "Dag", "Moments"]
