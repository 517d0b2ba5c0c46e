"""Rounds that CIV needs, by prior, to be as close as it is under M = I after the last round."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from benchmarks.paper._ablations import DATA, FIXED, PAPER, Variant, distances
from benchmarks.paper._figures import AVERAGED, FIGURES, is_dense
from benchmarks.paper._files import read_csv, write_csv
from benchmarks.paper._run import first_below, mean_and_error
from benchmarks.paper._tables import markdown

VARIANTS = (
    Variant(PAPER, FIXED),
    Variant("learned, units of the data", DATA),
    Variant("units of the data, one scale a node", {**DATA, "pooled": False}),
    Variant("learned, units of the noise"),
    Variant("default, one scale a node", {"pooled": False}),
)
RUNS, SHOWN = 5, (10, 20, 50)


def run(folder: Path, *, quick: bool, workers: int) -> None:
    """Write one row a setting and prior."""
    rows: list[dict[str, Any]] = []
    for key in AVERAGED:
        figure = FIGURES[key].quick() if quick else FIGURES[key]
        runs, last = 2 if quick else RUNS, figure.rounds
        for setting in figure.settings:
            end = None
            for variant in VARIANTS:
                values = Parallel(n_jobs=workers)(
                    delayed(distances)(variant, setting, seed, r, last)
                    for seed in range(figure.instances)
                    for r in range(runs)
                )
                found = np.array(values).reshape(figure.instances, runs, -1).mean(axis=1)
                end = found[:, -1] if end is None else end
                rows.append(_row(key, setting.name, variant.name, found, end))
            print(
                f"{key}, {setting.name}: {[row['rounds'] for row in rows[-len(VARIANTS) :]]}",
                file=sys.stderr,
            )
    write_csv(pd.DataFrame(rows), folder, "rounds")


def _row(key: str, setting: str, name: str, found: Any, end: Any) -> dict[str, Any]:
    mean, _ = mean_and_error(found)
    own = [first_below(curve, level) for curve, level in zip(found, end, strict=True)]
    kept, error = mean_and_error(np.minimum(own, found.shape[1] - 1.0))
    row = {"figure": key, "setting": setting, "prior": name, "last": found.shape[1] - 1}
    row |= {"rounds": first_below(mean, end.mean()), "by_instance": kept, "sem": error}
    row |= {"reached": int(np.isfinite(own).sum()), "instances": len(own)}
    return row | {f"mean_{t}": mean[t] for t in SHOWN if t < found.shape[1]}


def _kept(found: Any) -> Any:
    return found["rounds"].clip(upper=found["last"])


def table(folder: Path) -> str:
    """Return the rounds, mean over the settings of each figure."""
    found = read_csv(folder, "rounds")
    found = found.assign(kept=_kept(found))
    pairs = zip(found["figure"], found["setting"], strict=True)
    found["dense"] = [is_dense(key, setting) for key, setting in pairs]
    keys = list(dict.fromkeys(found["figure"]))
    rows = []
    for name, part in found.groupby("prior", sort=False):
        means = part.groupby("figure", sort=False)["kept"].mean()
        there = np.isfinite(part["rounds"])
        own, n = part["by_instance"].mean(), len(part)
        cells = [f"{means[key]:.1f}" for key in keys]
        cells += [f"{part.loc[part['dense'] == d, 'kept'].mean():.1f}" for d in (True, False)]
        rows.append(
            [str(name), *cells, f"**{part['kept'].mean():.1f}**", f"{part['kept'].median():.0f}",
             f"{own:.1f}", f"{(part['kept'] <= 20).sum()}/{n}", f"{n - there.sum()}/{n}"]
        )  # fmt: skip
    counts = found.groupby("figure")["setting"].nunique()
    split = found.drop_duplicates(["figure", "setting"])["dense"]
    sizes = (f"dense ({split.sum()})", f"sparse ({(~split).sum()})")
    header = ["prior", *(f"{key} ({counts[key]})" for key in keys), *sizes, "all", "median"]
    return markdown([*header, "mean of instances' own", "settings within 20", "exclude"], rows)


def settings_table(folder: Path) -> str:
    """Return the rounds of every setting, and the distance after 20 of them."""
    found = read_csv(folder, "rounds")
    names = list(dict.fromkeys(found["prior"]))
    rows = []
    for (key, setting), part in found.groupby(["figure", "setting"], sort=False):
        at = part.set_index("prior")
        cells = [
            f"{at.loc[n, 'rounds']:.0f}" if np.isfinite(at.loc[n, "rounds"]) else "exclude"
            for n in names
        ]
        far = [f"{at.loc[n, 'mean_20']:.3f}" for n in names] if "mean_20" in at else []
        rows.append([str(key), str(setting), *cells, *far])
    header = ["figure", "setting", *(f"rounds, {n}" for n in names)]
    return markdown(
        header + [f"distance, round 20, {n}" for n in names] * ("mean_20" in found), rows
    )
