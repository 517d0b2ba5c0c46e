"""One process at a time: two that write to one part file leave holes in it."""

from __future__ import annotations

import contextlib
import os
from typing import IO, TYPE_CHECKING

from _http import DownloadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the lock of a download; it is let go of with the process, however that ends.

    Raises
    ------
    DownloadError
        If another process holds it.
    """
    path = target.with_name(target.name + ".part.lock")
    while True:
        handle = path.open("a+b")
        if not _lock(handle):
            handle.close()
            message = (
                f"{target.name} is being downloaded by another process: wait until it has ended, "
                "or stop it, and run this again."
            )
            raise DownloadError(message)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle.fileno()), path.stat()):
                break
        handle.close()  # the one before has just taken the file away
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            path.unlink()
        handle.close()


def _lock(handle: IO[bytes]) -> bool:
    """Lock a file without waiting; return whether nobody else has."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # file systems without locks
        return True
    return True
