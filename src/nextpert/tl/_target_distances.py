"""``tl.target_distances``: the distance of every perturbation's cells to a target state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked
from nextpert._adata.labels import say_left_out
from nextpert._adata.table import require_cells
from nextpert._adata.target import as_target, numbers_in_words
from nextpert._warn import warn
from nextpert.core.screen.mean_distance import distance_difference, mean_distance
from nextpert.tl._design_interventions.target import read_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad

    from nextpert._adata import LabelTable
    from nextpert._adata.target import Vector


COLUMNS = (
    "perturbation", "n_cells", "distance", "sd", "low", "high", "plug_in_distance",
    "relative_distance", "difference", "difference_low", "difference_high",
)  # fmt: skip


@checked(confidence=between(0, 1))
def target_distances(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector,
    *,
    genes: Iterable[str] | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    perturbations: Sequence[str] | None = None,
    confidence: float = 0.9,
    layer: str | None = None,
    key_added: str = "target_distances",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Measure the squared distance of every perturbation's mean to a target state.

    It describes measured cells, as in Fig. 6b of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0); :func:`design_interventions` predicts distances. The squared
    distance of two sample means is biased upwards by their variance, which is subtracted:

    .. math:: |\bar x - \bar x^*|^2 - \operatorname{tr} \Sigma / n
        - \operatorname{tr} \Sigma^* / n^*

    Intervals are score intervals (:func:`nextpert.core.screen.mean_distance.mean_distance`). Target
    genes count, unlike in :func:`design_interventions`. :func:`nextpert.pl.target_distances` plots
    the table.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    target
        A label, a pair ``(obs key, value)``, a mapping gene -> mean (only these genes then count),
        or a vector of means of ``genes``. Cells of a target group count only as target.
    genes
        The genes to use; by default all.
    perturbation_key, control, layer
        Column of labels, label of the controls, and layer; ``None`` takes the declared ones, or
        ``"perturbation"``, ``"control"`` and ``adata.X``.
    perturbations
        Labels to measure in addition to ``control``; by default all.
    confidence
        Coverage of each interval. Distances share the error of the target's mean: to compare with
        the controls, use ``difference``.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["target_distances"]`` with:

        - ``table`` (table): one row per perturbation, nearest first: ``distance`` (squared units of
          the data) with its interval, and ``difference`` from the control's distance.
        - ``target`` (text): the name of the target.
        - ``n_target_cells`` (number): its cells; 0 for a mapping.
        - ``genes`` (names, ``(n_genes,)``): the genes of the distance.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If a name is unknown, the target or the controls have fewer than 2 cells, or a value is not
        finite; TypeError if ``target`` is of another kind. Nothing is written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.target_distances(adata, "UBR5")
    >>> table = adata.uns["target_distances"]["table"]
    >>> table[["perturbation", "distance", "low", "high"]].head(3).round(2)
      perturbation  distance   low  high
    0          MYC      0.82  0.51  1.32
    1         OXR1      0.97  0.62  1.50
    2         STK3      1.25  0.80  1.93
    """
    require_cells(adata, "target_distances")
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    perturbations = None if perturbations is None else _adata.in_order(perturbations)
    labels = _adata.read_perturbations(adata, roles, named=perturbations)
    _adata.require_control(labels, roles.control)
    _adata.say_pooled(labels)
    if perturbations is None:
        say_left_out(labels.left_out, roles.perturbation_key)
    given = as_target(target)
    if isinstance(given.state, np.ndarray):
        panel, _ = _adata.resolve_panel(adata, genes, gene_symbols=roles.gene_symbols)
        given, genes = as_target(given, panel), None
    state, group, mean = given.state, None, None
    if isinstance(state, (Mapping, pd.Series)):
        if genes is not None:
            message = "A target that is a mapping already names the genes: do not pass genes."
            raise ValueError(message)
        genes = [str(gene) for gene, _ in state.items()]
        mean = np.array([float(value) for _, value in state.items()])
        name = numbers_in_words(state, "=")
    else:
        group = read_group(adata, state, roles)
        name = group.name
    names, columns = _adata.resolve_panel(adata, genes, gene_symbols=roles.gene_symbols)
    own = None if group is None else group.label
    rows = _rows(labels, perturbations, roles.control, own)
    codes = labels.groups(rows)
    if group is not None:
        codes[group.codes == 0] = len(rows)
    counts = np.bincount(codes[codes >= 0], minlength=len(rows) + 1)
    has_control = roles.control != own  # in the first row then
    short = ""
    if group is not None and counts[-1] < 2:
        short = f"the target {name!r} has {counts[-1]}"
    elif has_control and counts[0] < 2:
        short = f"control {roles.control!r} has {counts[0]} outside the target"
    if short:
        message = f"At least 2 cells are needed to estimate the variance of a mean, but {short}."
        raise ValueError(message)
    _adata.check_scale(adata, columns, np.flatnonzero(codes >= 0), roles, only_warn=True)
    grouping = codes, len(rows) + 1
    (cells,), batches = _adata.read_groupings(adata, columns, [grouping], roles)
    errors = np.zeros((len(rows) + 1, 0))
    # Errors of the means of batches, for each perturbation and the target.
    if batches is not None:
        errors = batches.errors(codes, len(rows) + 1)
    goal: Any = cells[-1] if mean is None else mean
    records: list[tuple[Any, ...]] = []
    for i in (i for i in range(len(rows)) if counts[i] >= 2):
        x = mean_distance(cells[i], goal, confidence=confidence, errors=errors[[i, -1]])
        difference: Any = (np.nan,) * 3
        if i and has_control:
            difference = distance_difference(
                cells[i], cells[0], goal, confidence=confidence, errors=errors[[i, 0, -1]]
            )
        of_control = records[0][2] if records else x.estimate
        relative = x.estimate / of_control if has_control and of_control > 0 else np.nan
        known = (x.estimate, x.sd, x.low, x.high, x.plug_in, relative)
        records.append((rows[i], int(counts[i]), *known, *difference))
    table = pd.DataFrame(records, columns=COLUMNS)
    table = table.assign(perturbation=_adata.strings(table["perturbation"]))
    table = table.sort_values("distance", kind="stable", ignore_index=True)
    few = [row for row, count in zip(rows, counts, strict=False) if count < 2]
    if few:
        message = (
            f"Perturbations with fewer than 2 cells outside the target are left out: "
            f"{_adata.list_names(few)}."
        )
        warn(message)
    stored = {
        "table": table,
        "target": name,
        "n_target_cells": int(counts[-1]),
        "genes": _adata.strings(names),
        "params": {**roles.stored(), "confidence": float(confidence)},
    }
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


def _rows(
    labels: LabelTable, perturbations: Sequence[str] | None, control: str, label: str | None
) -> list[str]:
    """Return the labels to measure: the control first, and without the target's own label."""
    chosen = labels.names
    if perturbations is not None:
        chosen = labels.spelled(map(str, perturbations))
        labels.require(chosen, "Perturbations")
    rows = [name for name in dict.fromkeys([control, *chosen]) if name != label]
    if not rows:
        message = f"There is no label other than that of the target, {label!r}: label more cells."
        raise ValueError(message)
    return rows
