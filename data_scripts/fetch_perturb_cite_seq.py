"""Download the Perturb-CITE-seq study (Frangieh et al. 2021, SCP1064) and convert it to h5ad.

From the Single Cell Portal, with the configuration file that it hands out to those signed in::

    python data_scripts/fetch_perturb_cite_seq.py portal cfg.txt --to data

or from the scPerturb collection on Zenodo, which needs no sign-in::

    python data_scripts/fetch_perturb_cite_seq.py scperturb --to data

``--dry-run`` shows what either would do. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _download
import _portal
import _zenodo
from _http import DownloadError, redacted
from _state import Expected

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("fetch")


@dataclass(frozen=True)
class Task:
    """One file to download."""

    url: str
    name: str
    target: Path
    expected: Expected

    def __repr__(self) -> str:
        """Leave the link out: it may be a credential."""
        return f"Task({self.name!r})"


@dataclass(frozen=True)
class Plan:
    """The files to download, and what is read from where to be converted."""

    tasks: list[Task]
    source: Path
    complaints: list[str]
    complete: bool = True
    with_protein: bool = True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(argv)
    try:
        plan = _plan_portal(options) if options.origin == "portal" else _plan_scperturb(options)
        result = options.h5ad or options.to / "perturb_cite_seq.h5ad"
        if options.dry_run:
            _show(plan, None if options.no_convert else result)
            return 0
        for complaint in plan.complaints:
            logger.warning(complaint)
        for task in plan.tasks:
            if _is_there(task):
                logger.info("%s is there already", task.name)
                continue
            _download.download(task.url, task.target, expected=task.expected, tries=options.tries)
        if not options.no_convert:
            _convert(plan, result, condition=options.condition, counts=options.counts)
    except DownloadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of a disk: those of the network are DownloadErrors by now
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--to", type=Path, default=Path("data"), metavar="DIR", help="folder of downloads (./data)"
    )
    shared.add_argument("--dry-run", action="store_true", help="show what would be done, only")
    shared.add_argument("--no-convert", action="store_true", help="download, but write no h5ad")
    shared.add_argument(
        "--h5ad", type=Path, metavar="FILE", help="file to write (DIR/perturb_cite_seq.h5ad)"
    )
    shared.add_argument("--condition", help="convert the cells of one condition, such as Control")
    shared.add_argument("--counts", action="store_true", help="restore the integer counts, too")
    shared.add_argument(
        "--tries", type=int, default=6, metavar="N", help="give up after N faults in a row (6)"
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    origins = parser.add_subparsers(dest="origin", required=True, metavar="portal | scperturb")
    portal = origins.add_parser("portal", parents=[shared], help="the Single Cell Portal's files")
    portal.add_argument("configuration", help="the portal's curl configuration file; - for stdin")
    portal.add_argument(
        "--subsets", action="store_true", help="take the six expression files, not the full one"
    )
    portal.add_argument(
        "--only", action="append", default=[], metavar="PATTERN",
        help="download the files that match, such as '*UMAP*' (may be repeated), and convert none",
    )  # fmt: skip
    origins.add_parser("scperturb", parents=[shared], help="scPerturb's h5ad on Zenodo (1.5 GB)")
    return parser


def _plan_portal(options: argparse.Namespace) -> Plan:
    text = _read_text(options.configuration)
    links, failed = _portal.read_configuration(text)
    chosen, missing = _portal.choose(links, subsets=options.subsets, patterns=options.only)
    complaints = [f"The portal gives no link to {name}." for name in failed]
    if missing:
        complaints.append(f"Not in the configuration: {', '.join(missing)}.")
    tasks = [
        Task(link.url, link.name, _inside(options.to, link.parts), Expected()) for link in chosen
    ]
    tops = {link.parts[0] for link in chosen if len(link.parts) > 1}
    alone = len(tops) == 1 and all(len(link.parts) > 1 for link in chosen)
    source = options.to / tops.pop() if alone else options.to
    with_protein = not set(_portal.PROTEIN) <= set(missing)
    return Plan(tasks, source, complaints, not options.only, with_protein)


def _read_text(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        message = f"{path} is no text: it should be the portal's curl configuration file."
        raise DownloadError(message) from None


def _inside(folder: Path, parts: tuple[str, ...]) -> Path:
    """Return the path below the folder; links on the disk must not lead out of it either."""
    target = folder.joinpath(*parts)
    if not target.resolve().is_relative_to(folder.resolve()):
        message = f"{'/'.join(parts)} leads out of {folder} through a symbolic link: refused."
        raise DownloadError(message)
    return target


def _plan_scperturb(options: argparse.Namespace) -> Plan:
    stored = _download.retry(_zenodo.look_up, "Zenodo's record", tries=options.tries)
    target = options.to / "scPerturb" / stored.name
    task = Task(stored.url, stored.name, target, Expected(stored.size, stored.md5))
    return Plan([task], target, [])


def _is_there(task: Task) -> bool:
    """Whether the file is there; only whole files bear its name, but others may have put one."""
    if not task.target.exists():
        return False
    fault = None
    size = task.target.stat().st_size
    if task.expected.size is not None and size != task.expected.size:
        fault = f"has {size} bytes instead of {task.expected.size}"
    elif task.expected.md5 is not None:
        with task.target.open("rb") as handle:
            if hashlib.file_digest(handle, "md5").hexdigest() != task.expected.md5:
                fault = "has another MD5 checksum"
    if fault is not None:
        message = f"{task.target} is another file ({fault}): move it away and run this again."
        raise DownloadError(message)
    return True


def _show(plan: Plan, result: Path | None) -> None:
    for complaint in plan.complaints:
        print(complaint)
    for task in plan.tasks:
        size = "" if task.expected.size is None else f" of {task.expected.size}"
        came = _download.size_of(_download.part_of(task.target))
        if _is_there(task):
            doing = "there already"
        elif came:
            doing = f"to go on from byte {came}{size}"
        else:
            doing = "to download" if not size else f"to download, {task.expected.size} bytes"
        print(f"{task.target}  <-  {redacted(task.url)}  ({doing})")
    if result is not None and plan.complete:
        there = ", which is there already: nothing to do" if result.exists() else ""
        print(f"then {plan.source} to {result}{there}")
    print("Dry run: nothing was downloaded or written.")


def _convert(plan: Plan, result: Path, *, condition: str | None, counts: bool) -> None:
    if not plan.complete:
        return
    if result.exists():
        logger.info("%s is there already", result)
        return
    import nextpert as npt

    result.parent.mkdir(parents=True, exist_ok=True)
    try:
        adata = npt.datasets.perturb_cite_seq(
            plan.source,
            condition=condition,
            counts=counts,
            protein=plan.with_protein,
            backed=result,
        )
    except ValueError as error:
        message = f"The files could not be converted: {error}"
        raise DownloadError(message) from error
    logger.info("wrote %s: %d cells x %d genes", result, adata.n_obs, adata.n_vars)
    adata.file.close()


if __name__ == "__main__":
    sys.exit(main())
