"""Guides to perturbations: what a cell's guides target, and which of them are controls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from nextpert._adata import list_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NO_GUIDE, CONTROL_GUIDE = "no_guide", "control_guide"
_KINDS = {"NO_SITE": "no_site", "ONE_NON-GENE_SITE": "one_non-gene_site"}
_GUIDE = re.compile(r"(?P<target>.+)_\d+")


def guide_table(guides: Iterable[str], where: str) -> pd.DataFrame:
    """Return target and kind of every guide, sorted by name.

    Guides are named ``TARGET_<number>``; gene names hold dashes, control names underscores.
    """
    names = sorted(set(guides))
    found = [_GUIDE.fullmatch(name) for name in names]
    unclear = [name for name, match in zip(names, found, strict=True) if match is None]
    if unclear:
        message = (
            f"{where} holds guides that are not named 'TARGET_<number>': {list_names(unclear)}. "
            "Is this the study's list of guides?"
        )
        raise ValueError(message)
    stems = [match["target"] for match in found if match is not None]
    kinds = [_KINDS.get(stem, "targeting") for stem in stems]
    targets = ["" if stem in _KINDS else stem for stem in stems]
    index = pd.Index(names, name="guide")
    return pd.DataFrame({"target": targets, "kind": pd.Categorical(kinds)}, index=index)


def perturbation_columns(guides: Sequence[Sequence[str]], table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of ``obs`` that follow from every cell's guides.

    ``perturbation`` joins the sorted targets by ``+``; control guides beside targeting ones do
    not enter it.
    """
    target = dict(zip(table.index, table["target"], strict=True))
    hit = [sorted({target[name] for name in some} - {""}) for some in guides]
    labels = [
        "+".join(names) if names else CONTROL_GUIDE if some else NO_GUIDE
        for names, some in zip(hit, guides, strict=True)
    ]
    return pd.DataFrame(
        {
            "guides": pd.Categorical([",".join(some) for some in guides]),
            "perturbation": pd.Categorical(labels),
            "n_guides": [len(some) for some in guides],
            "n_targets": [len(names) for names in hit],
        }
    )
