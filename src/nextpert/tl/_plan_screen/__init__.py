"""``tl.plan_screen`` and its helpers."""
