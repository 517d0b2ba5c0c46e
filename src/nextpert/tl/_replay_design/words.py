"""What the tables of a replay say in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata import list_names
from nextpert.tl._replay_design.tables import BASELINE, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    """Say of each reading how many plates each criterion needs, and who comes nearer."""
    return " ".join(
        _reading_in_words(
            overall[overall["held_out"] == held_out].set_index("criterion"),
            targets[targets["held_out"] == held_out],
            n_rounds,
        )
        for held_out in dict.fromkeys(overall["held_out"])
    )


def specs_in_words(specs: Mapping[str, str]) -> str:
    """Say how much the model of each criterion holds; nothing where none has a model."""
    by_spec: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if spec:
            by_spec.setdefault(spec, []).append(name)
    said = [f"{spec} ({list_names(names, limit=len(names))})" for spec, names in by_spec.items()]
    return f" Spec of the models: {', '.join(said)}." if said else ""


def _reading_in_words(rows: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    n = len(targets)
    where = "held out" if bool(targets["held_out"].iloc[0]) else "in the pool"
    needed = ", ".join(
        f"{name} {row['plates']:.1f} (good at the end in {row['share_good_last']:.0%})"
        for name, row in rows.sort_values("plates").iterrows()
    )
    others = rows.drop(index=BASELINE).sort_values("relative_difference")
    said = []
    for sign, head in ((-1, "nearer than"), (0, "not told apart from"), (1, "further than")):
        part = others[others["verdict"] == VERDICTS[sign]]
        if len(part):
            said.append(f"{head} {BASELINE}: {_shown(part)}")
    control = targets["control_distance"]
    ends = ", ".join(f"{name} {row['relative_last']:.2f}" for name, row in rows.iterrows())
    best = (targets["best_distance"] / control).mean()
    blind = (targets["pool_distance"] / control).mean()
    return (
        f"Target {where} ({n} target{'s' * (n > 1)}): plates until the recommendation is as good "
        f"as the best and stays so, {n_rounds + 1} standing for never: {needed}. "
        f"Distance over all plates, in shares of the control cells', ± one standard error, "
        f"p-values by Holm: {'; '.join(said) or 'nothing to compare'}. After plate {n_rounds} the "
        f"recommendation stands at {ends}; the best candidate at {best:.2f}, doing nothing at 1, "
        f"one picked blindly at {blind:.2f}."
    )


def _shown(part: pd.DataFrame) -> str:
    said = [
        f"{name} {row['relative_difference']:+.3f} ± {row['relative_difference_sem']:.3f}"
        for name, row in part.iterrows()
    ]
    return list_names(said, limit=len(said))
