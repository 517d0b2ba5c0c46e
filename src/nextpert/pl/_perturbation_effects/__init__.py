"""``pl.perturbation_effects`` and its panels."""

from nextpert.pl._perturbation_effects.perturbation_effects import perturbation_effects

__all__ = ["perturbation_effects"]
