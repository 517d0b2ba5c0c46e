"""Preprocessing of screens."""

from __future__ import annotations

__all__: list[str] = []
