"""``Campaign``: propose a plate, observe its cells, propose the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert import _adata
from nextpert._adata.arguments import ANY_TEXT, checked
from nextpert.campaign.candidates import as_known, require_known
from nextpert.campaign.file import Stamp, read_campaign, write_campaign
from nextpert.campaign.options import checked_options
from nextpert.campaign.state import KEY, as_html, in_words, read_state, summary_table
from nextpert.campaign.steps import (
    marked_failed,
    marked_pending,
    observed,
    proposed,
    retried,
    started,
)
from nextpert.core._codec import pack

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import anndata as ad
    import numpy as np
    import pandas as pd

    from nextpert._adata.target import Target


class Campaign:
    """The loop of a lab: propose a plate, observe its cells, propose the next.

    A campaign holds a copy of the cells, the wanted state, and what is under way. It proposes
    plates by :func:`nextpert.tl.plan_screen`, takes up the cells that come back, whether or not
    they are what was proposed, and writes down what was proposed, why, when and with which
    versions and seed. One file keeps all of it.

    A combination is the set of its members: the plan's ``"GATA1+MYC"`` may come back labelled
    ``"MYC+GATA1"``.

    A step that fails changes nothing. The same steps on the same cells give the same plates, to
    the bit, however often the campaign was saved and loaded in between.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised, with labels; the roles of its columns are those of
        :func:`nextpert.pp.setup_screen`. What a campaign needs is copied: one matrix, and the
        columns with a role.
    target
        The wanted state, as in :func:`nextpert.tl.design_interventions`. A label excludes its own
        perturbation from the candidates, unless ``plan={"target_is_candidate": True}``.
    learn
        Options of :func:`nextpert.tl.learn_dag` as a mapping; ``None`` (default) stands for
        ``{"method": "boss", "environments": "all"}``. The graph is learned anew from all cells
        whenever some were observed.
    fit
        Options of :func:`nextpert.tl.fit_dag_blr`.
    plan
        Options of :func:`nextpert.tl.plan_screen` that hold for every plate, such as
        ``candidates`` or ``constraints``. What its ``"never"`` excludes is not ranked either. What
        a plate ``"must"`` hold is left out while it is under way, or failed.

    Raises
    ------
    ValueError
        If an option is unknown, or a call with them fails on these cells.
    TypeError
        If an option cannot be kept in a file.

    Examples
    --------
    >>> import tempfile
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=40, perturbed=4, expected_degree=2
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
    >>> campaign.mark_failed(list(campaign.pending), reason="too few cells")
    >>> len(campaign.pending), len(campaign.failed), later in campaign.failed
    (0, 1, False)
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
        target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Target,
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

        It is the campaign's own: copy it before changing cells.
        """
        return self._cells

    @property
    def target(self) -> Any:
        """The wanted state."""
        return self._state.target

    @property
    def pending(self) -> dict[str, int]:
        """Perturbations under way, with the number of cells expected of each."""
        return dict(self._state.pending)

    @property
    def failed(self) -> dict[str, str]:
        """Perturbations that failed and are not proposed, with the reason."""
        return dict(self._state.failed)

    @property
    def history(self) -> pd.DataFrame:
        """All that happened, one row a perturbation.

        ``round`` (number of plates proposed by then), ``action`` (``started``, ``proposed``,
        ``observed``, ``pending``, ``failed``, ``retried``), ``perturbation``, ``n_cells``; of what
        was proposed ``probability_best``, ``predicted_distance`` with its 90 % interval; ``why``;
        ``when`` (UTC), ``versions``, ``seed`` and ``options`` (JSON).
        """
        return self._state.history.copy()

    @checked()
    def propose(
        self,
        n_perturbations: int = 8,
        n_cells: int = 2000,
        *,
        aim: str = "best",
        rng: int | np.random.Generator | None = 0,
    ) -> pd.DataFrame:
        """Propose the next plate; its perturbations are pending from now on.

        Parameters
        ----------
        n_perturbations, n_cells, aim
            As in :func:`nextpert.tl.plan_screen`.
        rng
            Seed or generator. A seed is joined with the number of the plate.

        Returns
        -------
        pandas.DataFrame
            The plate, as in ``uns["plan"]["plate"]`` of :func:`nextpert.tl.plan_screen`.

        Raises
        ------
        ValueError
            If no candidate is left, or constraints contradict each other.
        """
        self._state = proposed(self._cells, self._state, n_perturbations, n_cells, aim, rng)
        plate: pd.DataFrame = self._cells.uns["plan"]["plate"].copy()
        return plate

    @checked()
    def observe(
        self, cells: ad.AnnData, *, batch: str | None = None, check_scale: bool = True
    ) -> None:
        """Take up new cells, and fit anew.

        Their perturbations are pending no more, whether or not they had been proposed. Genes may
        come in another order. Those of the panel must all be there; others that the new cells
        lack are left out of the campaign, and those that they have beyond are not read.

        Parameters
        ----------
        cells
            New cells x genes, with the same columns, layer and label of the controls.
        batch
            ``None`` (default): a new batch, or those that the cells' columns of batches name. A
            new batch is lined up by its own control cells, and needs some. The name of a batch,
            or ``"same"`` where all cells so far are of one and the new ones were handled
            together with them.
        check_scale
            Whether to refuse cells on another scale than those so far: counts, values that are
            not logged, or normalised to another depth. ``False`` takes them as they are.

        Raises
        ------
        ValueError
            If genes of the panel, columns, labels or the controls of a new batch are absent, the
            same cells were observed before, or their values are on another scale. The campaign
            stays as it was then.
        """
        self._cells, self._state = observed(
            self._cells, self._state, cells, batch, check_scale=check_scale
        )

    @checked()
    def mark_pending(self, perturbations: Iterable[str], n_cells: int = 100) -> None:
        """Count perturbations as under way that were not proposed here (ordered, in the freezer).

        Parameters
        ----------
        perturbations
            Labels, combinations included.
        n_cells
            Cells expected of each.

        Raises
        ------
        ValueError
            If a label is neither measured, nor a candidate, nor a gene of the panel.
        """
        names = self._names(perturbations)
        self._state = marked_pending(self._state, names, n_cells)

    @checked(reason=ANY_TEXT)
    def mark_failed(self, perturbations: Iterable[str], reason: str = "") -> None:
        """Note that perturbations failed: neither pending nor proposed until :meth:`retry`.

        Nor are combinations proposed that contain what failed.

        Parameters
        ----------
        perturbations
            Labels.
        reason
            Why, in words, for the history.

        Raises
        ------
        ValueError
            If a label is neither measured, nor a candidate, nor a gene of the panel.
        """
        names = self._names(perturbations)
        self._state = marked_failed(self._state, names, reason)

    @checked()
    def retry(self, perturbations: Iterable[str]) -> None:
        """Let perturbations that failed be proposed again.

        Parameters
        ----------
        perturbations
            Labels.

        Raises
        ------
        ValueError
            If one did not fail.
        """
        self._state = retried(self._state, self._names(perturbations))

    def summarize(self) -> pd.DataFrame:
        """Return what the campaign has come to, one row a round; 0 is what it started from.

        Returns
        -------
        pandas.DataFrame
            ``proposed``; ``n_observed`` (perturbations) and ``n_cells`` (controls too) of the
            round; ``failed``; and by the last fit of the round ``best``, the measured perturbation
            that is predicted to be the nearest (or no perturbation), with ``measured_distance`` (of
            the mean of its cells) and ``predicted_distance``, squared and as shares of the
            control's (NaN where that is not above 0); ``probability_best``, that it is the nearest
            of all candidates; ``expected_gain``, how much closer the best is expected to be after
            the next plate; ``good_enough``, the probability that none is closer by more than a
            tenth of the control's distance; and ``advice``, as of :func:`nextpert.tl.plan_cells`:
            ``"stop"``, ``"go on"``, ``"no difference"`` or ``"at target"``.
        """
        return summary_table(self._state, self._control)

    @checked()
    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the campaign as one h5ad or zarr, whole or not at all.

        Parameters
        ----------
        path
            Ends in ``.h5ad`` or ``.zarr``.

        Raises
        ------
        ValueError
            If ``path`` holds anything but an earlier state of this very campaign, as when somebody
            else has saved it since: load it again then, and repeat what you did.
        """
        _adata.write_results(self._cells, uns={KEY: pack(self._state)})
        self._stamps.append(write_campaign(self._cells, Path(path), self._stamps))

    @classmethod
    @checked()
    def load(cls, path: str | os.PathLike[str]) -> Campaign:
        """Load a campaign that :meth:`save` wrote.

        Parameters
        ----------
        path
            Its file.

        Returns
        -------
        Campaign

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it holds no campaign, or one of another version, or is cut or damaged anywhere.
        """
        cells, stamp = read_campaign(Path(path))
        out = cls.__new__(cls)
        out._cells, out._state, out._stamps = cells, read_state(cells), [stamp]
        return out

    def __repr__(self) -> str:
        return f"<{in_words(self._state, self._goal)}>"

    def _repr_html_(self) -> str:
        return as_html(self._state, self._control, self._goal)

    @property
    def _control(self) -> str:
        return str(self._cells.uns["screen"]["control"])

    @property
    def _goal(self) -> str:
        return str(self._cells.uns["design"]["params"]["target"])

    def _names(self, perturbations: Iterable[str]) -> list[str]:
        names = [str(name) for name in _adata.in_order(perturbations)]
        state, plan = self._state, self._state.options["plan"]
        require_known(self._cells, names, plan)
        return as_known(self._cells, names, [*state.pending, *state.failed], plan)
