"""One process at a time: two that write to one part file leave holes in it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from _http import DownloadError

from nextpert import _files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the lock of a download; it is released with the process, however that ends.

    Raises
    ------
    DownloadError
        If another process holds it.
    """
    message = (
        f"{target.name} is being downloaded by another process: wait until it has ended, or stop "
        "it, and run this again."
    )
    with _files.alone(target, DownloadError(message)):
        yield
