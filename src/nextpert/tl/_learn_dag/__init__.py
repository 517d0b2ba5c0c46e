"""``tl.learn_dag`` and its helpers."""

from nextpert.tl._learn_dag.learn_dag import learn_dag

__all__ = ["learn_dag"]
