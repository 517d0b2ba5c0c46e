"""Results as markdown, from the csv files alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper._figures import FIGURES, NAMES
from benchmarks.paper._files import read_csv

SURE = 2.0  # standard errors from 0


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in markdown."""
    names = list(header)
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def value(mean: float, error: float) -> str:
    """Return mean and standard error to three decimals, or three digits where they are large."""
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def verdict(difference: float, error: float) -> str:
    """Say whether the first of a pair is closer to the target, beyond two standard errors."""
    if difference < -SURE * error:
        return "closer"
    return "farther" if difference > SURE * error else "not resolved"


def pair_name(pair: str) -> str:
    """Return the names of a pair as shown."""
    return " - ".join(NAMES[name] for name in pair.split(" - "))


def distances(table: Any, rounds: Iterable[int]) -> str:
    """Return one row a setting, prior and acquisition, a column a round."""
    ends = [t for t in rounds if t in set(table["round"])]
    rows = []
    for (setting, prior, acquisition), part in table.groupby(
        ["setting", "prior", "acquisition"], sort=False
    ):
        at = part.set_index("round")
        cells = [value(at.loc[t, "mean"], at.loc[t, "sem"]) for t in ends]
        rows.append([setting, prior, NAMES[acquisition], *cells])
    return markdown(["setting", "prior", "acquisition", *(f"round {t}" for t in ends)], rows)


def at_the_end(table: Any, prior: str) -> str:
    """Return a row per setting, a column per acquisition, after the last round; least in bold."""
    last = table[(table["round"] == table["round"].max()) & (table["prior"] == prior)]
    acquisitions = list(dict.fromkeys(last["acquisition"]))
    rows = []
    for setting, part in last.groupby("setting", sort=False):
        at = part.set_index("acquisition")
        least = at["mean"].idxmin()
        cells = [value(at.loc[c, "mean"], at.loc[c, "sem"]) for c in acquisitions]
        shown = [f"**{x}**" if c == least else x for c, x in zip(acquisitions, cells, strict=True)]
        rows.append([str(setting), *shown])
    return markdown(["setting", *(NAMES[c] for c in acquisitions)], rows)


def pairs_of_one(pairs: Any) -> str:
    """Return the paired differences of a figure with one setting, a column a prior and round."""
    ends = sorted(set(pairs["round"]))
    groups = [(prior, t) for prior in dict.fromkeys(pairs["prior"]) for t in ends]
    rows = []
    for pair, part in pairs.groupby("pair", sort=False):
        at = part.set_index(["prior", "round"])
        cells = []
        for group in groups:
            gap, error = float(at.loc[group, "difference"]), float(at.loc[group, "sem"])
            cells.append(f"{gap:+.3f} ± {error:.3f} ({verdict(gap, error)})")
        rows.append([pair_name(str(pair)), *cells])
    return markdown(["pair", *(f"{prior}, round {t}" for prior, t in groups)], rows)


def pairs_counted(pairs: Any) -> str:
    """Return, over the settings of a figure, in how many a pair is resolved, and which way."""
    last = pairs["round"].max()
    rows = []
    for (pair, prior), part in pairs[pairs["round"] == last].groupby(["pair", "prior"], sort=False):
        said = [verdict(d, e) for d, e in zip(part["difference"], part["sem"], strict=True)]
        counts = [str(said.count(word)) for word in ("closer", "not resolved", "farther")]
        rows.append([pair_name(str(pair)), str(prior), *counts, str(len(said))])
    header = ["pair", "prior", "first closer", "not resolved", "first farther", "settings"]
    return markdown(header, rows)


def farther(pairs: Any) -> str:
    """Name the settings in which the first of a pair ends up farther; empty if there are none."""
    last = pairs[pairs["round"] == pairs["round"].max()]
    lines = []
    for (pair, prior), part in last.groupby(["pair", "prior"], sort=False):
        rows = zip(part["setting"], part["difference"], part["sem"], strict=True)
        names = [f"{s} ({d:.2g} ± {e:.1g})" for s, d, e in rows if verdict(d, e) == "farther"]
        if names:
            lines.append(f"- {pair_name(str(pair))}, {prior} prior: {'; '.join(names)}.")
    return "\n".join(lines)


def rounds_table(rounds: Any, acquisitions: Iterable[str] = NAMES) -> str:
    """Return the rounds the learned prior needs, one row a setting and acquisition."""
    rows = [
        [
            row.setting,
            NAMES[row.acquisition],
            f"{row.fixed_last:.3f}",
            f"{row.rounds:.0f}" if np.isfinite(row.rounds) else "not reached",
            f"{row.by_instance:.1f} ± {row.sem:.1f}",
            f"{row.reached}/{row.instances}",
        ]
        for row in rounds.itertuples()
        if row.acquisition in set(acquisitions)
    ]
    header = ["setting", "acquisition", "fixed, last round", "learned gets there in round"]
    return markdown([*header, "mean over instances", "instances that do"], rows)


def write_markdown(key: str, folder: Path) -> None:
    """Write the whole table of a figure of campaigns beside its csv."""
    table, pairs, rounds = (read_csv(folder, key + end) for end in ("", "-pairs", "-rounds"))
    parts = [
        f"# {FIGURES[key].title}",
        "Distance of the mean reached by the recommended shift to the target, relative to where "
        "control cells stand; mean ± standard error over instances.",
        distances(table, (0, 5, 10, 25, 50)),
        "## Paired by instance: the first less the second",
        "Below 0, the first is closer to the target; *closer* and *farther* where the difference "
        "is beyond two standard errors.",
        pairs_of_one(pairs) if len(FIGURES[key].settings) == 1 else _all_pairs(pairs),
        "## Rounds until the learned prior is as close as the fixed one after the last round",
        rounds_table(rounds),
    ]
    (folder / f"{key}.md").write_text("\n\n".join(parts) + "\n")


def _all_pairs(pairs: Any) -> str:
    last = pairs[pairs["round"] == pairs["round"].max()]
    rows = []
    for (setting, prior), part in last.groupby(["setting", "prior"], sort=False):
        at = part.set_index("pair")
        cells = [f"{at.loc[p, 'difference']:+.3f} ± {at.loc[p, 'sem']:.3f}" for p in at.index]
        rows.append([str(setting), str(prior), *cells])
    names = [pair_name(p) for p in dict.fromkeys(last["pair"])]
    return markdown(["setting", "prior", *names], rows)
