"""``tl.design_interventions`` and its helpers."""
