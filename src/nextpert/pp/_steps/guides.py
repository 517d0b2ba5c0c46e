"""Lists of guides: what they target, and how many a cell carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names, strings
from nextpert._adata.labels import MISSING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

# Names under which screens keep their control guides, in lower case.
CONTROL_TARGETS = (
    "control", "negative_control", "no_site", "non-targeting", "non_targeting", "nontargeting",
    "nt", "ntc", "one_non-gene_site", "safe-targeting", "scramble", "scrambled",
)  # fmt: skip
# Of these the study of Perturb-CITE-seq has two kinds, which it tells apart.
_KINDS = ("no_site", "one_non-gene_site")
TARGETING = "targeting"


@dataclass(frozen=True)
class GuideSets:
    """The different sets of guides of a screen, and the set of every cell.

    Parameters
    ----------
    codes
        Position of every cell's set, shape ``(n_cells,)``.
    names
        The guides of each set, joined.
    n_guides
        Number of guides of each set.
    targets
        Targets of each set, sorted, control guides left aside.
    kinds
        ``"none"``, ``"targeting"``, or the kind of the control guides where there are no others.
    """

    codes: NDArray[np.int64]
    names: list[str]
    n_guides: NDArray[np.int64]
    targets: list[tuple[str, ...]]
    kinds: list[str]

    def cells(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        """Return for every cell the value of its set."""
        return np.asarray(values)[self.codes]


def default_target(guide: str) -> str:
    """Return what stands before the last underscore: ``"HLA-A_2"`` targets ``"HLA-A"``."""
    return guide.rsplit("_", 1)[0]


def guide_table(
    guides: Iterable[str],
    target_of: Mapping[str, str] | Callable[[str], str] | None = None,
    control_guides: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return one row a guide: ``target`` (empty for control guides) and ``kind``.

    Raises
    ------
    ValueError
        If a guide that is not named as a control guide has no target, or a control guide is no
        guide and no target.
    """
    names = [str(guide) for guide in guides]
    look_up = target_of.get if isinstance(target_of, Mapping) else target_of or default_target
    # Missing values of any kind (None, NaN, pandas.NA) read as in tables.
    targets = [str(look_up(name)).strip() for name in names]
    controls = _control_names(names, targets, control_guides)
    without = [
        name
        for name, target in zip(names, targets, strict=True)
        if target.lower() in MISSING and controls.isdisjoint((name, target))
    ]
    if without:
        message = (
            f"Guides without a target: {list_names(without)}. Give each one with target_of, or "
            f"name it in control_guides if it is a control guide."
        )
        raise ValueError(message)
    kinds = []
    for name, target in zip(names, targets, strict=True):
        low = target.lower()
        is_control = name in controls or target in controls
        is_control = is_control or (control_guides is None and low in CONTROL_TARGETS)
        kinds.append(TARGETING if not is_control else low if low in _KINDS else "control")
    shown = ["" if k != TARGETING else t for t, k in zip(targets, kinds, strict=True)]
    return pd.DataFrame(
        {"target": strings(shown), "kind": strings(kinds)}, index=pd.Index(strings(names))
    )


def _control_names(
    names: list[str], targets: list[str], control_guides: Iterable[str] | None
) -> set[str]:
    if control_guides is None:
        return set()
    controls = {str(name) for name in control_guides}
    unknown = sorted(controls.difference(names, targets))
    if unknown:
        message = (
            f"control_guides names no guide and no target of a guide: {list_names(unknown)}."
            f"{closest(unknown, [*targets, *names])}"
        )
        raise ValueError(message)
    return controls


def split_lists(lists: pd.Series, separator: str) -> tuple[NDArray[np.int64], list[list[str]]]:
    """Return for every cell the position of its list of guides, and the different lists."""
    if hasattr(lists, "to_series"):  # obs of anndata.experimental.read_lazy
        lists = lists.to_series()
    text = lists.astype(object).where(lists.notna(), "").astype(str)
    codes, found = pd.factorize(text.to_numpy(dtype=object), sort=True)
    parts = [[part.strip() for part in str(joined).split(separator)] for joined in found]
    split = [[part for part in each if part.lower() not in MISSING] for each in parts]
    return codes.astype(np.int64), split


def guide_sets(
    codes: NDArray[np.int64], lists: Sequence[Sequence[str]], table: pd.DataFrame, separator: str
) -> GuideSets:
    """Look up the guides of every list.

    Raises
    ------
    ValueError
        If a guide is not in the table, or twice in it.
    """
    twice = table.index[table.index.duplicated()]
    unknown = sorted({guide for each in lists for guide in each}.difference(table.index))
    if len(twice) or unknown:
        message = (
            f"The table of guides names guides twice: {list_names(twice)}."
            if len(twice)
            else f"Guides that are not in the table of guides: {list_names(unknown)}."
            f"{closest(unknown[:3], table.index)}"
        )
        raise ValueError(message)
    kind_of = dict(zip(table.index, table["kind"].astype(str), strict=True))
    target_of = dict(zip(table.index, table["target"].astype(str), strict=True))
    targets, kinds = [], []
    for each in lists:
        aimed = [guide for guide in each if kind_of[guide] == TARGETING]
        targets.append(tuple(sorted({target_of[guide] for guide in aimed})))
        others = sorted({kind_of[guide] for guide in each})
        kinds.append(TARGETING if aimed else "+".join(others) or "none")
    return GuideSets(
        codes,
        [separator.join(each) for each in lists],
        np.array([len(each) for each in lists], dtype=np.int64),
        targets,
        kinds,
    )


def cell_guides(adata: ad.AnnData, key: str, separator: str, table_key: str) -> GuideSets:
    """Return the guides of ``adata.obs[key]``, looked up in ``adata.uns[table_key]``.

    Without that table, targets follow from the guides' names.
    """
    if key not in adata.obs.columns:
        columns = [str(column) for column in adata.obs.columns]
        message = (
            f"adata.obs has no column {key!r} with the guides of every cell."
            f"{closest([key], columns)} Load the study with datasets.perturb_cite_seq, call "
            f"pp.assign_guides first, or name the column with guides_key."
        )
        raise ValueError(message)
    codes, lists = split_lists(adata.obs[key], separator)
    table = adata.uns.get(table_key)
    if not isinstance(table, pd.DataFrame):
        table = guide_table(sorted({guide for each in lists for guide in each}))
    elif not {"target", "kind"} <= set(table.columns):
        message = f"adata.uns[{table_key!r}] must hold the columns 'target' and 'kind'."
        raise ValueError(message)
    return guide_sets(codes, lists, table, separator)
