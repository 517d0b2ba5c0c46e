"""Stored results as tables, like :mod:`scanpy.get`."""

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
    "diagnosis_df",
    "effects_df",
    "fitted_perturbations",
    "order_df",
    "plan_df",
    "ranking_df",
]
