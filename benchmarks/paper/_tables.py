"""Results as markdown, from the csv files alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks._page import table as markdown
from benchmarks.paper._figures import BASELINES, FIGURES, MONTE_CARLO, NAMES
from benchmarks.paper._files import read_csv


def value(mean: float, error: float) -> str:
    """Return mean and error to three decimals, or three digits where they are large."""
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f} ± {error:.{digits}f}"


def half_width(row: Any) -> float:
    """Return half of the 95% interval (Student's t) of a mean over instances."""
    return float(student.ppf(0.975, row["instances"] - 1) * row["sem"])


def interval(row: Any) -> str:
    """Return a paired difference with its 95% interval."""
    gap, half = float(row["difference"]), half_width(row)
    digits = 3 if abs(gap) + half > 0.02 else 4
    return f"{gap:+.{digits}f} ({gap - half:+.{digits}f} to {gap + half:+.{digits}f})"


def verdict(row: Any) -> str:
    """Say whether the first of a pair is closer to the target: whether its interval excludes 0."""
    gap, half = float(row["difference"]), half_width(row)
    return "closer" if gap < -half else "farther" if gap > half else "not resolved"


def pair_name(pair: str) -> str:
    """Return the names of a pair as shown."""
    return " - ".join(NAMES[name] for name in pair.split(" - "))


def in_short(folder: Path, keys: list[str]) -> str:
    """Say what is measured of greedy and CIV-OW beside CIV, and of the seconds of an iteration."""
    words, frames = [], {key: last_pairs(read_csv(folder, f"{key}-pairs"), "fixed") for key in keys}
    if "fig5" in frames:
        row = frames["fig5"].set_index("pair").loc["civ - greedy"]
        words.append(f"In Fig. 5, CIV less greedy is {interval(row)}: {verdict(row)}.")
    beside = [
        verdict(row)
        for pairs in frames.values()
        for _, row in pairs[pairs["pair"] == "civ_ow - civ"].iterrows()
    ]
    counts = ", ".join(
        f"{word} in {beside.count(word)}"
        for word in ("closer", "farther", "not resolved")
        if word in beside
    )
    words.append(f"CIV-OW beside CIV, over {len(beside)} panels: {counts}.")
    if "ed5" in frames:
        times = read_csv(folder, "ed5-runtime")
        fixed = times[times["prior"] == "fixed"].set_index("acquisition")["seconds"] * 1e3
        pairs = frames["ed5"].set_index("pair")
        others = ", ".join(
            f"{NAMES[name]} {fixed[name]:.1f} (CIV: {verdict(pairs.loc[f'civ - {name}'])})"
            for name in MONTE_CARLO
        )
        words.append(
            f"An iteration in ED 5 takes {fixed['civ']:.1f} ms with CIV, and in ms: {others}."
        )
    return "**In short**, with M = I, after the last step. " + " ".join(words)


def distances(table: Any, rounds: Iterable[int]) -> str:
    """Return one row per setting, prior and acquisition, a column per round."""
    ends = [t for t in rounds if t in set(table["round"])]
    rows = []
    for (setting, prior, acquisition), part in table.groupby(
        ["setting", "prior", "acquisition"], sort=False
    ):
        at = part.set_index("round")
        cells = [value(at.loc[t, "mean"], at.loc[t, "sd"]) for t in ends]
        rows.append([setting, prior, NAMES[acquisition], *cells])
        rows[-1].append(value(at["shift_mean"].iloc[-1], at["shift_sd"].iloc[-1]))
    header = ["setting", "prior", "acquisition", *(f"step {t}" for t in ends)]
    return markdown([*header, f"squared distance of a*, step {table['round'].max()}"], rows)


def at_the_end(table: Any, prior: str) -> str:
    """Return a row per setting, a column per acquisition, after the last round; least in bold."""
    last = table[(table["round"] == table["round"].max()) & (table["prior"] == prior)]
    acquisitions = list(dict.fromkeys(last["acquisition"]))
    rows = []
    for setting, part in last.groupby("setting", sort=False):
        at = part.set_index("acquisition")
        least = at["mean"].idxmin()
        cells = [value(at.loc[c, "mean"], at.loc[c, "sd"]) for c in acquisitions]
        shown = [f"**{x}**" if c == least else x for c, x in zip(acquisitions, cells, strict=True)]
        rows.append([str(setting), *shown])
    return markdown(["setting", *(NAMES[c] for c in acquisitions)], rows)


def last_pairs(pairs: Any, prior: str) -> Any:
    """Return the pairs of one prior after the last round."""
    return pairs[(pairs["round"] == pairs["round"].max()) & (pairs["prior"] == prior)]


def pairs_table(pairs: Any, prior: str) -> str:
    """Return a row per pair, a column per setting after the last round.

    Where there is one setting, a column per round.
    """
    own = pairs[pairs["prior"] == prior]
    if own["setting"].nunique() == 1:
        own = own.assign(column="step " + own["round"].astype(str))
    else:
        own = last_pairs(pairs, prior).assign(column=lambda t: t["setting"])
    columns = list(dict.fromkeys(own["column"]))
    rows = []
    for pair, part in own.groupby("pair", sort=False):
        at = part.set_index("column")
        cells = [f"{interval(at.loc[c])} {verdict(at.loc[c])}" for c in columns]
        rows.append([pair_name(str(pair)), *cells])
    return markdown(["pair", *columns], rows)


def holds(
    pairs: Any, prior: str, one: str, others: Iterable[str], *, or_equal: bool = False
) -> str:
    """Say whether an acquisition is closer than others in all settings, and where it is not.

    With ``or_equal`` differences that are not resolved support the claim.
    """
    last, left, n_closer = last_pairs(pairs, prior), [], 0
    for other in others:
        part = last[last["pair"] == f"{one} - {other}"]
        if part.empty:  # of the learned prior, not every acquisition was run
            continue
        found = [verdict(row) for _, row in part.iterrows()]
        n_closer += found.count("closer")
        left += [
            f"{NAMES[other]} {word} in {found.count(word)} of {len(found)}"
            for word in ("not resolved", "farther")
            if word in found
        ]
    if not left:
        return "yes"
    yes = or_equal and not any("farther" in each for each in left)
    return f"{'yes' if yes else 'in part' if n_closer else 'no'} ({', '.join(left)})"


def claim_row(key: str, folder: Path) -> list[str]:
    """Return the row of a figure in the table of claims."""
    pairs, is_ed5 = read_csv(folder, f"{key}-pairs"), key == "ed5"
    others = MONTE_CARLO if is_ed5 else BASELINES
    return [
        key, str(pairs["setting"].nunique()),
        holds(pairs, "fixed", "civ", others, or_equal=is_ed5),
        "" if is_ed5 else holds(pairs, "fixed", "civ_ow", others),
        holds(pairs, "learned", "civ", others, or_equal=is_ed5),
    ]  # fmt: skip


def priors_table(priors: Any, acquisitions: Iterable[str] = NAMES) -> str:
    """Return learned less fixed prior after the last round, one row per setting."""
    rows = [
        [
            str(row["setting"]), NAMES[row["acquisition"]], f"{row['fixed']:.3f}",
            f"{row['learned']:.3f}", f"{interval(row)} {verdict(row)}",
            f"{row['rounds']:.0f}" if np.isfinite(row["rounds"]) else "not reached",
        ]
        for _, row in priors.iterrows()
        if row["acquisition"] in set(acquisitions)
    ]  # fmt: skip
    header = ["setting", "acquisition", "M = I", "learned", "learned - M = I"]
    return markdown([*header, "steps of the learned prior to M = I's last distance"], rows)


def write_markdown(key: str, folder: Path) -> None:
    """Write the whole tables of a figure of campaigns beside its csv."""
    table, pairs, priors = (read_csv(folder, key + end) for end in ("", "-pairs", "-priors"))
    parts = [
        f"# {FIGURES[key].title}",
        "Distance of the mean reached by the recommended shift to the target, relative to that of "
        "control cells; mean ± standard deviation over instances.",
        distances(table, (0, 5, 10, 25, 50)),
    ]
    for prior in ("fixed", "learned"):
        parts += [
            f"## Paired by instance, {prior} prior: the first minus the second",
            "Mean difference with its 95% interval; below 0, the first is closer to the target.",
            pairs_table(pairs, prior),
        ]
    parts += ["## Learned prior minus M = I, after the last step", priors_table(priors)]
    (folder / f"{key}.md").write_text("\n\n".join(parts) + "\n")
