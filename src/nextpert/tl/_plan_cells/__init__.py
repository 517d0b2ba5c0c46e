"""``tl.plan_cells`` and its helpers."""

from nextpert.tl._plan_cells.plan_cells import plan_cells

__all__ = ["plan_cells"]
