"""Sections on reliability and provenance: cells, replay, diagnostics, how the page was made."""

from __future__ import annotations

import platform
import re
from importlib.metadata import requires, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import pl
from nextpert._adata.table import is_table, not_told
from nextpert._report.page import Section, draw
from nextpert._report.results import FIT, KINDS
from nextpert._report.tables import (
    NOTHING,
    Column,
    Table,
    above_0,
    count,
    number,
    share,
    two_digits,
)
from nextpert._report.verdict import LEVELS, advice_of
from nextpert.tl._diagnose.verdict import ceiling_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    Found = Mapping[str, dict[str, Any]]


def cells_section(found: Found) -> Section | None:
    """Report how many cells the next perturbations need."""
    if "plan_cells" not in found:
        return None
    stored = found["plan_cells"]
    columns = [
        Column("Perturbation", "perturbation", is_head=True),
        Column("Cells", "n_cells", count),
        Column("Distance", "distance", number),
        Column("Relative to control", "relative_distance", share),
        Column("Cells to estimate its distance", "cells_needed", count),
        Column("Cells to distinguish it from the nearest", "cells_to_distinguish", count),
    ]
    caption = "Perturbations, nearest first, and the cells that each needs (∞: no number suffices)"
    rows = [stored["distances"]] if "distances" in stored else []
    tables = [Table("cells", caption, above_0(x), columns, download=x, in_print=0) for x in rows]
    advice = advice_of(found).get("words")  # said above
    words = [line for line in str(stored["verdict"]).splitlines() if line != advice]
    return Section("cells", "Number of cells", words, tables=tables)


def replay_section(found: Found) -> Section | None:
    """Compare strategies on the cells of this screen."""
    if "replay" not in found:
        return None
    stored = found["replay"]
    overall = stored["overall"].assign(
        where=["held out" if x else "in the pool" for x in stored["overall"]["held_out"]]
    )
    columns = [
        *([Column("Target", "where")] if len(set(overall["where"])) > 1 else []),
        Column("Strategy", "strategy", is_head=True),
        Column("Rounds to the best", "plates", two_digits),
        Column("± standard error", "plates_sem", two_digits),
        Column("Found in the end", "share_good_last", share),
        Column("Distance in the end", "relative_last", share),
        Column("Verdict", "verdict"),
    ]
    caption = "Strategies, replayed on the cells of this screen, over all targets"
    table = Table("replay", caption, overall, columns, download=stored["overall"], in_print=6)
    return Section("replay", "Replay", [str(stored["summary"])], tables=[table])


def diagnosis_section(adata: AnnData, found: Found, keys: Mapping[str, str]) -> Section | None:
    """Report which parts of the analysis are reliable: the proof on the screen in three lines."""
    if "diagnosis" not in found:
        return None
    stored = found["diagnosis"]
    parts, levels, checks = stored["parts"], [], stored["summary"]
    for level, words in zip(parts["level"].astype(str), parts["verdict"].astype(str), strict=True):
        name, sign = LEVELS.get(level, (level, "?"))
        why = words.split(": ", 1)[-1]  # without the name of the part, which has its own column
        levels.append(
            (f"{sign} {name}".replace(" ", "\N{NO-BREAK SPACE}"), why[:1].upper() + why[1:])
        )
    parts = parts.assign(level=[level for level, _ in levels], verdict=[why for _, why in levels])
    columns = [
        Column("Part", "part", is_head=True),
        Column("Level", "level"),
        Column("Why", "verdict", is_long=True),
    ]
    caption = (
        "Every part of the model, tested on cells, guides or perturbations it was not fitted to"
    )
    first = Table("parts", caption, parts, columns, in_print=8)
    columns = [
        Column("Part", "part"),
        Column("Quantity", "quantity", is_head=True),
        Column("Value", "value", number),
        Column("± standard error", "standard_error", two_digits),
        Column("Rule", "rule"),
        Column("Passed", "passed"),
        Column("Meaning", "meaning", is_long=True),
    ]
    caption = (
        "Measured quantities, and the rule for each. Without a standard error no rule is passed"
    )
    second = Table("checks", caption, checks, columns, download=checks, in_print=0)
    by = checks.set_index(["part", "quantity"])["value"]
    width = by[("negative controls", "null_width")]
    figures = []
    if np.isfinite(width):
        figure = draw(
            lambda: pl.diagnose(
                adata, key=keys["diagnosis"], panel="negative controls", show=False,
                return_fig=True,
            ),
            f"Quantiles of the z-scores of negative controls against those of a standard normal "
            f"distribution; the width of the null is {width:.2f}.",
            "Control cells in the place of perturbations: on the dashed diagonal, standard errors "
            "are right; points on a steeper line mean that they are too small.",
        )  # fmt: skip
        figures.append(figure)
    return Section(
        "diagnostics", "Diagnostics", _proof(stored), figures=figures, tables=[first, second]
    )


def _proof(stored: Mapping[str, Any]) -> list[str]:
    """Return the proof on the screen: negative controls, positive controls, ceiling."""
    words = stored["parts"].set_index("part")["verdict"].astype(str)
    by = stored["summary"].set_index(["part", "quantity"])["value"]
    ceiling = f"Predictions of perturbations without cells: {ceiling_in_words(by['ceiling'])}."
    return [words["negative controls"], words["positive controls"], ceiling]


def made_section(
    adata: AnnData, found: Found, keys: Mapping[str, str], command: str | None
) -> Section:
    """Report what the page was made from: cells, options, versions, command."""
    what = f"{count(adata.n_obs)} cells"
    if is_table(adata):
        what = "A table of effects and standard errors in place of cells"
    words, tables = [f"{what}, {count(adata.n_vars)} genes."], []
    if FIT in found and is_table(adata):
        n_perturbations, genes = len(found[FIT]["environments"]), found[FIT]["genes"]
        words[0] += f" Fitted to {n_perturbations} perturbations, over {count(len(genes))} genes."
    elif FIT in found:
        fit = found[FIT]
        table = fit["environments"]
        words[0] += (
            f" Fitted to {count(fit['n_control_cells'])} control cells "
            f"({fit['params']['control']}) and {count(table['n_cells'].sum())} cells of "
            f"{len(table)} perturbations, over {count(len(fit['genes']))} genes."
        )
    if is_table(adata) and not_told(adata):
        words.append(not_told(adata))
    left = found.get(FIT, {}).get("left_out")
    if left is not None and len(left):
        columns = [
            Column("Label", left.columns[0], is_head=True),
            Column("Cells", "n_cells", count),
            Column("Reason", "reason"),
        ]
        tables.append(Table("left-out", "Labels left out of the fit", left, columns, in_print=3))
    functions = {FIT: "tl.fit_dag_blr", **{name: kind.function for name, kind in KINDS.items()}}
    rows = []
    for name in filter(found.__contains__, functions):
        params = dict(found[name].get("params", {}))
        seed, made_by = str(params.pop("rng", NOTHING)), str(found[name].get("version", NOTHING))
        said = "; ".join(f"{k} = {_plain(v)}" for k, v in sorted(params.items()))
        rows.append((functions[name], f'uns["{keys[name]}"]', made_by, seed, said))
    options = pd.DataFrame(rows, columns=["function", "key", "version", "seed", "said"])
    columns = [
        Column("Function", "function", is_head=True),
        Column("Stored in", "key"),
        Column("nextpert", "version"),
        Column("Seed", "seed"),
        Column("Options", "said", is_long=True),
    ]
    caption = "Every result on this page: version, seed and options, as stored with it"
    tables.append(Table("options", caption, options, columns, in_print=0))
    drawn = options[options["seed"] != NOTHING]
    seeds = [f"{f} {s}" for f, s in zip(drawn["function"], drawn["seed"], strict=True)]
    if not seeds:
        words.append("No seed is stored with these results.")
    elif len(set(drawn["seed"])) == 1:
        words.append(f"Seed of all random numbers: {drawn['seed'].iloc[0]}.")
    else:
        words.append(f"Seeds: {', '.join(seeds)}.")
    if command is None:
        words.append("No command is recorded.")
    return Section(
        "made",
        "How this was made",
        words,
        tables=tables,
        code=command or "",
        folded=[("Versions of packages", _versions())],
    )


def _versions() -> str:
    """Return nextpert, what it requires, Python and system, as Markdown that an issue can quote."""
    needed = [line for line in requires("nextpert") or [] if "extra ==" not in line]
    names = ["nextpert", *sorted(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in needed)]
    rows = [("Package", "Version"), ("----", "----"), *((name, version(name)) for name in names)]
    rows += [("Python", platform.python_version()), ("System", platform.platform())]
    return "\n".join(f"| {name} | {value} |" for name, value in rows)


def _plain(value: Any) -> str:
    """Return a parameter's value as text: lists with commas, numbers in a few digits."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return ", ".join(_plain(each) for each in np.asarray(value).ravel().tolist())
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)
