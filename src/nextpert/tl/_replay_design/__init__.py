"""``tl.replay_design`` and its helpers."""
