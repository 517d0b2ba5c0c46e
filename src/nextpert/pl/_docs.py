"""Parts of docstrings that several plots share, each written once."""

from __future__ import annotations

import re
from textwrap import indent
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    F = TypeVar("F", bound=Callable[..., object])

# What stands for ``%(name)s`` on a line of its own.
FRAGMENTS = {
    "show": """
show
    Whether to show the figure; by default as set in :attr:`scanpy.settings.autoshow`.
return_fig
    Whether to return the figure.
save
    File to save the figure to.
""",
    "returns": """
~matplotlib.figure.Figure, ~matplotlib.axes.Axes, list of them, or None
    The figure, with ``return_fig``; ``None`` once shown; else the axes.
""",
    "roles": """
perturbation_key
    Column of ``adata.obs`` with the label of every cell; ``None`` stands for the one declared by
    :func:`nextpert.pp.setup_screen`, or ``"perturbation"``.
control
    Label of the unperturbed cells; ``None`` as above, or ``"control"``.
separator
    What joins the targets of a label, as in ``"MYC+STK3"``.
""",
}


def documented(function: F) -> F:
    """Put the shared parts into a function's docstring, each with the indent of its place.

    Examples
    --------
    >>> from nextpert.pl._docs import documented
    >>> @documented
    ... def plot(show=None):
    ...     '''Draw it.
    ...
    ...     Parameters
    ...     ----------
    ...     %(show)s
    ...     '''
    >>> print(plot.__doc__.rstrip().splitlines()[-1].strip())
    File to save the figure to.
    """

    def fragment(match: re.Match[str]) -> str:
        return indent(FRAGMENTS[match[2]].strip("\n"), match[1])

    function.__doc__ = re.sub(r"(?m)^( *)%\((\w+)\)s$", fragment, function.__doc__ or "")
    return function
