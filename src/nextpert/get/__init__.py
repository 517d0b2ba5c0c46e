"""Results as tables: what lies deep in ``uns``, as :mod:`scanpy.get` has it."""

from __future__ import annotations

from nextpert.get._fitted_perturbations import fitted_perturbations

__all__ = ["fitted_perturbations"]
