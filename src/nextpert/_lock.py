"""One process at a time, by a lock file that is let go of with the process, however that ends."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def locked(lock: Path, wait: float = 0.0) -> Iterator[bool]:
    """Yield whether the lock was had within ``wait`` seconds; hold it until the end."""
    handle = _taken(lock, wait)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
        handle.close()


def _taken(lock: Path, wait: float) -> IO[bytes] | None:
    """Return the lock file, open and locked; ``None`` if somebody else keeps it."""
    end = time.monotonic() + wait
    while True:
        handle = lock.open("a+b")
        if _locked(handle):
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                    return handle
            handle.close()  # the one before has just taken the file away
            continue
        handle.close()
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


def _locked(handle: IO[bytes]) -> bool:
    """Lock a file without waiting; return whether nobody else has."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        windows: Any = msvcrt
        try:
            windows.locking(handle.fileno(), windows.LK_NBLCK, 1)
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
