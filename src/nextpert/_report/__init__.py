"""``report``: one page for the lab with the results of an AnnData; ``summary``: its verdict."""

from nextpert._report.report import report, summary

__all__ = ["report", "summary"]
