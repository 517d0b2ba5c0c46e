"""What to make for a plan: a row for each construct, of guides that exist and guides to design."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert.core._codec import digest_of, strings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nextpert.core.fit.fitted import FittedPosterior

KINDS = {1: "single guide", 2: "dual guide"}
Construct = tuple[str, str, str]  # guides, status, members whose guide has to be designed


def constructs_table(
    plate: pd.DataFrame,
    fit: FittedPosterior,
    guides: Mapping[str, Sequence[str]] | None,
    pending: Iterable[str] = (),
) -> pd.DataFrame:
    """Return the constructs of a plan, those of a perturbation in a row, the controls last.

    Parameters
    ----------
    plate
        The plan, with ``n_guides`` constructs of each perturbation.
    fit
        The fit, which knows what was measured.
    guides
        Guides of every measured perturbation, most cells first; ``None`` if they are not known.
    pending
        Perturbations in progress, whose guides exist.
    """
    naming = fit.naming
    guides_of = {naming.key(name): list((guides or {}).get(name, ())) for name in fit.names}
    in_screen = {each for name in [*fit.names, *pending] for each in naming.members(name)}
    rows = []

    for row in plate.to_dict("records"):
        label, n, n_cells = str(row["perturbation"]), int(row["n_guides"]), int(row["n_cells"])
        if str(row["strategy"]) == "control":
            rows.append((label, 1, "control", "existing", "", "", "", n_cells))
            continue
        inside, outside = naming.targets(label)
        told = [gene for gene in str(row["target_genes"]).split(", ") if gene]
        genes = told if told and not inside else [*inside, *outside]  # or by a table of shifts
        members = naming.key(label)
        kind = KINDS.get(len(members), f"{len(members)} guides")
        # Constructs that exist, then combinations of guides that exist, then those to design;
        # guides that are not known are empty texts.
        made: list[Construct] = []
        if members in guides_of:
            made = [(guide, "existing", "") for guide in guides_of[members][:n] or [""] * n]
        if len(members) > 1 or not made:
            new = ", ".join(each for each in members if each not in in_screen)
            existing = [guides_of.get(naming.key(each), [])[:n] or [""] * n for each in members]
            made += [
                (", ".join(filter(None, parts)), "design" if new else "clone", new)
                for parts in islice(combined(existing), n)
            ]
        made += [("", "design", ", ".join(members))] * n
        each = np.diff(np.arange(n + 1) * n_cells // n).tolist()
        for i, (ids, status, new) in enumerate(made[:n]):
            rows.append((label, i + 1, kind, status, ids, new, ", ".join(genes), each[i]))
    names = ["perturbation", "construct", "kind", "status", "guides", "new_guides_of",
             "target_genes", "n_cells"]  # fmt: skip
    table = pd.DataFrame(rows, columns=names)
    texts = {name: strings(table[name]) for name in names if name not in ("construct", "n_cells")}
    return table.assign(**texts)


def combined(lists: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Yield combinations of one item of each list, each once; all items are used evenly.

    Examples
    --------
    >>> from nextpert.tl._plan_screen.constructs import combined
    >>> [*combined([["a", "b"], ["1", "2", "3"]])]
    [('a', '1'), ('b', '2'), ('a', '3'), ('b', '1'), ('a', '2'), ('b', '3')]
    """
    longest = max(range(len(lists)), key=lambda i: len(lists[i]))
    others = [range(1 if i == longest else len(each)) for i, each in enumerate(lists)]
    for offsets in product(*others):
        for start in range(len(lists[longest])):
            yield tuple(
                each[(start + offset) % len(each)]
                for each, offset in zip(lists, offsets, strict=True)
            )


def digest_of_plan(plan: Mapping[str, Any]) -> str:
    """Return the digest of what a loading is computed from, the same before and after a file."""
    return digest_of({name: plan[name] for name in ("plate", "constructs")})
