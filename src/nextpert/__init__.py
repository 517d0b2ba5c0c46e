"""nextpert recommends which perturbation to test next.

Sub-packages follow scanpy: :mod:`~nextpert.pp` (preprocessing), :mod:`~nextpert.tl` (tools),
:mod:`~nextpert.pl` (plots), :mod:`~nextpert.get` (results as tables) and
:mod:`~nextpert.datasets`. :mod:`~nextpert.core` works on arrays, without AnnData.
:class:`Campaign` runs rounds of experiments, :class:`Target` describes the target state,
:func:`report` writes an HTML page, and :func:`summary` prints its verdict. All of them are loaded
on first use, so ``import nextpert`` is fast.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nextpert import core, datasets, get, pl, pp, tl
    from nextpert._report.report import report, summary
    from nextpert.campaign import Campaign
    from nextpert.study.target import Target

__all__ = ["Campaign", "Target", "core", "datasets", "get", "pl", "pp", "report", "summary", "tl"]
__version__ = _version("nextpert")
_HERE = {
    "Campaign": "nextpert.campaign",
    "Target": "nextpert.study.target",
    "report": "nextpert._report",
    "summary": "nextpert._report",
}


def __getattr__(name: str) -> Any:
    if name in _HERE:
        return getattr(importlib.import_module(_HERE[name]), name)
    if name in __all__:
        return importlib.import_module(f"nextpert.{name}")
    message = f"module 'nextpert' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
