"""Results as tables: what lies deep in ``uns``, as :mod:`scanpy.get` has it."""

from __future__ import annotations

from nextpert.get._diagnosis_df import diagnosis_df
from nextpert.get._effects_df import effects_df
from nextpert.get._fitted_perturbations import fitted_perturbations
from nextpert.get._order_df import order_df
from nextpert.get._plan_df import plan_df
from nextpert.get._ranking_df import ranking_df

__all__ = [
    "diagnosis_df", "effects_df", "fitted_perturbations", "order_df", "plan_df", "ranking_df",
]  # fmt: skip
