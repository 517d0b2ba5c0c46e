"""What to make for a plan: a row for each construct, of guides that exist and guides to design."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert.core._codec import strings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nextpert.core.fit.fitted import FittedPosterior

KINDS = {1: "single guide", 2: "dual guide"}
Row = tuple[str, str, str]  # guides, status, members whose guide has to be designed


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
    measured = {naming.key(name): name for name in fit.names}
    in_screen = {each for name in [*fit.names, *pending] for each in naming.members(name)}
    rows = []

    def known(label: str, n: int) -> list[str]:
        """Return at most ``n`` guides of a measured perturbation; empty texts if not known."""
        name = measured.get(naming.key(label))
        return [] if name is None else list((guides or {}).get(name, ()))[:n] or [""] * n

    def constructs(label: str, n: int) -> Iterator[Row]:
        """Yield those that exist, then pairs of guides that exist, then those to design."""
        own, members = known(label, n), naming.key(label)
        yield from ((guide, "existing", "") for guide in own)
        new = [each for each in members if each not in in_screen]
        if len(members) > 1 or not own:
            for parts in combined([known(each, n) or [""] * n for each in members]):
                yield ", ".join(filter(None, parts)), "design" if new else "clone", ", ".join(new)
        while True:  # all that can be made of the guides that exist is used
            yield "", "design", ", ".join(members)

    for row in plate.to_dict("records"):
        label, n, n_cells = str(row["perturbation"]), int(row["n_guides"]), int(row["n_cells"])
        if str(row["strategy"]) == "control":
            rows.append((label, 1, "control", "existing", "", "", "", n_cells))
            continue
        inside, outside = naming.targets(label)
        told = [gene for gene in str(row["target_genes"]).split(", ") if gene]
        genes = told if told and not inside else [*inside, *outside]  # or by a table of shifts
        size = len(naming.key(label))
        kind = KINDS.get(size, f"{size} guides")
        each = np.diff(np.arange(n + 1) * n_cells // n).tolist()
        for i, (ids, status, new) in enumerate(islice(constructs(label, n), n)):
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
