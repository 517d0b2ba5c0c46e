"""The command ``nextpert``."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import warnings
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from nextpert.cli._options import Job

__all__ = ["main"]

# Exceptions that bad input raises, here and in the functions called. Any other exception is a bug,
# and shows its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError)
# What errors of the Python functions name, outside quotes.
_OF_PYTHON = re.compile(r"[a-z]_[a-z]|\b(?:tl|pp|pl|nextpert)\.[a-zA-Z]")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a step of the pipeline, or ``nextpert demo``, and return the exit code.

    Parameters
    ----------
    argv
        The arguments; by default those of the process.

    Returns
    -------
    int
        0 on success, 2 after an error (printed on one line), 130 if interrupted, 143 if terminated.

    Examples
    --------
    >>> from nextpert.cli import main
    >>> main(["fit", "absent.h5ad", "--quiet"])
    2
    """
    from cyclopts import CycloptsError

    from nextpert.cli._commands import COMMANDS, parse
    from nextpert.cli._options import HINT, make_writable, say

    make_writable()
    argv = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    job = None
    try:
        job = parse(argv)
        if job is not None:  # otherwise help or the version was printed
            with _terminable(), _messages(job):
                if job.name == "demo":
                    from nextpert.cli._demo import run_demo as run
                else:
                    from nextpert.cli._run import run
                run(job)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        outcome = "interrupted" if number == signal.SIGINT else "terminated"
        say(f"{outcome}, {'results are written' if job and job.written else 'nothing written'}")
        return 128 + int(number)
    except BrokenPipeError:  # the reader of the output has closed it, as with "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (CycloptsError, *_EXPECTED) as error:
        if job is None:
            command = f"{argv[0]} " if argv[0] in COMMANDS else ""
            say(f"error: {error} (see nextpert {command}--help)")
        elif job.options["debug"]:
            raise
        else:
            message = str(error) or type(error).__name__
            say(f"error: {message}")
            if _OF_PYTHON.search(re.sub(r"'[^']*'", "", message)):
                say(HINT)
        return 2
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM, which batch systems send, like Ctrl-C, so that no file is left incomplete."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _messages(job: Job) -> Iterator[None]:
    """Print each warning once, on one line; store the results that functions log in the job."""
    from nextpert.cli._options import ADVICE, say

    once = cache(say)

    def take(record: logging.LogRecord) -> None:
        if record.levelno > logging.INFO and record.name != ADVICE:
            once(f"note: {record.getMessage()}")
        elif not record.name.startswith("nextpert.core"):
            job.logged.extend(" ".join(line.split()) for line in record.getMessage().splitlines())

    def show(
        message: Warning | str, category: type[Warning], *location: Any, **details: Any
    ) -> None:
        # Subclasses are deprecations of other packages and the like.
        if category is UserWarning:
            once(f"warning: {message}")

    handler, logger = logging.Handler(logging.INFO), logging.getLogger("nextpert")
    handler.emit = take  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
