"""A methods paragraph of the results in an AnnData, ready to paste."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from nextpert._report.page import template
from nextpert._report.results import SOURCES
from nextpert._report.tables import number

if TYPE_CHECKING:
    from nextpert._report.results import Results


def methods_of(results: Results) -> str:
    """Return what was done, from the options that are stored with each result.

    Examples
    --------
    >>> from nextpert._report.methods import methods_of
    >>> methods_of({"dag": {"genes": ["A"], "n_edges": 0, "params": {"method": "given"}}})[-46:]
    'A given graph over 1 genes (0 edges) was used.'
    """
    used = {"version": version("nextpert"), "number": number, "ravel": np.ravel}
    # The template breaks lines where it likes.
    text = template("methods.txt.j2").render(**used, **dict.fromkeys(SOURCES) | dict(results))
    return " ".join(text.split())
