"""Tables of programs that perturbations share and of perturbations that are alike, and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage

from nextpert._adata import list_names
from nextpert.core.fit.naming import places
from nextpert.core.model.programs import alike, find_programs, strongest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert.core.fit.fitted import FittedPosterior

# Probability above which pairs are stored. On Papalexi and TAP-seq with shuffled labels none is
# above 0.24.
ALIKE = 0.9
# Genes that neither targets, to compare two perturbations on: of 10 genes, two effects without
# anything in common have a correlation above 0.5 in 6% of cases, of 5 genes in 16%.
FEWEST = 10
# Correlation of their effects above which two perturbations are alike.
CORRELATED = 0.5


def program_tables(fit: FittedPosterior) -> dict[str, Any]:
    """Return ``programs`` (tables ``shares``, ``genes`` and ``scores``) and the table ``alike``.

    They are of the perturbations with cells, by the hierarchical model; empty without it.
    """
    model = fit.hierarchical
    if model is None or not fit.seen.any():
        return {}
    seen = np.flatnonzero(fit.seen)
    names = np.array(fit.names, object)[seen]
    targets = np.zeros((len(seen), len(fit.genes)), bool)
    for row, own in zip(targets, places([fit.targets[j] for j in seen], fit.genes), strict=True):
        row[own] = True
    shared = find_programs(model, targets=targets)
    number, on = np.arange(1, 1 + len(shared.share)), shared.takes_part
    genes = _long(number, "gene", fit.genes, {"effect": shared.genes, "sd": shared.genes_sd})
    columns = {"score": shared.scores.T, "sd": shared.scores_sd.T, "takes_part": on.T}
    scores = _long(number, "perturbation", names, columns)
    shares = pd.DataFrame(
        {"program": number, "share": shared.share, "n_perturbations": on.sum(axis=0)}
    )
    among = strongest(model.effects, targets)
    probability, correlation = alike(
        model.effects.rows(among), targets=targets[among], least=CORRELATED
    )
    compared = (~targets[among]).astype(float) @ (~targets[among]).T
    one, two = np.nonzero(np.triu((probability > ALIKE) & (compared >= FEWEST), 1))
    pairs = pd.DataFrame(
        {
            "perturbation": names[among[one]],
            "other": names[among[two]],
            "probability": probability[one, two],
            "correlation": correlation[one, two],
        }
    ).sort_values(["probability", "correlation"], ascending=False, kind="stable", ignore_index=True)
    programs = {"shares": shares, "genes": genes, "scores": scores}
    return {"programs": programs, "alike": pairs}


def _long(number: Any, what: str, names: Any, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return tables of programs x names with a row each, the largest of every program first."""
    k, n = len(number), len(names)
    table = pd.DataFrame({
        "program": np.repeat(number, n),
        what: np.tile(np.array(names, object), k),
        **{name: values.ravel() for name, values in columns.items()},
    })  # fmt: skip
    size = np.abs(next(iter(columns.values()))).ravel()
    return table.iloc[np.lexsort((-size, table["program"]))].reset_index(drop=True)


def groups_alike(pairs: pd.DataFrame) -> list[tuple[list[str], float]]:
    """Return groups of perturbations of which each pair is alike, and the least probability.

    A perturbation is in one group only, that which complete linkage puts it in; the largest group
    is first.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert.tl._perturbation_effects.programs import groups_alike
    >>> pairs = pd.DataFrame(
    ...     [("A", "B", 1.0), ("A", "C", 0.95), ("B", "C", 0.98), ("C", "D", 0.91)],
    ...     columns=["perturbation", "other", "probability"],
    ... )
    >>> groups_alike(pairs)
    [(['A', 'B', 'C'], 0.95)]
    """
    names = sorted({*pairs["perturbation"].astype(str), *pairs["other"].astype(str)})
    if not names:
        return []
    place = {name: i for i, name in enumerate(names)}
    one, two = (pairs[x].astype(str).map(place).to_numpy() for x in ("perturbation", "other"))
    probability = np.zeros((len(names), len(names)))
    probability[one, two] = probability[two, one] = pairs["probability"]
    far = 1.0 - probability[np.triu_indices(len(names), 1)]
    group = fcluster(linkage(far, method="complete"), 1.0 - ALIKE, criterion="distance")
    groups = []
    for label in range(1, group.max() + 1):
        some = np.flatnonzero(group == label)
        if len(some) > 1:
            among = probability[np.ix_(some, some)][np.triu_indices(len(some), 1)]
            groups.append(([names[i] for i in some], float(among.min())))
    return sorted(groups, key=lambda each: (-len(each[0]), each[0]))


def programs_in_words(stored: Mapping[str, Any]) -> str:
    """Return how many programs there are, and which perturbations are alike, in a line."""
    shares, scores = (stored["programs"][name] for name in ("shares", "scores"))
    n, text = len(shares), "No program is shared by perturbations."
    if n:
        on = scores[scores["takes_part"].to_numpy(bool)]
        first = on.loc[on["program"] == 1, "perturbation"].astype(str)
        text = (
            f"{n} program{'s' * (n > 1)} shared by perturbations; the largest "
            f"({100 * shares['share'].iloc[0]:.0f}% of the effects): {list_names(first, 6)}."
        )
    groups = groups_alike(stored["alike"])
    if groups:
        listed = "; ".join(list_names(some, 8) for some, _ in groups[:3])
        more = f" and {len(groups) - 3} more groups" if len(groups) > 3 else ""
        text += f" Alike (probability above {100 * ALIKE:.0f}%): {listed}{more}."
    return text
