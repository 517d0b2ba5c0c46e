"""``tl.design_interventions`` and its helpers."""

from nextpert.tl._design_interventions.design_interventions import design_interventions

__all__ = ["design_interventions"]
