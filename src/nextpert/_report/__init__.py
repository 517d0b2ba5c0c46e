"""``report``: one page for the bench from the results that an AnnData holds."""

from nextpert._report.report import report

__all__ = ["report"]
