"""Sections on reliability and provenance: cells, replay, diagnostics, how the page was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import pl
from nextpert._adata.table import is_table, not_told
from nextpert._report.page import Section, draw
from nextpert._report.results import FIT, SOURCES
from nextpert._report.tables import NOTHING, Table, above_0, number
from nextpert._report.verdict import LEVELS, advice_of
from nextpert.tl._diagnose.verdict import ceiling_in_words

if TYPE_CHECKING:
    from anndata import AnnData

    from nextpert._report.results import Keys, Results


def cells_section(results: Results) -> Section | None:
    """Report how many cells the next perturbations need."""
    if "plan_cells" not in results:
        return None
    stored, tables = results["plan_cells"], []
    if "distances" in stored:
        caption = (
            "Perturbations, nearest first, and the cells that each needs (∞: no number suffices)"
        )
        names = ["perturbation", "n_cells", "distance", "relative_distance", "cells_needed",
                 "cells_to_distinguish"]  # fmt: skip
        shown, table = above_0(stored["distances"]), stored["distances"]
        tables = [Table("cells", caption, shown, names, download=table, in_print=0)]
    advice = advice_of(results).get("words")  # stands above
    words = [line for line in str(stored["verdict"]).splitlines() if line != advice]
    return Section("cells", "Number of cells", words, tables=tables)


def replay_section(results: Results) -> Section | None:
    """Compare strategies on the cells of this screen."""
    if "replay" not in results:
        return None
    stored = results["replay"]
    overall = stored["overall"]
    target = overall["held_out"].map({True: "held out", False: "in the pool"})
    names = ["strategy", "plates", "plates_sem", "share_good_last", "relative_last", "verdict"]
    if len(set(target)) > 1:
        names.insert(0, "target")
    caption = "Strategies, replayed on the cells of this screen, over all targets"
    shown = overall.assign(target=target)
    table = Table("replay", caption, shown, names, download=overall, in_print=6)
    return Section("replay", "Replay", [str(stored["summary"])], tables=[table])


def diagnosis_section(adata: AnnData, results: Results, keys: Keys) -> Section | None:
    """Report which parts of the analysis are reliable: the proof on the screen in three lines."""
    if "diagnosis" not in results:
        return None
    parts, checks = (results["diagnosis"][name] for name in ("parts", "summary"))
    verdicts = parts.set_index("part")["verdict"].astype(str)
    values = checks.set_index(["part", "quantity"])["value"]
    words = [
        verdicts["negative controls"],
        verdicts["positive controls"],
        f"Predictions of perturbations without cells: {ceiling_in_words(values['ceiling'])}.",
    ]
    why = parts["verdict"].astype(str).str.split(": ", n=1).str[-1]  # without the name of the part
    signs = {level: f"{sign} {name}" for level, (name, sign) in LEVELS.items()}
    levels = parts["level"].astype(str).replace(signs).str.replace(" ", "\N{NO-BREAK SPACE}")
    shown = parts.assign(level=levels, why=why.str[:1].str.upper() + why.str[1:])
    caption = (
        "Every part of the model, tested on cells, guides or perturbations it was not fitted to"
    )
    first = Table("parts", caption, shown, ["part", "level", "why"], in_print=8)
    caption = (
        "Measured quantities, and the rule for each. Without a standard error no rule is passed"
    )
    names = ["part", "quantity", "value", "standard_error", "rule", "passed", "meaning"]
    second = Table("checks", caption, checks, names, download=checks, in_print=0)
    width = values[("negative controls", "null_width")]
    figures = []
    if np.isfinite(width):
        figures = [draw(
            pl.diagnose, adata,
            f"Quantiles of the z-scores of negative controls against those of a standard normal "
            f"distribution; the width of the null is {width:.2f}.",
            "Control cells in the place of perturbations: on the dashed diagonal, standard errors "
            "are right; points on a steeper line mean that they are too small.",
            key=keys["diagnosis"], panel="negative controls",
        )]  # fmt: skip
    return Section("diagnostics", "Diagnostics", words, figures=figures, tables=[first, second])


def made_section(adata: AnnData, results: Results, keys: Keys, command: str | None) -> Section:
    """Report what the page was made from: cells, options, versions, command."""
    source = f"{number(adata.n_obs)} cells"
    if is_table(adata):
        source = "A table of effects and standard errors in place of cells"
    words, tables = [f"{source}, {number(adata.n_vars)} genes."], []
    if FIT in results:
        fit, cells = results[FIT], ""
        table, n_genes = fit["environments"], number(len(fit["genes"]))
        if not is_table(adata):
            cells = (
                f"{number(fit['n_control_cells'])} control cells ({fit['params']['control']}) and "
                f"{number(table['n_cells'].sum())} cells of "
            )
        words[0] += f" Fitted to {cells}{len(table)} perturbations, over {n_genes} genes."
        if len(left := fit.get("left_out", [])):
            caption, names = "Labels left out of the fit", ["perturbation", "n_cells", "reason"]
            tables = [Table("left-out", caption, left, names, in_print=3)]
    if is_table(adata) and not_told(adata):
        words.append(not_told(adata))
    rows = []
    for name in filter(results.__contains__, SOURCES):
        params = dict(results[name].get("params", {}))
        seed = str(params.pop("rng", NOTHING))
        options = "; ".join(f"{key} = {_plain(params[key])}" for key in sorted(params))
        made_by = str(results[name].get("version", NOTHING))
        rows.append((SOURCES[name].function, f'uns["{keys[name]}"]', made_by, seed, options))
    names = ["function", "stored_in", "nextpert", "seed", "options"]
    caption = "Every result on this page: version, seed and options, as stored with it"
    frame = pd.DataFrame(rows, columns=names)
    tables.append(Table("options", caption, frame, names, in_print=0))
    return Section("made", "How this was made", words, tables=tables, code=command or "")


def _plain(value: Any) -> str:
    """Return a parameter's value as text: lists with commas, numbers in a few digits."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return ", ".join(_plain(each) for each in np.asarray(value).ravel().tolist())
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)
