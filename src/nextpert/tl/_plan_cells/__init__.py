"""``tl.plan_cells`` and its helpers."""
