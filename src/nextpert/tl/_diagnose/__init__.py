"""``tl.diagnose`` and its helpers."""
