"""``tl.learn_dag`` and its helpers."""
