"""``tl.fit_dag_blr`` and its helpers."""
