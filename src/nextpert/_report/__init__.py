"""``report``: one page for the lab with the results of an AnnData."""

from nextpert._report.report import report

__all__ = ["report"]
