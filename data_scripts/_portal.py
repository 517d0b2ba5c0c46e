"""The curl configuration that the Single Cell Portal hands out, and which of its files we need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from _download import DownloadError, check_url

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the loader reads; of the expression either the full file or its six parts.
FULL = "RNA_expression.csv"
SUBSETS = "RNA_expression_subset*.csv"
OTHERS = ("RNA_metadata.csv", "all_sgRNA_assignments.txt", "raw_CITE_expression.csv")
_MANIFEST = "file_supplemental_info.tsv"
_LINE = re.compile(r'(url|output)\s*=\s*"([^"]+)"')
# Folders are always made, bodies decoded, and redirects followed.
_HARMLESS = re.compile(r"(--)?(create-dirs|compressed|location)")
_FAILED = re.compile(r"# Error downloading (.+?)\.  .*")
_ASK_AGAIN = (
    "In the browser, the study's Download tab gives a command with a sign-in code, which holds "
    "for half an hour; run its first half, which writes cfg.txt."
)


@dataclass(frozen=True)
class Link:
    """A file behind a link."""

    url: str
    parts: tuple[str, ...]  # folders and name, below the folder of downloads

    @property
    def name(self) -> str:
        """The path below the folder of downloads."""
        return "/".join(self.parts)

    def __repr__(self) -> str:
        """Leave the link out: it is a credential."""
        return f"Link({self.name!r})"


def read_configuration(text: str) -> tuple[list[Link], list[str]]:
    """Return the files of a curl configuration, and those that the portal could not link.

    Nothing but ``url`` and ``output`` is accepted, in pairs; of other options, those without any
    effect here are passed over and all others refused.

    Raises
    ------
    DownloadError
        If it is no such configuration, or an output lies outside the folder of downloads. Line
        numbers are named, never their content.
    """
    text = text.lstrip("\ufeff")
    if not text.strip() or text.lstrip().startswith(("{", "<", "curl ")):
        message = (
            "The configuration file is empty, the command that fetches it, or an answer of the "
            f"portal that reports a fault; the sign-in code may be spent. {_ASK_AGAIN}"
        )
        raise DownloadError(message)
    links: list[Link] = []
    failed: list[str] = []
    url = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if failure := _FAILED.fullmatch(line):
            failed.append(failure[1])
        if not line or line.startswith("#") or _HARMLESS.fullmatch(line):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1] != ("output" if url else "url"):
            message = f"Line {number} of the configuration is no url, or output after its url."
            raise DownloadError(message)
        if not url:
            url = check_url(match[2], f"the file in line {number} of the configuration")
            continue
        links.append(Link(url, _safe_parts(match[2], number)))
        url = ""
    if url:
        message = "The configuration ends within a file: it has been cut short. " + _ASK_AGAIN
        raise DownloadError(message)
    seen: set[str] = set()
    for link in links:
        if link.name.casefold() in seen:
            message = f"The configuration writes {link.name!r} twice: keep one of the two."
            raise DownloadError(message)
        seen.add(link.name.casefold())
    return links, failed


def _safe_parts(output: str, number: int) -> tuple[str, ...]:
    """Return the parts of a relative path that stays inside its folder (/ or Windows' own)."""
    parts = tuple(output.replace("\\", "/").split("/"))
    if any(
        part in ("", ".", "..")
        or part != part.strip()
        or ":" in part
        or part.endswith((".part", ".part.etag"))
        or not part.isprintable()
        for part in parts
    ):
        message = (
            f"The output of line {number} of the configuration is no plain path below the folder "
            "of downloads: it is refused, and nothing was downloaded."
        )
        raise DownloadError(message)
    return parts


def choose(
    links: Sequence[Link], *, subsets: bool = False, patterns: Sequence[str] = ()
) -> tuple[list[Link], list[str]]:
    """Return the files to download, and what the loader would also read but is not among them.

    Parameters
    ----------
    links
        The files of the configuration.
    subsets
        Whether to take the six parts of the expression file instead of the full one; they are
        taken too where there is no full one.
    patterns
        Instead, take the files whose name or path matches one of these, such as ``"*.csv.gz"``.
    """
    if patterns:
        chosen = [link for link in links if any(_matches(link, p) for p in patterns)]
        idle = [p for p in patterns if not any(_matches(link, p) for link in links)]
        if idle:
            names = ", ".join(sorted(link.name for link in links)) or "nothing"
            message = f"No file matches {', '.join(map(repr, idle))}; there are {names}."
            raise DownloadError(message)
        return chosen, []
    by_name = {
        name: [link for link in links if fnmatch(link.parts[-1].removesuffix(".gz"), name)]
        for name in (FULL, SUBSETS, *OTHERS)
    }
    del by_name[FULL if subsets or not by_name[FULL] else SUBSETS]
    needed = [link for named in by_name.values() for link in named]
    if not needed:
        message = (
            "The configuration names none of the files of SCP1064: is it that of another study?"
        )
        raise DownloadError(message)
    chosen = [link for link in links if link in needed]
    return chosen, [name for name, named in by_name.items() if not named]


def _matches(link: Link, pattern: str) -> bool:
    if link.parts[-1] == _MANIFEST and pattern.startswith("*"):
        return False  # its link is spent after half an hour, and nothing reads it
    return fnmatch(link.parts[-1], pattern) or fnmatch(link.name, pattern)
