"""The array core: moments, graphs, posterior, acquisitions, domains; no AnnData here."""

from nextpert.core.dag import CycleError, Dag
from nextpert.core.dag_blr import DagBlr
from nextpert.core.moments import Moments
from nextpert.core.random_dag import random_dag
from nextpert.core.random_scm import random_scm
from nextpert.core.scm import LinearScm

__all__ = ["CycleError", "Dag", "DagBlr", "LinearScm", "Moments", "random_dag", "random_scm"]
