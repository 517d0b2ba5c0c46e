"""The numbers of all main calls in one file, to compare two revisions item by item.

TAP-seq, Papalexi, a subset of Norman and two simulated screens (batches and guides; combinations):
graphs, fits, effects, intervals, rankings, plans, numbers of cells, diagnosis, replays and a
campaign; the paper's figures at a reduced size, and its acquisitions in each domain. The real
screens are in the folder ``NEXTPERT_DATA``; without it they are left out. It takes some two
minutes of one core. Save in one revision, compare in the other::

    python -m benchmarks.snapshot --save before.npz
    python -m benchmarks.snapshot --compare before.npz
    python -m benchmarks.snapshot --compare before.npz --with after.npz
    python -m benchmarks.snapshot --compare before.npz --only tapseq combinations/plans figures/ed5

``--compare`` runs what the file holds (of ``--only``) and prints a row for each item that is not
the same, and a row for each step; ``--all`` prints all items. A table is compared row by row, by
its labels, so that two rows that change places differ in ``order`` alone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks._quiet import quiet
from benchmarks._snapshot_steps import CASES, PAPER, STEPS, fitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TOLERANCE = 1e-8
REAL = ("tapseq", "papalexi", "norman")
# What no revision has to keep: how results are stored, options, sentences, times.
SKIPPED = {
    "params", "version", "format", "contents", "cells", "graphs", "pending", "why", "meaning",
    "rule", "verdict", "frequency_key", "target_genes", "shift", "shift_source",
}  # fmt: skip
# Columns that say which row it is: as many of them, in this order, as tell the rows apart.
KEYS = (
    "perturbation", "gene", "parent", "child", "target", "held_out", "acquisition", "strategy",
    "round", "part", "quantity", "predictor", "action", "n_guides", "n_cells", "setting", "prior",
    "well",
)  # fmt: skip
# Names in files saved before -> names now: add a line where a column or a key is renamed.
RENAMED: dict[str, str] = {
    "stack": "predictors",
    "arcs": "edges",
    "n_arcs": "n_edges",
    "settled_by": "oriented_by",
    "expert": "predictor",
    "experts": "predictors",
    "aim": "strategy",
    "share_from_cells": "data_weight",
    "cells_mean": "raw_mean",
    "probability_covered": "probability_contains_best",
    "probability_known": "probability_best_known",
    "uncertainty_removed": "variance_reduction",
    "cells_to_tell": "cells_to_distinguish",
    "guides_to_tell": "guides_to_distinguish",
    "is_clear": "is_significant",
    "own_change": "target_gene_change",
    "own_z": "target_gene_z",
    "is_own": "is_target",
    "error_half_cells": "error_half_raw_means",
    "error_half_alone": "error_half_no_predictors",
    "error_half_nothing": "error_half_no_effect",
    "error_unseen_nothing": "error_unseen_no_effect",
    "error_guides_nothing": "error_guides_no_effect",
    "error_batches_nothing": "error_batches_no_effect",
    "error_to_nothing": "error_to_no_effect",
    "error_to_nothing_se": "error_to_no_effect_se",
    "coverage_half_clear": "coverage_half_large",
    "coverage_unseen_clear": "coverage_unseen_large",
    "coverage_guides_clear": "coverage_guides_large",
    "coverage_batches_clear": "coverage_batches_large",
}


def flat(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a result by name: numbers, or texts of fixed width."""
    if isinstance(value, pd.DataFrame):
        if value.index.name:
            value = value.reset_index()
        rows = np.full(len(value), "", dtype=object)
        for key in KEYS:
            if key in value and len(set(rows)) < len(rows):
                rows = rows + value[key].astype(str).to_numpy(dtype=object) + " "
        places = np.argsort(rows, kind="stable")
        yield f"{name}/order", np.asarray(rows, dtype=str)
        for column in value:
            if column not in SKIPPED:
                yield from flat(value[column].to_numpy()[places], f"{name}/{column}")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            if key not in SKIPPED:
                yield from flat(part, f"{name}/{key}")
    elif sp.issparse(value):
        yield name, value.toarray()
    else:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            array = np.asarray(array, dtype=str)
        if not (array.ndim == 0 and array.dtype.kind == "U" and " " in str(array)):
            yield name, array  # a sentence is nobody's number


def names_of_all(only: Iterable[str] = ()) -> list[str]:
    """Return the steps, ``screen/step``, that begin as one of ``only`` does (or are all)."""
    every = [f"{case}/{step}" for case in CASES for step in STEPS] + list(PAPER)
    wanted = [word.rstrip("/") for word in only]
    for word in wanted:
        if not any(name == word or name.startswith(f"{word}/") for name in every):
            message = f"No step is called {word!r}. They are {', '.join(every)}."
            raise SystemExit(message)
    chosen = [n for n in every if not wanted or any(f"{n}/".startswith(f"{w}/") for w in wanted)]
    if "NEXTPERT_DATA" not in os.environ and not Path("../shared/data").is_dir():
        print("NEXTPERT_DATA names no folder: real screens are left out.", file=sys.stderr)
        chosen = [name for name in chosen if name.split("/")[0] not in REAL]
    return chosen


def run(names: list[str]) -> dict[str, np.ndarray]:
    """Return the arrays of the steps; a step that fails leaves ``error`` and the others go on."""
    found: dict[str, np.ndarray] = {}
    ready: dict[str, Any] = {}
    for name in names:
        start = time.process_time()
        first, second = name.split("/")
        try:
            if name in PAPER:
                items = PAPER[name]()
            else:
                if first not in ready:
                    ready = {first: fitted(CASES[first])}
                items = STEPS[second](ready[first], CASES[first])
            for item, value in items:
                found.update(flat(value, f"{name}/{item}"))
        except Exception as error:
            found[f"{name}/error"] = np.asarray(f"{type(error).__name__}: {error}")
            print(f"{name}: {error}", file=sys.stderr)
        print(f"{name}: {time.process_time() - start:.1f} s", file=sys.stderr, flush=True)
    return found


def difference(a: np.ndarray, b: np.ndarray, tolerance: float) -> tuple[float, float, str]:
    """Return the largest absolute and relative difference, and the verdict.

    Relative to the larger of the two numbers. Numbers are the same to a tolerance where they
    differ by no more than that times the larger of 1 and their size. Of texts, the number and the
    share of those that differ.
    """
    if a.shape != b.shape or (a.dtype.kind == "U") != (b.dtype.kind == "U"):
        return np.nan, np.nan, f"SHAPE {a.dtype.kind}{a.shape} -> {b.dtype.kind}{b.shape}"
    if a.size == 0:
        return 0.0, 0.0, "same"
    if a.dtype.kind == "U":
        differ = a != b
        return float(differ.sum()), float(differ.mean()), "DIFFERS" if differ.any() else "same"
    x, y = a.astype(float), b.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(x - y)
        gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, gap)
        gap = np.where(np.isnan(gap), np.inf, gap)
        size = np.maximum(np.abs(x), np.abs(y))
        relative = np.where(gap > 0, gap / size, 0.0)
        within = (gap == 0) | (gap <= tolerance * np.maximum(size, 1))  # size may be NaN
    relative = np.where(np.isnan(relative), np.inf, relative)
    verdict = "same" if not gap.any() else "within" if within.all() else "DIFFERS"
    return float(gap.max()), float(relative.max()), verdict


def compare(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], tolerance: float
) -> pd.DataFrame:
    """Return one row an item: largest absolute and relative difference, and the verdict."""
    rows = []
    for item in dict.fromkeys([*before, *after]):
        if item not in after:
            rows.append((item, np.nan, np.nan, "ONLY BEFORE"))
        elif item not in before:
            rows.append((item, np.nan, np.nan, "ONLY AFTER"))
        else:
            rows.append((item, *difference(before[item], after[item], tolerance)))
    return pd.DataFrame(rows, columns=["item", "absolute", "relative", "verdict"])


def step_of(item: str) -> str:
    """Return the step that an item is of."""
    return "/".join(item.split("/")[:2])


def as_read(path: str, names: list[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a file that are of the named steps, under the names of today."""
    wanted, found = set(names), {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            item = "/".join(RENAMED.get(part, part) for part in key.split("/"))
            if step_of(item) in wanted:
                found[item] = file[key]
    return found


def show(table: pd.DataFrame, *, every: bool, tolerance: float) -> int:
    """Print the items that differ and one row a step, and return how many items differ."""
    bad = ~table["verdict"].isin(["same", "within"])
    shown = table if every else table[bad]
    line = "| {} | {:.1e} | {:.1e} | {} |".format
    print("| item | absolute | relative | verdict |\n|---|---|---|---|")
    for row in shown.itertuples(index=False):
        print(line(*row))
    print("\n| step | items | absolute | relative | differ |\n|---|---|---|---|---|")
    for step, part in table.groupby(table["item"].map(step_of), sort=False):
        sizes = part[["absolute", "relative"]].max()
        print(f"| {step} | {len(part)} | {sizes.iloc[0]:.1e} | {sizes.iloc[1]:.1e} | "
              f"{int(bad[part.index].sum())} |")  # fmt: skip
    print(f"\n{int(bad.sum())} of {len(table)} items differ by more than {tolerance:g}.")
    return int(bad.sum())


def main(arguments: list[str] | None = None) -> int:
    """Save or compare, as the arguments say."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.snapshot", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--save", metavar="FILE", help="npz to write")
    parser.add_argument("--compare", metavar="FILE", help="npz saved before")
    parser.add_argument("--with", dest="other", metavar="FILE", help="npz saved after; else run")
    parser.add_argument("--only", nargs="+", metavar="STEP", default=(), help="screen or step")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--all", action="store_true", help="print the items that are the same too")
    options = parser.parse_args(arguments)
    if not options.save and not options.compare:
        parser.error("name a file to --save to, or one to --compare with")
    names = names_of_all(options.only)
    if options.other:
        after = as_read(options.other, names)
    else:
        with quiet():
            after = run(names)
    if options.save:
        np.savez_compressed(options.save, **after)
    if not options.compare:
        return 0
    table = compare(as_read(options.compare, names), after, options.tolerance)
    return int(show(table, every=options.all, tolerance=options.tolerance) > 0)


if __name__ == "__main__":
    sys.exit(main())
