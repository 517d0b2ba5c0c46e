"""The curl configuration that the Single Cell Portal hands out, and which of its files we need."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from _http import DownloadError, check_url

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the loader reads; of the expression either the full file or its six parts.
FULL = ("RNA_expression.csv",)
SUBSETS = ("RNA_expression_subset*.csv",)
PROTEIN = ("raw_CITE_expression.csv", "Protein_expression.csv")
OTHERS = ("RNA_metadata.csv", "all_sgRNA_assignments.txt", "RNA_UMAP_cluster.csv", *PROTEIN)
_MANIFEST = "file_supplemental_info.tsv"
# Options that change nothing for us: folders are always made, bodies decoded, redirects followed.
_HARMLESS = ("create-dirs", "compressed", "location")
_OPTION = re.compile(r"(?:--)?(?P<name>[A-Za-z][\w.-]*)(?:\s*[=:]\s*|\s+|$)(?P<value>.*)", re.S)
_LONGEST = 10_000_000  # characters
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
    _require_configuration(text)
    links: list[Link] = []
    failed: list[str] = []
    held: dict[str, str] = {}
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        line = raw.strip()
        if line.startswith("# Error downloading "):
            failed.append(line.removeprefix("# Error downloading ").split(".  ")[0])
        if not line or line.startswith("#"):
            continue
        name, value = _option(line, number)
        if name in _HARMLESS and not value:
            continue
        if name not in ("url", "output") or not value:
            message = f"Line {number} of the configuration sets {name!r}: only url and output may."
            raise DownloadError(message)
        if name in held:
            message = f"Line {number} of the configuration gives a second {name} for one file."
            raise DownloadError(message)
        held[name] = value
        if len(held) == 2:
            url = check_url(held["url"], f"the file before line {number} of the configuration")
            links.append(Link(url, safe_parts(held["output"], number)))
            held = {}
    if held:
        message = "The configuration ends within a file: it has been cut short. " + _ASK_AGAIN
        raise DownloadError(message)
    _require_distinct(links)
    return links, failed


def _require_configuration(text: str) -> None:
    fault = None
    start = text.lstrip("\ufeff \t\r\n")[:200]
    if not start:
        fault = "is empty"
    elif len(text) > _LONGEST:
        fault = "is far too long"
    elif start.startswith(("{", "<")):
        fault = "is an answer of the portal that reports a fault; the sign-in code may be spent"
    elif re.match(r"curl\s", start):
        fault = "is the command that fetches it"
    if fault is not None:
        message = f"The configuration file {fault}. {_ASK_AGAIN}"
        raise DownloadError(message)


def _option(line: str, number: int) -> tuple[str, str]:
    match = _OPTION.fullmatch(line)
    value = match["value"].strip() if match else ""
    if value.startswith('"'):
        closed = len(value) > 1 and value.endswith('"') and '"' not in value[1:-1]
        if not closed:
            match = None
        value = value[1:-1]
    if match is None:
        message = f"Line {number} is no line of a curl configuration. {_ASK_AGAIN}"
        raise DownloadError(message)
    return match["name"].lower(), value


def safe_parts(output: str, number: int) -> tuple[str, ...]:
    """Return the parts of a relative path that stays inside its folder (/ or Windows' own)."""
    parts = tuple(output.replace("\\", "/").split("/"))
    bad = any(
        part in ("", ".", "..")
        or part != part.strip()
        or ":" in part
        or part.endswith((".part", ".part.json"))
        or not part.isprintable()
        for part in parts
    )
    if bad:
        message = (
            f"The output of line {number} of the configuration is no plain path below the folder "
            "of downloads: it is refused, and nothing was downloaded."
        )
        raise DownloadError(message)
    return parts


def _require_distinct(links: Sequence[Link]) -> None:
    seen: set[str] = set()
    for link in links:
        if link.name.casefold() in seen:
            message = f"The configuration writes {link.name!r} twice: keep one of the two."
            raise DownloadError(message)
        seen.add(link.name.casefold())


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
    expression = SUBSETS if subsets or not _any(links, FULL[0]) else FULL
    wanted = (*expression, *OTHERS)
    chosen = [link for link in links if any(_is(link, name) for name in wanted)]
    missing = [name for name in wanted if not _any(links, name)]
    if not chosen:
        message = (
            "The configuration names none of the files of SCP1064: is it that of another study?"
        )
        raise DownloadError(message)
    return chosen, missing


def _is(link: Link, name: str) -> bool:
    return fnmatch(link.parts[-1].removesuffix(".gz"), name)


def _any(links: Sequence[Link], name: str) -> bool:
    return any(_is(link, name) for link in links)


def _matches(link: Link, pattern: str) -> bool:
    if link.parts[-1] == _MANIFEST and pattern.startswith("*"):
        return False  # its link is spent after half an hour, and nothing reads it
    return fnmatch(link.parts[-1], pattern) or fnmatch(link.name, pattern)
