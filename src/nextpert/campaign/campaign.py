"""``Campaign``: propose a round, observe its cells, propose the next round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert import _adata
from nextpert._adata.arguments import ANY_TEXT, checked
from nextpert._warn import warn
from nextpert.campaign.candidates import known_names
from nextpert.campaign.file import Stamp, read_campaign, write_campaign
from nextpert.campaign.state import (
    KEY,
    as_text,
    changes,
    checked_options,
    read_state,
    require_cells,
    summary_table,
)
from nextpert.campaign.steps import marked, observed, proposed, started
from nextpert.core._codec import pack

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import anndata as ad
    import numpy as np
    import pandas as pd

    from nextpert.study.target import Target, Vector


class Campaign:
    """Run a campaign: propose a round, observe its cells, propose the next round.

    A campaign contains a copy of the cells, the target state, and the perturbations in progress. It
    proposes rounds with :func:`nextpert.tl.plan_screen`, and adds new cells, proposed or not. It
    records each proposal with its reason, time, versions and seed, and is saved as one file. A step
    that fails changes nothing. The same steps on the same cells give identical rounds.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised, with labels; the roles of its columns are those of
        :func:`nextpert.pp.setup_screen`. One matrix and the columns with a role are copied.
    target
        The target state, as in :func:`nextpert.tl.design_interventions`. If it is a label, that
        perturbation is excluded from the candidates, unless ``plan`` names it in ``candidates``.
    learn
        Options of :func:`nextpert.tl.learn_dag` as a mapping; ``None`` (default) stands for
        ``{"method": "boss", "environments": "all"}``. The graph is learned again from all cells
        whenever new cells are observed.
    fit
        Options of :func:`nextpert.tl.fit_dag_blr`.
    plan
        Options of :func:`nextpert.tl.plan_screen` for every round, such as ``candidates`` or
        ``constraints``. Excluded perturbations are not ranked either. Perturbations in
        ``"include"`` are left out while they are in progress or marked as failed.

    Raises
    ------
    ValueError
        If an option is unknown, or a call with these options fails on these cells.
    TypeError
        If an option cannot be saved in a file.

    Examples
    --------
    >>> import tempfile
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=40, perturbed=4, expected_degree=2, rng=1
    ... )
    >>> labels = adata.obs["perturbation"]
    >>> first, later = labels.unique()[1:3]
    >>> campaign = npt.Campaign(adata[labels != later].copy(), first, plan={"candidates": "genes"})
    >>> plate = campaign.propose(n_perturbations=2, n_cells=200)
    >>> sorted(campaign.pending) == sorted(plate["perturbation"][:2])
    True
    >>> campaign.observe(adata[labels == later].copy(), batch="same")
    >>> campaign.summarize()["n_observed"].tolist()
    [3, 1]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     campaign.save(f"{folder}/screen.h5ad")
    ...     again = npt.Campaign.load(f"{folder}/screen.h5ad")
    >>> again.propose(2, 200).equals(campaign.propose(2, 200))
    True
    """

    @checked()
    def __init__(
        self,
        adata: ad.AnnData,
        target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
        *,
        learn: Mapping[str, Any] | None = None,
        fit: Mapping[str, Any] | None = None,
        plan: Mapping[str, Any] | None = None,
    ) -> None:
        self._cells, self._state = started(adata, target, checked_options(learn, fit, plan))
        self._stamps: list[Stamp] = []

    @property
    def adata(self) -> ad.AnnData:
        """All cells so far, with graph, posterior, ranking and the last plan, for tools and plots.

        It is not a copy: copy it before changing cells.
        """
        return self._cells

    @property
    def target(self) -> Any:
        """The target state."""
        return self._state.target

    @property
    def pending(self) -> dict[str, int]:
        """Perturbations in progress, with the expected number of cells of each."""
        return dict(self._state.pending)

    @property
    def failed(self) -> dict[str, str]:
        """Perturbations that failed and are not proposed, with the reason."""
        return dict(self._state.failed)

    @property
    def history(self) -> pd.DataFrame:
        """All events, one row per perturbation.

        Columns are ``round`` (number of rounds proposed by then), ``action`` (``started``,
        ``proposed``, ``observed``, ``pending``, ``failed``, ``retried``), ``perturbation``,
        ``n_cells``, ``why``, ``when`` (UTC), ``versions``, ``seed`` and ``options`` (JSON).
        Proposals also have ``probability_best``, and ``predicted_distance`` with its 90% interval.
        """
        return self._state.history.copy()

    @checked()
    def propose(
        self,
        n_perturbations: int = 8,
        n_cells: int = 2000,
        *,
        strategy: str = "advised",
        rng: int | np.random.Generator | None = 0,
    ) -> pd.DataFrame:
        """Propose the next round, whose perturbations become pending.

        Parameters
        ----------
        n_perturbations, n_cells, strategy
            As in :func:`nextpert.tl.plan_screen`.
        rng
            Seed or generator. A seed is combined with the number of the round.

        Returns
        -------
        pandas.DataFrame
            The round, as in ``uns["plan"]["plate"]`` of :func:`nextpert.tl.plan_screen`. It is
            empty if the advice is to stop; ``adata.uns["plan"]["advice"]`` states the reason.

        Raises
        ------
        ValueError
            If no candidate is left, or constraints contradict each other.
        """
        self._state = proposed(self._cells, self._state, n_perturbations, n_cells, strategy, rng)
        plate: pd.DataFrame = self._cells.uns["plan"]["plate"].copy()
        return plate

    @checked()
    def observe(
        self, cells: ad.AnnData, *, batch: str | None = None, check_scale: bool = True
    ) -> None:
        """Add new cells, and fit again.

        Their perturbations are no longer pending or failed. Genes may be in another order. All
        genes of the panel must be present. Other genes that the new cells lack are removed from the
        campaign, and genes that only the new cells have are not read.

        Parameters
        ----------
        cells
            New cells x genes, with the same columns, layer and label of the controls.
        batch
            ``None`` (default): the batches in the columns of the new cells or, without such
            columns, one new batch. A new batch needs control cells, by which it is aligned. Or the
            name of a batch; or ``"same"``, if all cells so far are from one batch and the new cells
            were processed together with them.
        check_scale
            Whether to raise an error if the scale of the new cells differs from that of the cells
            so far (counts, values without a logarithm, another depth). ``False`` uses the values as
            they are.

        Raises
        ------
        ValueError
            If genes of the panel, columns, labels or the controls of a new batch are absent, the
            same cells were observed before, or their values are on another scale. The campaign is
            not changed on error.
        """
        self._cells, self._state = observed(
            self._cells, self._state, cells, batch, check_scale=check_scale
        )

    @checked()
    def mark_pending(self, perturbations: Iterable[str], n_cells: int = 100) -> None:
        """Mark perturbations as in progress that were not proposed by this campaign.

        Parameters
        ----------
        perturbations
            Labels, including combinations.
        n_cells
            Expected number of cells of each.
        """
        names = self._names(perturbations)
        state = marked(self._state, "pending", names, n_cells=n_cells)
        self._state = replace(state, pending=state.pending | dict.fromkeys(names, n_cells))

    @checked(reason=ANY_TEXT)
    def mark_failed(self, perturbations: Iterable[str], reason: str = "") -> None:
        """Mark perturbations as failed; they are not proposed again before :meth:`Campaign.retry`.

        They are no longer pending. Combinations that contain them are not proposed either.

        Parameters
        ----------
        perturbations
            Labels.
        reason
            Why they failed, for the history.
        """
        names = self._names(perturbations)
        state = marked(self._state, "failed", names, why=reason)
        self._state = replace(state, failed=state.failed | dict.fromkeys(names, reason))

    @checked()
    def retry(self, perturbations: Iterable[str]) -> None:
        """Allow perturbations that failed to be proposed again.

        Parameters
        ----------
        perturbations
            Labels; those that are not marked as failed are ignored.
        """
        names = [x for x in self._names(perturbations) if x in self._state.failed]
        self._state = marked(self._state, "retried", names)

    def summarize(self) -> pd.DataFrame:
        """Return a summary of the campaign, one row per round; 0 is the start.

        Returns
        -------
        pandas.DataFrame
            Columns of the round are ``proposed``, ``n_observed`` (perturbations), ``n_cells``
            (controls included) and ``failed``. Columns of its last fit are ``best``, the measured
            perturbation that is predicted to be the nearest (or no perturbation);
            ``relative_measured_distance`` (of the mean of its cells) and ``relative_distance``
            (predicted), squared distances divided by the control's (NaN if that is not above 0);
            ``probability_best``, the probability that it is the nearest of all candidates;
            ``expected_gain``, the expected decrease of the best distance after the next round,
            relative to the control's; ``good_enough``, the probability that no candidate is closer
            by more than a tenth of the control's distance; and ``advice``, its kind as in
            :func:`nextpert.tl.plan_cells`.
        """
        if changed := changes(self._cells):
            warn(f"{changed}: start another campaign from the changed cells.")
        return summary_table(self._state, self._cells)

    @checked()
    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the campaign as one h5ad file, completely or not at all.

        Parameters
        ----------
        path
            A file that ends in ``.h5ad``.

        Raises
        ------
        ValueError
            If the file exists and is not an earlier state of this campaign, for example because
            another user has saved it since: then load it again, and repeat your steps.
        """
        _adata.write_results(self._cells, uns={KEY: pack(self._state)})
        self._stamps.append(write_campaign(self._cells, Path(path), self._stamps))

    @classmethod
    @checked()
    def load(cls, path: str | os.PathLike[str]) -> Campaign:
        """Load a campaign that :meth:`Campaign.save` wrote.

        Parameters
        ----------
        path
            The file.

        Raises
        ------
        ValueError
            If the file is not a campaign, is of another version, or is truncated or damaged.
        """
        cells, stamp = read_campaign(Path(path))
        require_cells(cells, str(path))
        out = cls.__new__(cls)
        out._cells = cells
        out._state = read_state(cells)
        out._stamps = [stamp]
        return out

    def __repr__(self) -> str:
        return as_text(self._state, self._cells)

    def _names(self, perturbations: Iterable[str]) -> list[str]:
        names = [str(name) for name in _adata.in_order(perturbations)]
        state = self._state
        underway = [*state.pending, *state.failed]
        return known_names(self._cells, names, underway, state.options["plan"])
