"""Progress bars for all steps that may take long.

A bar appears on stderr when a step has taken two seconds, and disappears when the step ends. It is
hidden with ``scanpy.settings.verbosity = 0`` and under :func:`without_bars`.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DELAY = 2.0  # seconds before a bar is shown
_off = ContextVar("off", default=False)


def progress(total: int | None, what: str, **options: Any) -> tqdm[Any]:
    """Return a bar of ``total`` steps; ``options`` are those of :class:`tqdm.tqdm`.

    Examples
    --------
    >>> from nextpert._adata.progress import progress
    >>> with progress(3, "Graphs") as bar:
    ...     for _ in range(3):
    ...         done = bar.update()
    """
    scanpy = sys.modules.get("scanpy")  # if it was not imported, its settings are unchanged
    hidden = _off.get() or (scanpy is not None and int(scanpy.settings.verbosity) == 0)
    return tqdm(total=total, desc=what, delay=_DELAY, leave=False, disable=hidden, **options)


@contextmanager
def reported(what: str) -> Iterator[Callable[[int, int], None]]:
    """Return a callable ``(done, total)`` with which the core updates a bar."""
    with ExitStack() as stack:
        # The bar starts with the first report, because earlier steps have their own bars.
        bar: tqdm[Any] | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            bar = stack.enter_context(progress(total, what)) if bar is None else bar
            bar.total = total
            bar.update(done - bar.n)

        yield report


@contextmanager
def without_bars(off: bool = True) -> Iterator[None]:
    """Hide all bars if ``off``, as for the option ``--quiet`` of the command line."""
    before = _off.set(off)
    try:
        yield
    finally:
        _off.reset(before)
