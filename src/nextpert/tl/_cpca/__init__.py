"""``tl.cpca`` and its helpers."""
