"""One process at a time reads or writes the file of a campaign."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nextpert._lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT = 60.0  # seconds


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock of a file; it is let go of with the process, however that ends.

    Raises
    ------
    ValueError
        If another process holds it for longer than a file takes.
    """
    if not os.access(path.parent, os.W_OK):  # nobody can write here
        yield
        return
    with locked(path.with_name(f".{path.name}.lock"), WAIT) as had:
        if not had:
            message = (
                f"{str(path)!r} is being saved or loaded by another process: wait until it is "
                f"done, and do this again."
            )
            raise ValueError(message)
        yield
