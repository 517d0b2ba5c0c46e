"""``tl.perturbation_effects`` and its helpers."""
