"""One process at a time reads or writes the file of a campaign."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

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
    lock = path.with_name(f".{path.name}.lock")
    if not os.access(path.parent, os.W_OK):  # nobody can write here
        yield
        return
    handle = _taken(lock)
    if handle is None:
        message = (
            f"{str(path)!r} is being saved or loaded by another process: wait until it is done, "
            f"and do this again."
        )
        raise ValueError(message)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            lock.unlink()
        handle.close()


def _taken(lock: Path) -> IO[bytes] | None:
    """Return the lock file, open and locked; ``None`` if somebody else keeps it."""
    end = time.monotonic() + WAIT
    while True:
        handle = lock.open("a+b")
        if _locked(handle):
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), lock.stat()):
                    return handle
            handle.close()  # the one before has just taken the file away
            continue
        handle.close()
        if time.monotonic() > end:
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
