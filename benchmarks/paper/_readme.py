"""README.md, written from the results alone, so that its numbers are theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.paper import _ablations, _fig3, _fig4, _rounds
from benchmarks.paper._figures import AVERAGED, FIGURES, NAMES, is_dense
from benchmarks.paper._files import read_csv, read_facts
from benchmarks.paper._tables import (
    at_the_end,
    distances,
    farther,
    markdown,
    pairs_counted,
    pairs_of_one,
    rounds_table,
    value,
)

HEAD = """# The paper's synthetic experiments, rerun

Zhang, Cammarata, Squires, Sapsis and Uhler, *Active learning for optimal intervention design in
causal models*, Nature Machine Intelligence 2023,
[doi:10.1038/s42256-023-00719-0](https://doi.org/10.1038/s42256-023-00719-0): Figs. 3 to 5 and
Extended Data Figs. 1 to 6. This file is written by `python -m benchmarks.paper readme` from the
csv files in `results/`; do not edit it.

    python -m benchmarks.paper fig5          # or fig3 fig4 ed1 ... ed6 ablations, or all
    python -m benchmarks.paper all --quick   # a trial of everything, a minute or two

**What is measured.** Distance `|mu_t - mu*| / |mu*|` of the mean reached by the shift recommended
after round t to the target mean; control cells stand at 1. Lower is better. One cell a round,
shifts on the unit sphere, known noise variances, weights uniform on ±[0.25, 1] and then
standardised. Values are means ± standard errors over instances, the runs of an instance averaged
first; comparisons of acquisitions are paired by instance, with the same noise. *Closer* and
*farther* are said only beyond two standard errors; with this many comparisons, one in twenty that
are no different will look so.

**Two priors.** *fixed* is the paper's `M = I`: every weight of node i has the prior variance
sigma_i². *learned* is `prior_units="noise"`: the weight of parent k has the prior variance
sigma_i² / (lambda sigma_k²), that is, weights are counted in units of the noise, and their scale
1 / lambda is learned by evidence as cells arrive; nextpert's default takes these units or
those of the data, whichever has the higher evidence.

**What differs from the paper.** Every instance is another model and another target (one seed
each). The generator in the authors' code is reseeded with the same number for every instance, so
that instances over one graph are one and the same there; its shading is then over runs only.
Acquisitions are minimised with exact gradients; UCB-Int has its variance in closed form. The
captions of the Extended Data figures were not at hand: ED 5 and ED 6 follow the authors' notebooks
for them, and ED 1 to 4 share out the axes that paper and code name (sizes, targets, families,
noise). The claims are in our words.
"""

RULE = "The paper, in our words: "


def write_readme(folder: Path, where: Path) -> None:
    """Write README.md of the results in a folder."""
    link = os.path.relpath(folder, where).replace(os.sep, "/")
    (where / "README.md").write_text(text(folder, link))


def text(folder: Path, link: str) -> str:
    """Return the README; figures that have not been run are left out."""
    sections: list[tuple[str, Callable[[Path], list[str]]]] = [
        ("fig3", _third), ("fig4", _fourth),
        *((key, _campaigns(key)) for key in sorted(FIGURES, key=lambda k: (k != "fig5", k))),
        ("rounds", _rounds_needed), ("ablations", _ablated),
    ]  # fmt: skip
    made = [(key, make) for key, make in sections if read_facts(folder, key)]
    parts = [HEAD.strip(), *_summary(folder, [key for key, _ in made])]
    for key, make in made:
        title, *rest = make(folder)
        parts += [f"## {title}", _command(folder, key)]
        if key not in ("ablations", "rounds"):
            parts.append(f"![{title}]({link}/{key}.png)")
        parts += [*rest, f"All rows: [{key}.md]({link}/{key}.md), [{key}.csv]({link}/{key}.csv)."]
    return "\n\n".join(parts) + "\n"


def _command(folder: Path, key: str) -> str:
    facts: Any = read_facts(folder, key)
    names = ("settings", "instances", "runs", "rounds")
    sizes = [f"{facts[k]} {k}" for k in names if facts.get(k, 1) > 1]
    if "runs" in facts:
        sizes[-2] += " each"
    minutes = facts["seconds"] / 60
    took = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{facts['seconds']} s"
    return f"`{facts['command']}`: " + ", ".join([*sizes, f"{took} on a busy machine of two cores"])


def _third(folder: Path) -> list[str]:
    note = (
        "E t² is the mean square cosine of a shift to a*. Draws of shifts agree with the closed "
        "forms: the Kolmogorov-Smirnov test of 100,000 squared distances against the density, and "
        "the largest deviation, in standard errors, of E(a_i - a*_i)² over the nodes."
    )
    return [
        "Fig. 3: output weights", RULE + _fig3.CLAIM, "Measured:", _fig3.table(folder), note
    ]  # fmt: skip


def _fourth(folder: Path) -> list[str]:
    found = read_csv(folder, "fig4")
    last = found["round"].max()
    at = found[(found["prior"] == "fixed") & (found["round"] == last)]
    at = at.set_index(["setting", "acquisition", "quantity"])

    def shown(setting: str, acquisition: str, quantity: str) -> str:
        row = at.loc[(setting, acquisition, quantity)]
        return value(row["mean"], row["sem"])

    sparse, dense = _fig4.SPARSE.name, _fig4.DENSE.name
    said = (
        f"Measured: in round {last} of the fixed prior CIV selects a shift, of norm one as a*, at "
        f"a distance of {shown(sparse, 'civ', 'gap')} from a* in Erdos-Renyi graphs and of "
        f"{shown(dense, 'civ', 'gap')} in complete ones (random: "
        f"{shown(sparse, 'random', 'gap')}); the cosine between the two axes is "
        f"{shown(sparse, 'civ', 'cosine')} and {shown(dense, 'civ', 'cosine')}, and among the "
        f"nodes with children {shown(sparse, 'civ', 'parents')} and "
        f"{shown(dense, 'civ', 'parents')}. A shift of a node without children tells nothing "
        "about a weight, so that a look ahead spends the norm on the others. The shift that is "
        "recommended approaches a*, as Fig. 5 shows by the mean it reaches; that the selected "
        "ones do we cannot confirm within these rounds."
    )
    return [
        "Fig. 4: the shifts selected, graphs of 10 nodes, 5 random targets",
        RULE + _fig4.CLAIM, said, _fig4.table(folder),
    ]  # fmt: skip


def _campaigns(key: str) -> Callable[[Path], list[str]]:
    figure = FIGURES[key]

    def make(folder: Path) -> list[str]:
        table, pairs, rounds = (read_csv(folder, key + end) for end in ("", "-pairs", "-rounds"))
        parts = [figure.title, RULE + figure.claim]
        if len(figure.settings) == 1:
            parts += [
                "Measured:", distances(table, (0, 10, 25, 50)),
                "Paired by instance, the first less the second:", pairs_of_one(pairs),
                "Rounds until the learned prior is as close as the fixed one after the last:",
                rounds_table(rounds),
            ]  # fmt: skip
        else:
            for prior in ("fixed", "learned"):
                parts += [
                    f"Measured after the last round, {prior} prior:",
                    at_the_end(table, prior),
                ]
            parts += ["In how many settings a difference is resolved:", pairs_counted(pairs)]
            if names := farther(pairs):
                parts += ["Where the first is farther, and by how much:", names]
        if key == "ed6":
            parts.append(_kinds(table))
        if key == "ed5":
            parts += ["Time a round, one thread:", _times(folder)]
        return parts

    return make


def _kinds(table: pd.DataFrame) -> str:
    """Say which kind of wrong edges costs CIV most, at the largest number of them."""
    last = table[(table["round"] == table["round"].max()) & (table["acquisition"] == "civ")]
    at = last.set_index(["prior", "setting"])
    right, *wrong = dict.fromkeys(last["setting"])
    ends = [name for name in wrong if name.startswith("20 ")]
    lines = []
    for prior in dict.fromkeys(last["prior"]):
        rows = {name: at.loc[(prior, name)] for name in (right, *ends)}
        shown = [f"{name} {value(row['mean'], row['sem'])}" for name, row in rows.items()]
        worst = max(ends, key=lambda name: rows[name]["mean"])
        lines.append(f"{prior} prior: {', '.join(shown)}; {worst} cost most")
    return "CIV after the last round, " + "; ".join(lines) + "."


def _times(folder: Path) -> str:
    times = read_csv(folder, "ed5-runtime")
    by_prior = times.pivot_table(values="ms", index="acquisition", columns="prior", sort=False)
    rows = [
        [NAMES[c], f"{row['fixed']:.2f}", f"{row['learned']:.2f}"] for c, row in by_prior.iterrows()
    ]
    note = (
        "CPU milliseconds a round, median over instances: propose, draw a cell, update, score. "
        "*random* is what all but the proposal costs."
    )
    return markdown(["acquisition", "fixed prior, ms", "learned, ms"], rows) + "\n\n" + note


def _rounds_needed(folder: Path) -> list[str]:
    return [
        "Rounds to be as close as under M = I after the last round",
        "CIV on all settings of Figs. 5 and ED 1 to 4 (their number in brackets), 10 instances, "
        f"{_rounds.RUNS} runs each; mean over the settings of the first round in which the mean "
        "distance is at or below that of M = I after 50. One that never gets there counts as 50. "
        "*Units of the data* is the prior of variance sigma_i² / lambda for all weights "
        '(`prior_units="data"`), *units of the noise* that of sigma_i² / (lambda sigma_k²), '
        "where k is the parent.",
        _rounds.table(folder),
    ]


def _ablated(folder: Path) -> list[str]:
    return [
        "What gets there sooner: priors, starts, look-ahead",
        "The setting of Fig. 5, 10 instances, 10 runs each.", _ablations.said(folder),
        _ablations.table(folder),
    ]  # fmt: skip


def _summary(folder: Path, made: list[str]) -> list[str]:
    """Return the rounds saved over figures, and the pairs counted over all settings."""
    keys = [key for key in AVERAGED if key in made]
    if not keys:
        return []
    rounds = pd.concat([read_csv(folder, f"{key}-rounds").assign(figure=key) for key in keys])
    ends = {key: read_csv(folder, key)["round"].max() for key in keys}
    rounds["kept"] = rounds["rounds"].clip(upper=rounds["figure"].map(ends))
    pairs = zip(rounds["figure"], rounds["setting"], strict=True)
    rounds["dense"] = [is_dense(key, setting) for key, setting in pairs]
    rows = []
    for acquisition in dict.fromkeys(rounds["acquisition"]):
        part = rounds[rounds["acquisition"] == acquisition]
        cells = [f"{part.loc[part['figure'] == key, 'kept'].mean():.1f}" for key in keys]
        cells += [f"{part.loc[part['dense'] == d, 'kept'].mean():.1f}" for d in (True, False)]
        there = np.isfinite(part["rounds"])
        rows.append(
            [NAMES[acquisition], *cells, f"**{part['kept'].mean():.1f}**",
             f"{part['kept'].median():.0f}", f"{there.sum()}/{len(part)}"]
        )  # fmt: skip
    header = [
        "acquisition", *keys, "dense graphs", "sparse graphs", "all settings", "median",
        "settings that get there",
    ]  # fmt: skip
    compared = [key for key in FIGURES if key in made]
    counted = pd.concat(
        [
            table.assign(setting=f"{key}, " + table["setting"])
            for key in compared
            for table in [read_csv(folder, f"{key}-pairs")]
        ]
    )
    names = farther(counted)
    return [
        "## In short",
        "Rounds the learned prior needs to be as close as the fixed prior is after its last round "
        "(50), mean over the settings of each figure (aim: 20 or fewer). A setting that never "
        "gets there counts as 50. Dense graphs are the complete and the chordal ones: there the "
        "noise variances of standardised nodes differ most, ten thousandfold in Fig. 5, and M = I "
        "is far off; in sparse and small graphs it is about right, and there is little to save.",
        markdown(header, rows),
        f"Acquisitions against each other after the last round, all settings of "
        f"{', '.join(compared)}:",
        pairs_counted(counted),
        *(["Where the first is farther, and by how much:", names] if names else []),
    ]
