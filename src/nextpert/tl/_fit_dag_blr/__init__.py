"""``tl.fit_dag_blr`` and its helpers."""

from nextpert.tl._fit_dag_blr.fit_dag_blr import fit_dag_blr

__all__ = ["fit_dag_blr"]
