"""The summary of a diagnosis, its rules, and the verdict in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import list_names, strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST_STRONG = 3  # perturbations that clearly move their own targets
SURE = 2.0  # standard errors
RANDOM_LEVEL = 0.05  # share of random graphs that may do as well
# Sizes, since with many perturbations an effect of no use is significant too: what it takes to
# be trusted, and what is hopeless, or as good as nothing.
LEAST_R = 0.5
LARGEST_RATIO = 0.8  # of squared errors
LEAST_COVERAGE, HOPELESS_COVERAGE = 0.7, 0.5  # of intervals that should hold 0.9
NO_RATIO, NO_RANKING = 0.9, 0.05  # squared error and ranks, beside a graph without arcs
# The baselines, as the verdict calls them; all but the last have no model, nor the model's shifts.
_RATIOS = {
    "error_to_nothing": "'nothing changes'",
    "error_to_mean": "the mean perturbation",
    "error_to_coexpression": "coexpression over the controls",
    "error_to_empty": "an empty graph",
}
_PLAIN = tuple(_RATIOS)[:-1]


@dataclass(frozen=True)
class Quantity:
    """One row of the summary; ``passed`` is ``None`` where no rule applies."""

    name: str
    value: float
    error: float
    n: int
    rule: str
    passed: bool | None
    meaning: str


def mean_and_error(values: Array) -> tuple[float, float, int]:
    """Return mean, standard error of the mean, and number of the values that are not NaN."""
    known = values[np.isfinite(values)]
    n = len(known)
    mean = float(known.mean()) if n else float("nan")
    return mean, float(known.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"), n


def ratio_and_error(over: Array, under: Array) -> tuple[float, float, int]:
    """Return the geometric mean of ``over / under``, its standard error, and n."""
    good = (over > 0) & (under > 0)
    log, error, n = mean_and_error(np.log(over[good] / under[good]))
    return float(np.exp(log)), float(np.exp(log) * error), n


def is_below_one(ratio: float, error: float) -> bool:
    """Whether a ratio lies below 1 by 2 standard errors of its logarithm."""
    return bool(np.log(ratio) + SURE * error / ratio < 0)


def which_judged(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which perturbations count: the strong ones, or all where those are too few."""
    strong = table["is_strong"].to_numpy(dtype=bool)
    return strong if strong.sum() >= FEWEST_STRONG else np.ones(len(table), dtype=bool)


def summarise(table: pd.DataFrame, genes: pd.DataFrame, r: Array) -> list[Quantity]:
    """Return all quantities; those of perturbations are over the judged ones.

    ``r`` is that of the graph (first row) and of random graphs.
    """
    n_strong = int(table["is_strong"].sum())
    rows = table.loc[which_judged(table)]
    out = [
        Quantity(
            "n_strong", n_strong, float("nan"), len(table), f"at least {FEWEST_STRONG}",
            n_strong >= FEWEST_STRONG, "perturbations whose own targets change by 3 standard errors"
            " or more; n is all of them",
        )
    ]  # fmt: skip
    out += [*_prediction_rows(rows), *_ratio_rows(rows), *_ranking_rows(rows)]
    out += _graph_rows(r)
    for level in (50, 90):
        value, error, n = mean_and_error(rows[f"coverage_{level}"].to_numpy(dtype=float))
        rule = f"at least {LEAST_COVERAGE:g}" if level == 90 else ""
        passed = bool(value >= LEAST_COVERAGE) if level == 90 else None
        meaning = f"share of held-out means inside the {level} % predictive intervals"
        out.append(Quantity(f"coverage_{level}", value, error, n, rule, passed, meaning))
    for name, column, meaning in (
        ("skewness", "residual_skewness", "median absolute skewness of the genes' residuals"),
        ("zeros", "share_of_zeros", "median share of control cells in which a gene is zero"),
    ):
        values = np.abs(genes[column].to_numpy(dtype=float))
        out.append(
            Quantity(name, float(np.median(values)), float("nan"), len(values), "", None, meaning)
        )
    return out


def _prediction_rows(rows: pd.DataFrame) -> list[Quantity]:
    out = []
    for name, rule, meaning in (
        ("r", f"at least {LEAST_R:g}, and above 0 by 2 standard errors",
         "correlation of predicted and observed change over genes, target genes left out"),
        ("r_with_target", "", "the same with the target genes, which shifts as measured make high"),
        ("r_coexpression", "", "correlation with the change by coexpression over the controls"),
        ("sign_accuracy", "", "share of clear changes (3 standard errors; target genes left out) "
         "whose sign was predicted; 0.5 is a coin"),
    ):  # fmt: skip
        value, error, n = mean_and_error(rows[name].to_numpy(dtype=float))
        passed = bool(value >= LEAST_R and value - SURE * error > 0) if rule else None
        out.append(Quantity(name, value, error, n, rule, passed, meaning))
    return out


def _ratio_rows(rows: pd.DataFrame) -> list[Quantity]:
    out = []
    own = rows["error"].to_numpy(dtype=float)
    for name, column, meaning in (
        ("error_to_nothing", "error_nothing", "squared error as a share of that of 'nothing "
         "changes', geometric mean"),
        ("error_to_mean", "error_mean", "squared error as a share of that of the mean "
         "perturbation, geometric mean"),
        ("error_to_coexpression", "error_coexpression", "squared error as a share of that of "
         "coexpression (genes regressed on the targets over the controls), geometric mean"),
        ("error_to_empty", "error_empty", "squared error as a share of that of a graph without "
         "arcs, fitted to the same cells and shifts, geometric mean"),
        ("error_to_noise", "error_noise", "squared error in units of the sampling noise of the "
         "observed change, geometric mean; 1 is perfect"),
    ):  # fmt: skip
        value, error, n = ratio_and_error(own, rows[column].to_numpy(dtype=float))
        rule = f"at most {LARGEST_RATIO:g}, and below 1 by 2 standard errors"
        passed: bool | None = value <= LARGEST_RATIO and is_below_one(value, error)
        if column == "error_noise":
            rule, passed = "", None
        out.append(Quantity(name, value, error, n, rule, passed, meaning))
    nothing, noise = (rows[c].to_numpy(dtype=float) for c in ("error_nothing", "error_noise"))
    value, error, n = ratio_and_error(nothing, noise)
    meaning = "squared change of the genes that are no targets, in units of its sampling noise; 1 "
    meaning += "is no effect"
    return [*out, Quantity("signal_to_noise", value, error, n, "", None, meaning)]


def _ranking_rows(rows: pd.DataFrame) -> list[Quantity]:
    own, empty = (
        rows[name].to_numpy(dtype=float) for name in ("distance_rank", "distance_rank_empty")
    )
    meaning = "with each perturbation as the target, rank correlation over the others of predicted "
    meaning += "and true distance to it"
    out = []
    for name, values, said in (
        ("distance_rank", own, meaning),
        ("distance_rank_empty", empty, "the same for a graph without arcs"),
        ("distance_rank_gain", own - empty, "what the graph adds to it"),
    ):
        value, error, n = mean_and_error(values)
        rule = "above 0 by 2 standard errors" if name.endswith("gain") and n else ""
        passed = bool(value - SURE * error > 0) if rule else None
        out.append(Quantity(name, value, error, n, rule, passed, said))
    return out


def _graph_rows(r: Array) -> list[Quantity]:
    with_parents = np.isfinite(r[0])
    meaning = "mean r of genes on their parents, perturbed cells (regressed in controls)"
    rule = f"above all but {100 * RANDOM_LEVEL:g} % of random graphs"
    if not with_parents.any():
        return [Quantity("r_parents", float("nan"), float("nan"), 0, rule, False, meaning)]
    means = np.nanmean(r[:, with_parents], axis=1)
    own, random = float(means[0]), means[1:]
    n = int(with_parents.sum())
    passed = bool((means >= own).mean() <= RANDOM_LEVEL)
    spread = float(random.std(ddof=1))
    return [
        Quantity("r_parents", own, float("nan"), n, rule, passed, meaning),
        Quantity(
            "r_parents_random", float(random.mean()), spread, len(random), "", None,
            "the same in random graphs with as many parents; the error is their spread",
        ),
    ]  # fmt: skip


def summary_table(quantities: list[Quantity]) -> pd.DataFrame:
    """Return the summary as a table; ``passed`` is ``"yes"``, ``"no"`` or empty."""
    word = {True: "yes", False: "no", None: ""}
    return pd.DataFrame(
        {
            "quantity": strings(q.name for q in quantities),
            "value": np.array([q.value for q in quantities], dtype=np.float64),
            "standard_error": np.array([q.error for q in quantities], dtype=np.float64),
            "n": np.array([q.n for q in quantities], dtype=np.int64),
            "rule": strings(q.rule for q in quantities),
            "passed": strings(word[q.passed] for q in quantities),
            "meaning": strings(q.meaning for q in quantities),
        },
        index=pd.Index(np.arange(len(quantities))),
    )


def judge(quantities: list[Quantity], table: pd.DataFrame) -> tuple[str, str]:
    """Return the level (``"trust"``, ``"care"``, ``"do not trust"``) and the verdict in words.

    ``"do not trust"``: fewer than three perturbations clearly move their own targets, the held-out
    correlation is not above 0 by two standard errors, the squared error is on average no smaller
    than that of a baseline without a model, the graph adds nothing to one without arcs, or less
    than half of the means lie in the 90 % intervals. ``"trust"``: all rules of the summary hold.
    ``"care"``: anything between.
    """
    by = {q.name: q for q in quantities}
    weak = table.loc[~table["is_strong"], "perturbation"].tolist()
    failed = {q.name for q in quantities if q.passed is False}
    held_out = _held_out_in_words(by)
    if not failed:
        return "trust", f"Trust the model here: {held_out}."
    reasons = "; ".join(_reasons(by, weak))
    if _is_fatal(by):
        return "do not trust", (
            f"Do not trust the model here, use random or greedy: {reasons}. "
            f"{held_out[0].upper()}{held_out[1:]}."
        )
    return "care", f"Trust with care: {held_out}. But {reasons}."


def _is_fatal(by: dict[str, Quantity]) -> bool:
    """Whether something forbids any trust."""
    r = by["r"]
    return (
        not by["n_strong"].passed
        or not r.value - SURE * r.error > 0
        or any(not by[name].value < 1 for name in _PLAIN)
        or not by["coverage_90"].value >= HOPELESS_COVERAGE
        or added_by_graph(by) != "something"
    )


def added_by_graph(by: dict[str, Quantity]) -> str:
    """Return what the graph adds to one without arcs: something, nothing clear, or nothing."""
    error, ranks = by["error_to_empty"], by["distance_rank_gain"]
    ranks_are_clear = ranks.value - SURE * ranks.error > 0
    less, better = error.value <= NO_RATIO, ranks.value >= NO_RANKING
    if (less and is_below_one(error.value, error.error)) or (better and ranks_are_clear):
        return "something"
    return "nothing clear" if less or better else "nothing"


def _held_out_in_words(by: dict[str, Quantity]) -> str:
    nothing, mean, plain, empty, r = (by[name] for name in (*_RATIOS, "r"))
    own, without = by["distance_rank"], by["distance_rank_empty"]
    of = f"{nothing.n} strong" if by["n_strong"].passed else f"all {nothing.n}"
    few = "" if r.n == nothing.n else f"; {r.n} with any predicted effect on others"
    ranks = f"; distances to a target are ranked with a correlation of {_with_error(own)}, those "
    ranks += f"of the empty graph {_with_error(without)}"
    return (
        f"held-out effects of {of} perturbations are predicted with r = {_with_error(r)} (without "
        f"the target genes{few}), at {_with_error(nothing)} times the squared error of 'nothing "
        f"changes', {_with_error(mean)} times that of the mean perturbation, "
        f"{_with_error(plain)} times that of coexpression over the controls and "
        f"{_with_error(empty)} times that of an empty graph with the same shifts"
        f"{ranks if own.n else ''}; 90 % intervals hold {100 * by['coverage_90'].value:.0f} %"
    )


def _with_error(q: Quantity) -> str:
    if not np.isfinite(q.value):
        return "unknown"
    return f"{q.value:.2f} ± {q.error:.2f}" if np.isfinite(q.error) else f"{q.value:.2f}"


def _reasons(by: dict[str, Quantity], weak: list[str]) -> list[str]:
    """Return what speaks against the model, in words."""
    added, said = added_by_graph(by), []
    strong, r = by["n_strong"], by["r"]
    if not strong.passed:
        text = f"only {strong.value:.0f} of {strong.n} perturbations clearly change their own "
        named = f" (not {list_names(weak, limit=5)})" if weak else ""
        said.append(f"{text}targets{named}")
    if added != "something":
        said.append(f"the graph adds {added} here")
    if not r.passed:
        clear = r.value - SURE * r.error > 0
        said.append(f"the held-out correlation is {'small' if clear else 'not clearly above 0'}")
    best = _best_plain(by)
    if best:
        said.append(f"{_RATIOS[best]} predicts better than the graph here")
    known = {best} if added == "something" else {best, "error_to_empty"}
    said += _ratios_in_words(by, known)
    if by["distance_rank_gain"].passed is False and added == "something":
        said.append("distances to a target are not clearly ranked better than by an empty graph")
    if not by["r_parents"].passed:
        said.append("parents predict their genes no better than those of random graphs")
    if not by["coverage_90"].passed:
        said.append("the intervals are too narrow: do not read the predicted standard deviations")
    return said


def _best_plain(by: dict[str, Quantity]) -> str:
    """Return the baseline of the least squared error where that is below the model's, or ''."""
    best = max(_PLAIN, key=lambda name: np.nan_to_num(by[name].value))
    return best if by[best].value > 1 else ""


def _ratios_in_words(by: dict[str, Quantity], known: set[str]) -> list[str]:
    """Return the baselines that the model hardly betters, those it does not clearly better."""
    hardly: list[str] = []
    unclear: list[str] = []
    for name, word in _RATIOS.items():
        q = by[name]
        if q.passed or name in known:
            continue
        (hardly if is_below_one(q.value, q.error) else unclear).append(word)
    said = []
    if unclear:
        said.append(f"the model does not clearly predict better than {' or '.join(unclear)}")
    if hardly:
        said.append(f"the model predicts hardly better than {' or '.join(hardly)}")
    return said
