"""Sections on what to believe and how the page was made: cells, replay, diagnostics, making."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._report.page import Section
from nextpert._report.results import FIT, KINDS
from nextpert._report.tables import NOTHING, Column, Table, count, number, share, two_digits
from nextpert._report.verdict import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    Found = Mapping[str, dict[str, Any]]

_PACKAGES = ("nextpert", "numpy", "scipy", "pandas", "anndata", "numba", "scanpy", "matplotlib")


def cells_section(found: Found) -> Section | None:
    """Say how many cells the next perturbations take."""
    if "plan_cells" not in found:
        return None
    stored = found["plan_cells"]
    tables = []
    if "distances" in stored:
        tables.append(
            Table(
                "cells",
                "Perturbations, nearest first, and the cells each takes (∞: no number suffices)",
                stored["distances"],
                [
                    Column("Perturbation", "perturbation", is_head=True),
                    Column("Cells", "n_cells", count),
                    Column("Distance", "distance", number),
                    Column("Of the control's", "relative_distance", share),
                    Column("Cells to know its distance", "cells_needed", count),
                    Column("Cells to distinguish it from the nearest", "cells_to_tell", count),
                ],
                download=stored["distances"],
                in_print=0,
            )
        )
    return Section("cells", "Number of cells", [str(stored["verdict"])], tables=tables)


def replay_section(found: Found) -> Section | None:
    """Compare strategies on cells that are there already."""
    if "replay" not in found:
        return None
    stored = found["replay"]
    overall = stored["overall"].assign(
        where=["held out" if x else "in the pool" for x in stored["overall"]["held_out"]]
    )
    table = Table(
        "replay",
        "Strategies, replayed on the cells of this screen, over all targets",
        overall,
        [
            *([Column("Target", "where")] if len(set(overall["where"])) > 1 else []),
            Column("Strategy", "criterion", is_head=True),
            Column("Rounds to the best", "plates", two_digits),
            Column("± standard error", "plates_sem", two_digits),
            Column("Found in the end", "share_good_last", share),
            Column("Distance in the end", "relative_last", share),
            Column("Verdict", "verdict"),
        ],
        download=stored["overall"],
        in_print=6,
    )
    return Section("replay", "Replay", [str(stored["summary"])], tables=[table])


def diagnosis_section(found: Found) -> Section | None:
    """Say part by part what to trust."""
    if "diagnosis" not in found:
        return None
    stored = found["diagnosis"]
    parts = stored["parts"].assign(
        level=[_level(str(level)) for level in stored["parts"]["level"]],
        verdict=[_without_name(str(words)) for words in stored["parts"]["verdict"]],
    )
    tables = [
        Table(
            "parts",
            "Every part of the model, judged by cells, guides or perturbations it has not seen",
            parts,
            [
                Column("Part", "part", is_head=True),
                Column("Level", "level"),
                Column("Why", "verdict", is_long=True),
            ],
            in_print=8,
        ),
        Table(
            "checks",
            "Measured quantities, and the rule for each. Without a standard error none is passed",
            stored["summary"],
            [
                Column("Part", "part"),
                Column("Quantity", "quantity", is_head=True),
                Column("Value", "value", number),
                Column("± standard error", "standard_error", two_digits),
                Column("Rule", "rule"),
                Column("Passed", "passed"),
                Column("Meaning", "meaning", is_long=True),
            ],
            download=stored["summary"],
            in_print=0,
        ),
    ]
    return Section("diagnostics", "Diagnostics", [], tables=tables)


def _level(level: str) -> str:
    words, sign = LEVELS.get(level, (level, "?"))
    return f"{sign} {words}".replace(" ", "\N{NO-BREAK SPACE}")


def _without_name(words: str) -> str:
    """Return the verdict on a part without its name, which stands in its own column."""
    words = words.split(": ", 1)[-1]
    return words[:1].upper() + words[1:]


def made_section(
    adata: AnnData, found: Found, keys: Mapping[str, str], command: str | None
) -> Section:
    """Say what the page was made from: cells, options, versions, command."""
    words = [_cells_in_words(adata, found.get(FIT))]
    tables = []
    left = found.get(FIT, {}).get("left_out")
    if left is not None and len(left):
        tables.append(
            Table(
                "left-out",
                "Labels left out of the fit",
                left,
                [
                    Column("Label", left.columns[0], is_head=True),
                    Column("Cells", "n_cells", count),
                    Column("Reason", "reason"),
                ],
                in_print=3,
            )
        )
    options = _options_table(found, keys)
    tables += [
        Table(
            "options",
            "What made every result on this page: version, seed and options, as stored with it",
            options,
            [
                Column("Function", "function", is_head=True),
                Column("Stored in", "key"),
                Column("nextpert", "version"),
                Column("Seed", "seed"),
                Column("Options", "said", is_long=True),
            ],
            in_print=0,
        ),
    ]
    words += [_seeds_in_words(options), f"This page was written by {_versions()}."]
    if command is None:
        words.append("The command was not given.")
    return Section("made", "How this was made", words, tables=tables, code=command or "")


def _cells_in_words(adata: AnnData, fit: Mapping[str, Any] | None) -> str:
    words = f"{count(adata.n_obs)} cells, {count(adata.n_vars)} genes."
    if fit is None:
        return words
    table = fit["environments"]
    return (
        f"{words} Fitted to {count(fit['n_control_cells'])} control cells "
        f"({fit['params']['control']}) and {count(table['n_cells'].sum())} cells of "
        f"{len(table)} perturbations, over {count(len(fit['genes']))} genes."
    )


def _options_table(found: Found, keys: Mapping[str, str]) -> pd.DataFrame:
    rows = []
    for name in [FIT, *KINDS]:
        if name not in found:
            continue
        function = KINDS[name].function if name in KINDS else "tl.fit_dag_blr"
        params = dict(found[name].get("params", {}))
        seed = str(params.pop("rng", NOTHING))
        rows.append(
            {
                "function": function,
                "key": f'uns["{keys[name]}"]',
                "version": str(found[name].get("version", NOTHING)),
                "seed": seed,
                "said": "; ".join(f"{k} = {_plain(v)}" for k, v in sorted(params.items())),
            }
        )
    return pd.DataFrame(rows)


def _seeds_in_words(options: pd.DataFrame) -> str:
    """Return the seeds of the results that drew at random."""
    drawn = options[options["seed"] != NOTHING]
    if not len(drawn):
        return "No seed is stored with these results."
    if len(set(drawn["seed"])) == 1:
        return f"Seed of all that was drawn at random: {drawn['seed'].iloc[0]}."
    said = (f"{f} {s}" for f, s in zip(drawn["function"], drawn["seed"], strict=True))
    return f"Seeds: {', '.join(said)}."


def _plain(value: Any) -> str:
    """Return a parameter's value as text: lists with commas, numbers in a few digits."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return ", ".join(_plain(each) for each in np.asarray(value).ravel().tolist())
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def _versions() -> str:
    said = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            said.append(f"{name} {version(name)}")
    return ", ".join(said)
