"""The command ``nextpert``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from nextpert.cli._app import Job

# What bad input raises, here and in the functions called; anything else is a fault of ours, and
# shows its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a step of the pipeline, or ``nextpert demo``, and return the exit code.

    Parameters
    ----------
    argv
        The arguments; by default those of the process.

    Returns
    -------
    int
        0; 2 after an error, which is told on one line; 130 if interrupted, 143 if terminated.

    Examples
    --------
    >>> from nextpert.cli import main
    >>> main(["fit", "absent.h5ad", "--quiet"])
    2
    """
    from cyclopts import CycloptsError

    from nextpert import __version__
    from nextpert.cli._app import given_by, parse
    from nextpert.cli._steps import ALL
    from nextpert.cli._words import say, with_its_option

    _open_streams()
    argv = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    job = None
    try:
        job = parse(__version__, argv)
        if job is not None:  # else help, or the version, is printed
            with _stopped_by_signals(), _told_on_one_line():
                _run(job)
        sys.stdout.flush()
    except (KeyboardInterrupt, _Stopped) as error:
        number = error.args[0] if isinstance(error, _Stopped) else signal.SIGINT
        what = "interrupted" if number == signal.SIGINT else "terminated"
        say(f"{what}, {'results are written' if job and job.written else 'nothing written'}")
        return 128 + int(number)
    except BrokenPipeError:  # the reader of our output has gone, as with "| head"
        return 0 if job is None or job.written else 2
    except (CycloptsError, *_EXPECTED) as error:
        if job is None:
            known = f"{argv[0]} " if argv[0] in ALL else ""
            say(f"error: {' '.join(str(error).split())} (see nextpert {known}--help)")
        elif job.options["debug"]:
            raise
        else:
            told = with_its_option(_tell(str(error)), given_by(job))
            say(f"error: {told or type(error).__name__}")
        return 2
    finally:
        _end_output()
    return 0


def _run(job: Job) -> None:
    if job.step.name == "demo":
        from nextpert.cli._demo import run_demo

        run_demo(job)
    elif job.step.name == "report":
        from nextpert.cli._page import run_report

        run_report(job)
    else:
        from nextpert.cli._run import run_step

        run_step(job)


class _Stopped(BaseException):
    """The process was told to end; carries the number of the signal."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into an exception, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def stop(number: int, frame: FrameType | None) -> None:
        for name in names:  # once is enough: tidying up is not to be cut short
            signal.signal(name, signal.SIG_IGN)
        raise _Stopped(number)

    before = {name: signal.signal(name, stop) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _open_streams() -> None:
    """Open what was closed (``>&-``), so that it can be written to, and is no other file."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))


def _end_output() -> None:
    """Print what is left, or drop it where nobody takes it; Python would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _told_on_one_line() -> Iterator[None]:
    """Tell what the functions warn of and log, each on one line."""
    notes, logger = _Notes(logging.WARNING), logging.getLogger("nextpert")
    logger.addHandler(notes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(notes)


class _Notes(logging.Handler):
    """Tells what the functions log as a warning, on one line."""

    def emit(self, record: logging.LogRecord) -> None:
        from nextpert.cli._words import say

        say(f"note: {_tell(record.getMessage())}")


def _tell(message: str) -> str:
    """Return a message on one line, in the words of the command."""
    from nextpert.cli._words import as_options

    return as_options(" ".join(message.split()))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    from nextpert.cli._words import say

    if category is UserWarning:  # sub-classes are other packages' deprecations and the like
        say(f"warning: {_tell(str(message))}")
