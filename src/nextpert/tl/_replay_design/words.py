"""What the tables of a replay say in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata import list_names
from nextpert.tl._replay_design.tables import BASELINE, LEVEL, VERDICTS

if TYPE_CHECKING:
    import pandas as pd

# Of the control cells' distance: with many targets less is significant too, but of no use.
LEAST_GAIN = 0.01


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    """Say of each reading who beats random, what the graph adds, what a recommendation is worth."""
    return " ".join(
        _reading_in_words(
            overall[overall["held_out"] == held_out].set_index("criterion"),
            targets[targets["held_out"] == held_out],
            n_rounds,
        )
        for held_out in dict.fromkeys(overall["held_out"])
    )


def _reading_in_words(rows: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    n = len(targets)
    where = "held out" if bool(targets["held_out"].iloc[0]) else "in the pool"
    others = rows.drop(index=BASELINE).sort_values("relative_difference")
    better, same, worse = (others[others["verdict"] == VERDICTS[k]] for k in (-1, 0, 1))
    if not len(others):
        said = ["nothing to compare random with"]
    elif len(better):
        said = [f"nearer than random over all targets: {_shown(better, n)}"]
    else:
        said = ["no criterion is clearly nearer than random over all targets"]
    if len(same):
        said.append(f"not told apart from it: {_shown(same, n)}")
    if len(worse):
        said.append(f"further: {_shown(worse, n)}")
    control = targets["control_distance"]
    start = rows["relative_first"].to_dict()[BASELINE]
    last = zip(rows.index.astype(str), rows["relative_last"], strict=True)
    ends = ", ".join(f"{name} {value:.2f}" for name, value in last)
    best = (targets["best_distance"] / control).mean()
    blind = (targets["pool_distance"] / control).mean()
    nearer = int((targets["best_distance"] < control).sum())
    faint = int((control < 2 * targets["control_sampling"]).sum())
    doubt = (
        f" For {faint} of {n}, the target lies no further from the control cells than twice what "
        f"the sampling of cells puts between equal states."
    )
    return (
        f"Target {where} ({n} target{'s' * (n > 1)}): {'; '.join(said)} (mean over rounds, in "
        f"shares of the control cells' distance, ± one standard error; p values corrected for the "
        f"number of criteria). {_graph_in_words(rows)}"
        f"After round {n_rounds} the recommendation stands at {ends}, random after the warm-up "
        f"alone at {start:.2f}; the best candidate at {best:.2f} "
        f"(nearer than doing nothing, 1, for {nearer} of {n}), one picked blindly at {blind:.2f}."
    ) + (doubt if faint else "")


def _graph_in_words(rows: pd.DataFrame) -> str:
    """Say whether any criterion comes nearer with the graph than the empty graph does."""
    known = rows[rows["difference_to_empty"].notna()].sort_values("difference_to_empty")
    is_nearer = known["difference_to_empty"] <= -LEAST_GAIN
    is_clear = is_nearer & (known["p_to_empty_adjusted"] < LEVEL)
    chosen = known[is_clear] if is_clear.any() else known
    shown = list_names(
        (
            f"{name} {row['difference_to_empty']:+.3f} ± {row['difference_to_empty_sem']:.3f}"
            for name, row in chosen.iterrows()
        ),
        limit=len(chosen),
    )
    if is_clear.any():
        return f"The graph helps: nearer than an empty graph with the same shifts: {shown}. "
    return (
        f"The graph adds nothing {'clear ' if is_nearer.any() else ''}here: with it, no criterion "
        f"is clearly nearer than an empty graph with the same shifts, by {100 * LEAST_GAIN:g} % or "
        f"more ({shown}). "
    )


def _shown(part: pd.DataFrame, n_targets: int) -> str:
    said = []
    for name, row in part.iterrows():
        text = f"{name} {row['relative_difference']:+.3f} ± {row['relative_difference_sem']:.3f}"
        counts = [("nearer", row["n_better"]), ("further", row["n_worse"])]
        by_target = " and ".join(f"{word} on {int(k)}" for word, k in counts if k)
        said.append(f"{text} ({by_target} of {n_targets})" if by_target else text)
    return list_names(said, limit=len(said))
