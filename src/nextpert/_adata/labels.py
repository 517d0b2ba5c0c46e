"""Perturbation labels: which cells bear them, and which genes they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.panel import closest, list_names

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import anndata as ad
    from numpy.typing import NDArray


# Labels of cells that no guide, or more than one, was found in.
NO_PERTURBATION = ("unassigned", "multi", "no_guide", "control_guide")


@dataclass(frozen=True)
class LabelTable:
    """The labels of one column of ``.obs``.

    Parameters
    ----------
    key
        Column of ``.obs``.
    names
        All labels that some cell bears, sorted.
    codes
        Position in ``names`` of every cell's label, shape ``(n_cells,)``; ``-1`` for none.
    """

    key: str
    names: list[str]
    codes: NDArray[np.int64]

    def groups(self, wanted: Sequence[str]) -> NDArray[np.int64]:
        """Return for every cell the position of its label in ``wanted``, ``-1`` for others."""
        place = {name: i for i, name in enumerate(wanted)}
        lookup = np.array([place.get(name, -1) for name in self.names] + [-1], dtype=np.int64)
        return lookup[self.codes]

    def n_cells(self, name: str) -> int:
        """Return the number of cells that bear a label."""
        return int(np.sum(self.groups([name]) == 0))

    def require(self, wanted: Sequence[str], what: str) -> None:
        """Raise if some of ``wanted`` are borne by no cell; close matches are given."""
        unknown = [name for name in wanted if name not in self.names]
        if unknown:
            message = (
                f"{what} not found in adata.obs[{self.key!r}]: {list_names(unknown)}."
                f"{closest(unknown, self.names)} The column holds {list_names(self.names)}."
            )
            raise ValueError(message)


def read_labels(adata: ad.AnnData, key: str, *, argument: str = "perturbation_key") -> LabelTable:
    """Return the labels in ``adata.obs[key]``; missing values count as no label.

    Raises
    ------
    ValueError
        If the column is absent; the columns there are named.
    """
    if key not in adata.obs.columns:
        columns = [str(column) for column in adata.obs.columns]
        message = (
            f"adata.obs has no column {key!r}.{closest([str(key)], columns)} It holds "
            f"{list_names(columns) or 'no column'}: name the column of labels with {argument}."
        )
        raise ValueError(message)
    column = column_of(adata, key)
    first, values = pd.factorize(column, use_na_sentinel=True)  # a million strings are made once
    text = np.array([str(value) for value in values], dtype=object)
    again, names = pd.factorize(text, sort=True)  # 1 and "1" are one label
    codes = np.append(again, -1)[first].astype(np.int64)
    return LabelTable(str(key), [str(name) for name in names], codes)


def column_of(adata: ad.AnnData, key: str) -> pd.Series:
    """Return a column of ``obs`` in memory."""
    column = adata.obs[key]
    # That of anndata.experimental.read_lazy is not.
    return column.to_series() if hasattr(column, "to_series") else column


def require_label(value: Any, name: str = "control") -> None:
    """Raise unless ``value`` can be a label: a string that is not empty."""
    message = f"{name} must be a label, a string that is not empty, but is {value!r}."
    if not isinstance(value, str):
        raise TypeError(message)
    if not value:
        raise ValueError(message)


def require_control(labels: LabelTable, control: str) -> None:
    """Raise if no cell bears the label of the controls."""
    require_label(control)
    if control not in labels.names:
        message = (
            f"No control cells: no cell has adata.obs[{labels.key!r}] == {control!r}."
            f"{closest([control], labels.names)} The column holds {list_names(labels.names)}: "
            f"name the label of the unperturbed cells with control."
        )
        raise ValueError(message)


def parse_label(
    label: str, genes: Container[str], *, separator: str = "+", control: str = "control"
) -> tuple[list[str], list[str]]:
    """Return the genes a label targets, and those of its parts that are no gene of ``genes``.

    A label that is itself a gene is never split, and a part that is the label of the controls
    says nothing (``"MYC+control"`` targets MYC alone).

    Examples
    --------
    >>> from nextpert._adata import parse_label
    >>> parse_label("MYC+HS2", {"MYC", "STK3"})
    (['MYC'], ['HS2'])
    """
    if label in genes or not separator:
        parts = [label]
    else:
        parts = [part.strip() for part in label.split(separator)]
    named = [part for part in dict.fromkeys(parts) if part and part != control]
    return [part for part in named if part in genes], [part for part in named if part not in genes]
