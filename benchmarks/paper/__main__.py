"""The figures of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), rerun as printed.

One command per figure, and one for all. Each writes its tables (csv, markdown), its figures (png)
and what it was run with (json) into ``results/``; ``readme`` writes README.md from those alone.
Figs. 3 to 5 and ED 1 to 6 are simulated models; fig6 and ED 7 to 10 are the Perturb-CITE-seq
screen: its files (``--study``), scPerturb's file where it can be fetched, or a simulated stand-in.

    python -m benchmarks.paper fig5             # fig3 ... fig6, ed1 ... ed10
    python -m benchmarks.paper all              # every figure and the README
    python -m benchmarks.paper all --quick      # tiny sizes, a trial, into a temporary folder
    python -m benchmarks.paper fig6 --study FrangiehIzar2021_RNA.h5ad
    python -m benchmarks.paper fig5 --draw      # tables and figure again, from the csv files
    python -m benchmarks.paper readme
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paper import _draw, _fig3, _fig4, _run, _screen
from benchmarks.paper._figures import FIGURES
from benchmarks.paper._files import RESULTS, write_csv, write_facts
from benchmarks.paper._readme import write_readme
from benchmarks.paper._tables import write_markdown

KEYS = ("fig3", "fig4", *FIGURES, *_screen.FIGURES)


def campaigns_of(key: str, folder: Path, *, quick: bool, workers: int) -> dict[str, object]:
    """Run the campaigns of a figure and write its csv files."""
    figure = FIGURES[key].quick() if quick else FIGURES[key]
    found = _run.curves(figure, workers)
    write_csv(_run.by_round(found), folder, key)
    write_csv(_run.last(found), folder, f"{key}-last")
    write_csv(_run.paired(found), folder, f"{key}-pairs")
    write_csv(_run.priors(found), folder, f"{key}-priors")
    if key == "ed5":
        write_csv(_run.runtime(figure.settings[0], figure), folder, f"{key}-runtime")
    names = ("instances", "runs", "learned_runs", "rounds")
    processor = round(sum(line.seconds for line in found.values()))
    return {**{name: getattr(figure, name) for name in names}, "processor_seconds": processor}


def make(
    key: str, folder: Path, *, quick: bool, workers: int, study: str | None, controls: str
) -> None:
    """Run one figure and write everything about it."""
    start = time.perf_counter()
    facts: dict[str, object] = {}
    if key == "fig3":
        _fig3.run(folder, quick=quick)
    elif key == "fig4":
        _fig4.run(folder, quick=quick, workers=workers)
    elif key in _screen.FIGURES:
        facts = _screen.run(
            key, folder, quick=quick, workers=workers, study=study, controls=controls
        )
    else:
        facts = campaigns_of(key, folder, quick=quick, workers=workers)
    seconds = round(time.perf_counter() - start)
    if "processor_seconds" not in facts:
        facts["seconds"] = seconds
    command = f"python -m benchmarks.paper {key}" + " --quick" * quick
    write_facts(folder, key, {"command": command, **facts, "workers": workers})
    show(key, folder)
    print(f"{key}: {seconds} s", file=sys.stderr, flush=True)


def show(key: str, folder: Path) -> None:
    """Write the markdown and the png of a figure from its csv files."""
    modules = {"fig3": _fig3, "fig4": _fig4}
    if key in modules:
        (folder / f"{key}.md").write_text(modules[key].table(folder) + "\n")
        modules[key].draw(folder)
    elif key in FIGURES:
        write_markdown(key, folder)
        _draw.draw(key, folder)


def main(arguments: list[str] | None = None) -> None:
    """Run the figures asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=__doc__.split("\n", maxsplit=1)[0]
    )
    parser.add_argument("figures", nargs="+", choices=(*KEYS, "all", "readme"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a trial")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, help="folder of the results; benchmarks/paper/results")
    parser.add_argument("--study", help="folder or h5ad of the Perturb-CITE-seq screen")
    parser.add_argument(
        "--controls", choices=("no_guide", "control_guide"), default="no_guide",
        help="cells that are controls in figures of the screen; the paper: no_guide",
    )  # fmt: skip
    parser.add_argument("--draw", action="store_true", help="only tables and figures, from the csv")
    args = parser.parse_args(arguments)
    trial = Path(tempfile.gettempdir()) / "nextpert-paper-quick"
    folder: Path = args.out or (trial if args.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    keys = KEYS if "all" in args.figures else [k for k in args.figures if k != "readme"]
    for key in keys:
        if args.draw:
            show(key, folder)
        else:
            make(
                key, folder, quick=args.quick, workers=args.workers, study=args.study,
                controls=args.controls,
            )  # fmt: skip
    # The README beside the results; of a trial, in its own folder.
    if {"all", "readme"} & set(args.figures):
        write_readme(folder, folder.parent if folder == RESULTS else folder)
    print(f"results in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
