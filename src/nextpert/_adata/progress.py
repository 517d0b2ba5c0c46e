"""Progress bars, the same for every step that may take long.

A bar is shown on stderr once a step has taken two seconds, and goes when the step ends. It is not
shown with ``scanpy.settings.verbosity = 0``, nor under :func:`without_bars`.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DELAY = 2.0  # seconds: what is shorter needs no bar
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
    scanpy = sys.modules.get("scanpy")  # whose settings nobody changed where it was not imported
    hidden = _off.get() or (scanpy is not None and int(scanpy.settings.verbosity) == 0)
    return tqdm(total=total, desc=what, delay=_DELAY, leave=False, disable=hidden, **options)


@contextmanager
def reported(what: str) -> Iterator[Callable[[int, int], None]]:
    """Return a callable for the core that shows as a bar how much is done, of how much."""
    with ExitStack() as stack:
        # Begun with the first step: what is before has its own bars.
        bar: tqdm[Any] | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            bar = stack.enter_context(progress(total, what)) if bar is None else bar
            bar.total = total
            bar.update(done - bar.n)

        yield report


@contextmanager
def without_bars(off: bool = True) -> Iterator[None]:
    """Show no bars, if ``off``, as with ``--quiet`` of the command."""
    before = _off.set(off)
    try:
        yield
    finally:
        _off.reset(before)
