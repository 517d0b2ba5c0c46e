"""The command ``nextpert``."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Sequence

# What bad input raises, here and in the functions called; anything else is a fault of ours, and
# shows its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``nextpert demo`` or ``nextpert design`` and return the exit code.

    Parameters
    ----------
    argv
        The arguments; by default those of the process.

    Returns
    -------
    int
        0; 2 after an error, which is told on one line; 130 if interrupted.

    Examples
    --------
    >>> from nextpert.cli import main
    >>> main(["design", "absent.h5ad", "--target", "MYC", "--quiet"])
    2
    """
    from nextpert import __version__
    from nextpert.cli._options import parse
    from nextpert.cli._report import say

    options = parse(__version__, None if argv is None else list(argv))
    notes = _Notes(logging.WARNING)
    logger = logging.getLogger("nextpert")
    logger.addHandler(notes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _show_warning
            from nextpert.cli._run import run

            run(options)
    except KeyboardInterrupt:
        say("interrupted, nothing written")
        return 130
    except _EXPECTED as error:
        if options.debug:
            raise
        say(f"error: {_one_line(error)}")
        return 2
    finally:
        logger.removeHandler(notes)
    return 0


class _Notes(logging.Handler):
    """Tells what the functions log as a warning, on one line."""

    def emit(self, record: logging.LogRecord) -> None:
        from nextpert.cli._report import say

        say(f"note: {' '.join(record.getMessage().split())}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    from nextpert.cli._report import say

    if category is UserWarning:  # sub-classes are other packages' deprecations and the like
        say(f"warning: {' '.join(str(message).split())}")
