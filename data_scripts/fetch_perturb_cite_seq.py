"""Download the Perturb-CITE-seq study (Frangieh et al. 2021, SCP1064) and convert it to h5ad.

From the Single Cell Portal, with the configuration file that it hands out to those signed in::

    python data_scripts/fetch_perturb_cite_seq.py portal cfg.txt --to data

or from the scPerturb collection on Zenodo, which needs no sign-in::

    python data_scripts/fetch_perturb_cite_seq.py scperturb --to data

``--dry-run`` shows what either would do. Run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import _download
import _portal
from _download import DownloadError, part_of, redacted, size_of

from nextpert.datasets._perturb_cite_seq import SCPERTURB

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("fetch")


@dataclass(frozen=True)
class Plan:
    """The files to download, their MD5 if known, and what is read from where to be converted."""

    links: list[_portal.Link]
    source: Path
    md5: str | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(argv)
    result = options.h5ad or options.to / "perturb_cite_seq.h5ad"
    try:
        plan = _plan_portal(options) if options.origin == "portal" else _plan_scperturb(options)
        if options.dry_run:
            _show(plan, options, result)
            return 0
        for link in plan.links:
            target = _target(options, link)
            if _is_there(target, plan.md5):
                logger.info("%s is there already", link.name)
            else:
                _download.download(link.url, target, md5=plan.md5, tries=options.tries)
        if not options.no_convert:
            _convert(plan, options, result)
    except (DownloadError, OSError) as error:  # those of the network are DownloadErrors by now
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
    links, failed = _portal.read_configuration(_read_text(options.configuration))
    chosen, missing = _portal.choose(links, subsets=options.subsets, patterns=options.only)
    for name in failed:
        logger.warning("The portal gives no link to %s.", name)
    if missing:
        logger.warning("Not in the configuration: %s.", ", ".join(missing))
    options.no_convert |= bool(options.only)
    tops = {link.parts[0] if len(link.parts) > 1 else "" for link in chosen}
    source = options.to / (tops.pop() if len(tops) == 1 else "")
    return Plan(chosen, source)


def _read_text(path: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        message = f"{path} is no text: it should be the portal's curl configuration file."
        raise DownloadError(message) from None


def _plan_scperturb(options: argparse.Namespace) -> Plan:
    link = _portal.Link(SCPERTURB.url, ("scPerturb", SCPERTURB.name))
    return Plan([link], _target(options, link), SCPERTURB.checksum.removeprefix("md5:"))


def _target(options: argparse.Namespace, link: _portal.Link) -> Path:
    """Return where a file goes; links on the disk must not lead out of the folder either."""
    target = Path(options.to, *link.parts)
    if not target.resolve().is_relative_to(options.to.resolve()):
        message = f"{link.name} leads out of {options.to} through a symbolic link: refused."
        raise DownloadError(message)
    return target


def _is_there(target: Path, md5: str | None) -> bool:
    """Whether the file is there; only complete files have its name, but others may have put one."""
    if target.exists() and md5 is not None and not _download.has_md5(target, md5):
        message = f"{target} has another MD5 checksum: move it away and run this again."
        raise DownloadError(message)
    return target.exists()


def _show(plan: Plan, options: argparse.Namespace, result: Path) -> None:
    for link in plan.links:
        target = _target(options, link)
        came = size_of(part_of(target))
        doing = f"to go on from byte {came}" if came else "to download"
        if _is_there(target, plan.md5):
            doing = "there already"
        print(f"{target}  <-  {redacted(link.url)}  ({doing})")
    if not options.no_convert:
        there = ", which is there already: nothing to do" if result.exists() else ""
        print(f"then {plan.source} to {result}{there}")
    print("Dry run: nothing was downloaded or written.")


def _convert(plan: Plan, options: argparse.Namespace, result: Path) -> None:
    if result.exists():
        logger.info("%s is there already", result)
        return
    import nextpert as npt
    from nextpert._files import whole_file

    try:
        adata = npt.datasets.perturb_cite_seq(
            plan.source, condition=options.condition, counts=options.counts
        )
    except ValueError as error:
        message = f"The files could not be converted: {error}"
        raise DownloadError(message) from error
    with whole_file(result) as part:
        adata.write_h5ad(part)
    logger.info("wrote %s: %d cells x %d genes", result, adata.n_obs, adata.n_vars)


if __name__ == "__main__":
    sys.exit(main())
