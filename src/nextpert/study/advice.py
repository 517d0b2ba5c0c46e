"""The words of an advice, the same in every function, and whether a plan follows it."""

from __future__ import annotations

import logging
from math import floor, isnan
from typing import TYPE_CHECKING, Any

from nextpert.core._checks import list_names
from nextpert.core._text import percent
from nextpert.core.design.stopping import (
    AT_TARGET,
    CONFIRM,
    MEASURE,
    STOP,
    UNTRUSTED,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

logger = logging.getLogger(__name__)  # of all advice; the command line prints it as a result

AS_ASSUMED = ", if pairs interact as the prior assumes"  # no measured combination shows how
NO_PERTURBATION = "no perturbation"
MAX_NEAR_DISTANCE = (
    0.9  # share of the control's distance above which the best known is not near the target
)


def chosen_of(plan: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of a plan without the controls."""
    table: pd.DataFrame = plan["plate"]
    return table[table["strategy"].astype(str) != "control"]


def is_advised(plan: Mapping[str, Any]) -> bool:
    """Whether a stored plan follows its advice: all its rows but those included on request do."""
    chosen = chosen_of(plan)
    is_free = chosen["strategy"].astype(str) != "include"
    return bool(chosen.loc[is_free, "is_advised"].astype(bool).all())


def orders_cells(plan: Mapping[str, Any]) -> bool:
    """Whether a stored plan follows its advice, and this is to profile cells."""
    return is_advised(plan) and bool(chosen_of(plan)["is_advised"].astype(bool).any())


def warns(advice: Mapping[str, Any]) -> bool:
    """Whether an advice is a warning: nothing can be used, or no difference is shown."""
    is_shown = bool(advice["target_differs"]) and bool(advice["candidates_differ"])
    return str(advice["kind"]) in (AT_TARGET, UNTRUSTED) or not is_shown


def as_sentence(words: str) -> str:
    """Return words with the first letter as a capital, as at the start of a sentence."""
    return words[:1].upper() + words[1:]


def name_of(target: Any) -> str:
    """Return the name of a target, shortened if it lists many means.

    Examples
    --------
    >>> from nextpert.study.advice import name_of
    >>> name_of("STAT1"), name_of("STAT1; own genes included"), name_of("IRF1=0.2, " * 9)
    ('STAT1', 'STAT1 (own genes included)', 'the target state')
    """
    if len(str(target)) > 60:
        return "the target state"
    state, *how = str(target).split("; ")
    return f"{state} ({'; '.join(how)})" if how else state


def in_words(advice: Mapping[str, Any], target: str, genes: str = "") -> str:
    """Return an advice in one or two sentences; ``genes`` says which genes are left out."""
    kind = str(advice["kind"])
    if kind == AT_TARGET:
        return (
            f"Order nothing: the control is at {target}{' ' * bool(genes)}{genes}, so no "
            f"perturbation can be nearer. Choose a target farther from the control."
        )
    if kind == UNTRUSTED:
        return (
            "Order nothing: because tl.diagnose does not trust the negative controls, no "
            "perturbation can be said to differ from the others. Declare any undeclared guides and "
            "batches, and fit again; if all are declared, use more control guides."
        )
    return f"{_decision_in_words(advice, target)}{_warnings_in_words(advice, target, genes)}"


def _warnings_in_words(advice: Mapping[str, Any], target: str, genes: str) -> str:
    """Return what the cells do not show; a test only warns, and does not change the decision."""
    words = ""
    if not advice["target_differs"]:
        words += f" The cells do not show that {target} differs from the control"
        words += f"{' ' * bool(genes)}{genes}."
    if not advice["has_replicates"]:
        words += " The table has no replicates, so that distances may be far too certain."
    if not advice["candidates_differ"]:
        words += " No candidate with cells is shown to differ from the controls and the others."
    return words


def _decision_in_words(advice: Mapping[str, Any], target: str) -> str:
    """Return what to use and what to order, with the expected gain."""
    kind, untested = str(advice["kind"]), int(advice["n_untested"])
    best = str(advice["best_known"])
    best = "the control" if best == NO_PERTURBATION else best
    chance = _chance_in_words(advice, target, best)
    sentence = f" {as_sentence(chance)}." * bool(chance)
    named, x = list_names(advice["perturbations"], limit=8), advice["relative_distance"]
    fraction = "less than 1%" if x < 0.01 else f"{100 * x:,.0f}%"
    distance_of_best = f" {best} has {fraction} of the control's distance."
    if kind == CONFIRM and best == "the control":
        return f"Order nothing: {chance}."
    if kind == CONFIRM:
        action = "nothing, as no candidate comes close"
        if x <= MAX_NEAR_DISTANCE:
            action = f"nothing new; confirm {named}{_cells_needed_in_words(advice)}"
        return f"Order {action}: {chance}.{distance_of_best}"
    gain, of_more = (
        percent(advice[name]).replace("<", "less than")
        for name in ("relative_gain", "relative_gain_of_more")
    )
    if kind == STOP:
        larger_gain = max((advice["relative_gain"], advice["relative_gain_of_more"]))
        min_gain = f"{100 * advice['min_gain']:g}%"
        closer = percent(larger_gain).replace("<", "less than")
        closer = f"less than {min_gain}" if closer == min_gain else closer
        use = "no candidate comes close" if x > MAX_NEAR_DISTANCE else f"use {best}"
        use = "no candidate is known to be closer" if best == "the control" else use
        return (
            f"Order nothing; {use}: another round is expected to bring cells closer by "
            f"{closer} of the control's distance, below the smallest gain that is worth a round "
            f"({min_gain}).{sentence}{distance_of_best * (best != 'the control')}"
        )
    n, cells_in_words = int(advice["n_perturbations"]), _each_in_words(advice)
    action, instead = f"Order {n} perturbation{'s' * (n > 1)} ({cells_in_words})", ""
    if kind == MEASURE:
        action, gain, of_more = (
            f"Measure more cells of {named} first ({cells_in_words})",
            of_more,
            gain,
        )
    if untested:
        other = (
            "the best plan with untested candidates"
            if kind == MEASURE
            else ("more cells of measured candidates")
        )
        instead = f" ({other}: {of_more})"
    return (
        f"{action}: after that, the best known perturbation is expected to be closer by {gain} of "
        f"the control's distance{instead}.{sentence}"
    )


def _chance_in_words(advice: Mapping[str, Any], target: str, best: str) -> str:
    """Return the probability that no candidate is closer; empty if it is not stated."""
    if isnan(advice["good_enough"]):
        return ""
    # Rounded down, so that no probability below 0.95 reads as 95%.
    enough, n = floor(100 * advice["good_enough"]) / 100, len(advice["candidates"])
    nearer_in_words, probability = (
        ("none", enough) if enough >= 0.5 else ("at least one", 1 - enough)
    )
    return (
        f"with probability {percent(probability)}, {nearer_in_words} of the {n} candidates is "
        f"closer to {target} than {best} by more than {100 * advice['tolerance']:g}% of the "
        f"control's distance"
    )


def _cells_needed_in_words(advice: Mapping[str, Any]) -> str:
    """Return how many new cells, and guides if they vary, confirm the named candidates."""
    needed, n_guides = float(advice["cells_needed"]), int(advice["n_new_guides"])
    if not 0 < needed < float("inf"):
        return ""
    per_candidate = " each" * (len(advice["perturbations"]) > 1)
    guides = f" in {n_guides} new guide{'s' * (n_guides > 1)}" * (n_guides > 0)
    return f" with at least {needed:,.0f} new cells{guides}{per_candidate}"


def _each_in_words(advice: Mapping[str, Any]) -> str:
    """Return the cells, and new guides if guides vary, of each perturbation that is named."""
    n, n_new = int(advice["n_perturbations"]), int(advice["n_new_guides"])
    cells_in_words = f"{advice['n_cells']:,} cells{' each' * (n > 1)}"
    return cells_in_words + f", with {n_new} new guide{'s' * (n_new > 1)}{' each' * (n > 1)}" * (
        n_new > 0
    )
