"""The constructs of a plan: guides that exist, that are cloned, and that are to be designed."""

from __future__ import annotations

import re
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core._codec import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.naming import Naming


# What a construct of one, two and more members is, by what the screen says about it.
GUIDES = ("single guide", "dual-guide vector", "vector of {n} guides")
COMPOUNDS = ("compound", "{n} compounds", "{n} compounds")
CONSTRUCTS = ("construct", "construct", "construct")
# A label of a compound and its dose, such as "trametinib_0.1uM", "JQ1@500 nM" or "BI-2536_10".
_DOSE = re.compile(
    r"(?P<compound>.+?)[_@ :]+(?P<dose>\d+(?:[.,]\d+)?(?:e-?\d+)?\s*(?:[fpnuµmk]?[MgL]\S*|%)?)",
    re.I,
)
Construct = tuple[str, str, str]  # guides, status, members whose guide has to be designed


def noun_of(constructs: pd.DataFrame) -> str:
    """Return what the rows of a plan are, other than controls: guides, compounds or constructs.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert.study.constructs import noun_of
    >>> [noun_of(pd.DataFrame({"kind": [x, "control"]})) for x in ("2 compounds", "construct")]
    ['compound', 'construct']
    """
    kinds = set(constructs["kind"].astype(str)) - {"control"}
    if kinds and all(kind.endswith("compounds") or kind == COMPOUNDS[0] for kind in kinds):
        return "compound"
    return "guide" if kinds == {GUIDES[0]} else "construct"


def with_doses(constructs: pd.DataFrame, naming: Naming) -> pd.DataFrame:
    """Return constructs that are compounds with ``compound`` and ``dose``, read from their labels.

    Labels without a dose are the compound, with an empty dose; controls have neither. Compounds
    and doses of a combination are joined by ``", "``, sorted by label.

    Examples
    --------
    >>> import pandas as pd
    >>> from nextpert.core.fit.naming import Naming
    >>> from nextpert.study.constructs import with_doses
    >>> labels = ["trametinib_0.1uM", "BI-2536_10+JQ1_2", "JQ1", "DMSO"]
    >>> table = pd.DataFrame({"perturbation": labels, "kind": ["compound"] * 3 + ["control"]})
    >>> with_doses(table, Naming())[["compound", "dose"]].to_numpy().tolist()
    [['trametinib', '0.1uM'], ['BI-2536, JQ1', '10, 2'], ['JQ1', ''], ['', '']]
    """
    parsed = []
    for label, kind in zip(constructs["perturbation"], constructs["kind"], strict=True):
        members = [] if kind == "control" else naming.members(str(label))
        matches = [(name, _DOSE.fullmatch(name)) for name in members]
        doses_of = [match["dose"] if match else "" for _, match in matches]
        compounds_of = [match["compound"] if match else name for name, match in matches]
        parsed.append((", ".join(compounds_of), ", ".join(doses_of) if any(doses_of) else ""))
    compounds, doses = zip(*parsed, strict=True) if parsed else ((), ())
    return constructs.assign(compound=strings(compounds), dose=strings(doses))


def constructs_table(
    plate: pd.DataFrame,
    fit: FittedPosterior,
    guides: Mapping[str, Sequence[str]] | None,
    pending: Iterable[str] = (),
    *,
    kinds: tuple[str, str, str] = CONSTRUCTS,
    are_new: bool = False,
) -> pd.DataFrame:
    """Return the constructs of a plan, grouped by perturbation, with the controls last.

    ``plate`` is the plan, with ``n_guides`` constructs of each perturbation. ``guides`` are the
    guides of every measured perturbation and of the controls, most cells first (``None``: not
    known). ``pending`` are perturbations in progress, whose guides exist. The number of control
    guides is chosen so that each has as many cells as another construct. With ``are_new``, new
    guides are designed also for measured perturbations, because guides vary.
    """
    naming = fit.naming
    guides_of = {naming.key(name): list((guides or {}).get(name, ())) for name in fit.names}
    in_screen = {member for name in [*fit.names, *pending] for member in naming.members(name)}
    is_control = plate["strategy"].astype(str) == "control"
    cells, constructs = (plate.loc[~is_control, name].sum() for name in ("n_cells", "n_guides"))
    rows = []

    for row in plate.to_dict("records"):
        label, n, n_cells = str(row["perturbation"]), int(row["n_guides"]), int(row["n_cells"])
        if str(row["strategy"]) == "control":
            enough = max(round(n_cells * constructs / max(cells, 1)), 1)
            used = list((guides or {}).get(label, ()))[:enough] or [""]
            for i, part in enumerate(_evenly(n_cells, len(used))):
                rows.append((label, i + 1, "control", "existing", used[i], "", "", part))
            continue
        inside, outside = naming.targets(label)
        by_table = [gene for gene in str(row["target_genes"]).split(", ") if gene]
        # In the order of the label, or the genes of a table of shifts.
        named = sorted([*inside, *outside], key=label.find)
        genes = by_table if by_table and not inside else named
        members = naming.key(label)
        kind = kinds[min(len(members), 3) - 1].format(n=len(members))
        # Existing constructs, then combinations of existing guides, then constructs to design;
        # unknown guides are empty texts.
        designs: list[Construct] = []
        if members in guides_of and not are_new:
            designs = [(guide, "existing", "") for guide in guides_of[members][:n] or [""] * n]
        is_designed = are_new and members in guides_of
        if (len(members) > 1 or not designs) and not is_designed:
            new = ", ".join(member for member in members if member not in in_screen)
            existing = [guides_of.get(naming.key(member), [])[:n] or [""] * n for member in members]
            designs += [
                (", ".join(filter(None, parts)), "design" if new else "clone", new)
                for parts in islice(combined(existing), n)
            ]
        designs += [("", "design", ", ".join(members))] * n
        cells_of_construct = _evenly(n_cells, n)
        for i, (ids, status, new) in enumerate(designs[:n]):
            rows.append(
                (label, i + 1, kind, status, ids, new, ", ".join(genes), cells_of_construct[i])
            )
    names = [
        "perturbation",
        "construct",
        "kind",
        "status",
        "guides",
        "new_guides_of",
        "target_genes",
        "n_cells",
    ]
    table = pd.DataFrame(rows, columns=names).astype({"construct": int, "n_cells": int})
    is_advised = plate.set_index("perturbation")["is_advised"]
    table["is_advised"] = table["perturbation"].map(is_advised).to_numpy(bool)
    table = with_doses(table, naming) if kinds is COMPOUNDS else table
    texts = {name: strings(table[name]) for name in names if table[name].dtype == object}
    return table.assign(**texts)


def _evenly(n_cells: int, n: int) -> list[int]:
    """Return the cells of each of ``n`` constructs, divided evenly."""
    return np.diff(np.arange(n + 1) * n_cells // n).tolist()


def combined(lists: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Yield each combination of one item per list once, such that all items are used evenly.

    Examples
    --------
    >>> from nextpert.study.constructs import combined
    >>> [*combined([["a", "b"], ["1", "2", "3"]])]
    [('a', '1'), ('b', '2'), ('a', '3'), ('b', '1'), ('a', '2'), ('b', '3')]
    """
    longest = max(range(len(lists)), key=lambda i: len(lists[i]))
    ranges = [range(1 if i == longest else len(items)) for i, items in enumerate(lists)]
    for offsets in product(*ranges):
        for start in range(len(lists[longest])):
            yield tuple(
                items[(start + offset) % len(items)]
                for items, offset in zip(lists, offsets, strict=True)
            )


def digest_of_plan(plan: Mapping[str, Any]) -> str:
    """Return the digest of the parts of a plan from which a loading is computed.

    It is the same before and after saving to a file.
    """
    return digest_of({name: plan[name] for name in ("plate", "constructs")})
