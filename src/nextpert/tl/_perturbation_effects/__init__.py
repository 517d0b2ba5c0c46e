"""``tl.perturbation_effects`` and its helpers."""

from nextpert.tl._perturbation_effects.perturbation_effects import perturbation_effects

__all__ = ["perturbation_effects"]
