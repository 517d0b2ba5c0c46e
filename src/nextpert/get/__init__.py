"""Results as tables: what lies deep in ``uns``, as :mod:`scanpy.get` has it."""

from __future__ import annotations

from nextpert.get._tables import (
    diagnosis_df,
    effects_df,
    fitted_perturbations,
    order_df,
    plan_df,
    ranking_df,
)

__all__ = [
    "diagnosis_df", "effects_df", "fitted_perturbations", "order_df", "plan_df", "ranking_df",
]  # fmt: skip
