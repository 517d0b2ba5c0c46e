"""``get.diagnosis_df``: the checks of a fit as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata import read_result
from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


@checked()
def diagnosis_df(adata: ad.AnnData, key: str = "diagnosis") -> pd.DataFrame:
    """Return the quantities of a diagnosis, part by part.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.diagnose`.
    key
        Result in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per ``quantity`` of a ``part``: its ``value``, in the unit that ``meaning`` states
        (most are fractions, correlations or ratios of errors, without a unit), ``standard_error``
        in the same unit, ``n`` (of what the value is computed), the ``rule`` and whether it
        ``passed`` (``"yes"``, ``"no"`` or empty), and the ``level`` of the part (``"trust"``,
        ``"care"``, ``"do not trust"``).

    Raises
    ------
    ValueError
        If there is no such result, or it is damaged.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=40, perturbed=4, expected_degree=2
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.diagnose(adata)
    >>> npt.get.diagnosis_df(adata).loc[:1, ["part", "quantity", "value", "passed"]]
        part       quantity  value passed
    0  cells  n_significant    4.0    yes
    1  cells     n_distinct    4.0    yes
    """
    stored = read_result(adata, key, "tl.diagnose", what="diagnosis", part="parts")
    table, parts = stored["summary"], stored["parts"]
    levels = dict(zip(parts["part"].astype(str), parts["level"].astype(str), strict=True))
    return table.assign(level=[levels.get(part, "") for part in table["part"].astype(str)])
