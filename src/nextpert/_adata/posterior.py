"""The posterior that ``tl.fit_dag_blr`` left in ``.uns``, and whether it still holds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.fingerprint import as_fingerprint, fingerprint_weights
from nextpert._adata.fit_record import read_fit
from nextpert._adata.graph import panel_of, read_graph, require_same_panel, symbols_of
from nextpert._adata.labels import read_labels
from nextpert._adata.members import Naming
from nextpert._adata.panel import list_names, resolve_panel
from nextpert._adata.read import read_sums
from nextpert._adata.stored import read_stored
from nextpert.core.effects.alike import effects_alike
from nextpert.core.effects.averaged import Averaged
from nextpert.core.effects.together import learn_together
from nextpert.core.posterior.pair_shifts import pair_shifts
from nextpert.core.predict.ranked_distance import expected_states

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert._adata.expectation import Expectation
    from nextpert._adata.fit_record import FitRecord
    from nextpert._adata.read import Checksum
    from nextpert.core import DagBlr
    from nextpert.core.effects.alike import Alike
    from nextpert.core.effects.shift_prior import ShiftPrior
    from nextpert.core.posterior.shift_posterior import ShiftPosterior


@dataclass(frozen=True)
class FittedPosterior:
    """What ``adata.uns[key]`` holds, ready for use.

    Parameters
    ----------
    blr
        The posterior over the weights.
    genes
        Genes of the panel, in the order of the posterior's nodes.
    columns
        Their columns in ``adata``, shape ``(n_genes,)``.
    control_mean
        Mean expression of the control cells, shape ``(n_genes,)``, log-normalised.
    environments
        One row a perturbation the fit used: name, target genes, cells, shift, its source.
    targets
        Their target genes.
    shifts
        Their shifts, shape ``(n_environments, n_genes)``, log-normalised.
    n_control_cells
        Number of control cells the fit used.
    cells
        Fingerprint of the cells of the fit; empty where none was stored.
    params
        Parameters of the fit.
    ensemble
        The posteriors on the graphs of resamples, of equal weight; empty where there is one graph.
    shift_prior
        What was expected of the shift of every perturbation, and the means of its cells.
    expectation
        What to expect of perturbations without cells; ``None`` where nothing was learned of it.
    averaged
        The perturbations by the models that what is measured is averaged over.
    efficacy
        Mean and standard deviation of what part of a full shift a new perturbation achieves;
        ``None`` where shifts are exact or a table.
    guide_variance
        Variance between guides over the noise variance, 0 where it was not learned.
    """

    blr: DagBlr
    genes: list[str]
    columns: NDArray[np.int64]
    control_mean: NDArray[np.float64]
    environments: pd.DataFrame
    targets: list[list[str]]
    shifts: NDArray[np.float64]
    n_control_cells: int
    cells: str
    params: dict[str, Any]
    ensemble: list[DagBlr]
    shift_prior: ShiftPrior
    expectation: Expectation | None
    averaged: Averaged
    efficacy: tuple[float, float] | None
    guide_variance: float

    @cached_property
    def naming(self) -> Naming:
        """Which labels name the same perturbation."""
        return Naming(
            frozenset(self.genes), str(self.params["separator"]), str(self.params["control"])
        )

    def spelled(self, labels: Iterable[str]) -> list[str]:
        """Return labels as the cells have them, or the screen that effects are known from."""
        other = () if self.expectation is None else self.expectation.other
        return self.naming.spelled(labels, [*self.environments["perturbation"].astype(str), *other])

    @property
    def posteriors(self) -> list[DagBlr]:
        """The posteriors on all graphs, the empty one among them where it has a weight."""
        return self.averaged.posteriors

    def known(self, prior: Averaged | ShiftPrior) -> list[ShiftPosterior]:
        """Return what is known of shifts on each of these graphs, and what each counts for."""
        asked = prior if isinstance(prior, Averaged) else self.averaged.on_graph(prior)
        known, alike = asked.known(), self._alike
        if alike is None:
            return known
        effects, together = alike
        triples = zip(known, asked.posteriors, together, strict=True)
        return [effects.told(*each) for each in triples]

    @cached_property
    def _alike(self) -> tuple[Alike, list[float]] | None:
        """How effects go together, and how far sizes of shifts do on each graph.

        ``None`` where fewer than three perturbations tell of it.
        """
        seen = np.flatnonzero(self.averaged.main.n > 0)
        if len(seen) < 3 or self.averaged.main.is_exact:
            return None
        models = self.averaged.rows(seen)
        states = expected_states(pair_shifts(models.posteriors, models.known()))
        sd = np.sqrt(models.posteriors[-1].noise_var)
        pairs = zip(models.priors, models.posteriors, strict=True)
        together = [learn_together(prior, blr) for prior, blr in pairs]
        return effects_alike(states[:-1] - states[-1], sd), together


def posterior_from(
    adata: ad.AnnData, key: str = "dag_blr", *, compare: bool = True
) -> FittedPosterior:
    """Return the posterior in ``adata.uns[key]``; with ``compare`` warn if cells have changed.

    Calls that read all cells anyway compare them on the way (:func:`warn_of_changed_cells`).

    Raises
    ------
    ValueError
        If there is none, or if it belongs to another gene panel than ``adata``, or than the
        graph it was fitted on has by now; the genes are named.
    """
    if not hasattr(adata.uns.get(key), "keys") or "posterior" not in adata.uns[key]:
        message = f"adata.uns has no posterior {key!r}: run tl.fit_dag_blr first."
        raise ValueError(message)
    stored = read_stored(adata, key, "tl.fit_dag_blr")
    fit = read_fit(stored, f"adata.uns[{key!r}]")
    symbols = symbols_of(stored)
    require_same_panel(adata, fit.genes, f"uns[{key!r}]", "tl.fit_dag_blr", symbols)
    _, columns = resolve_panel(adata, fit.genes, gene_symbols=symbols)
    _compare_with_graph(adata, key, fit.genes, symbols, fit.posterior, str(fit.params["dag_key"]))
    found = posterior_of(fit, columns)
    if compare:
        weights = checksum_of_cells(adata, found)
        layer = found.params.get("layer")
        number = 0
        if weights is not None:
            _, number = read_sums(adata, columns, [], checksum=weights, layer=layer)
        warn_of_changed_cells(adata, found, key, number, stacklevel=4)
    return found


def posterior_of(fit: FitRecord, columns: NDArray[np.int64]) -> FittedPosterior:
    """Return what a fit holds, ready for use, whether or not it was ever stored.

    ``columns`` are those of its genes in the data, shape ``(n_genes,)``.
    """
    return FittedPosterior(
        blr=fit.posterior,
        genes=fit.genes,
        columns=columns,
        control_mean=fit.control_mean,
        environments=fit.environments,
        targets=fit.targets,
        shifts=fit.shifts,
        n_control_cells=fit.n_control_cells,
        cells=" ".join(map(str, (fit.cells or {}).values())),
        params=fit.params,
        ensemble=fit.ensemble or [],
        expectation=fit.expectation,
        efficacy=None if fit.efficacy is None else (fit.efficacy.mean, fit.efficacy.sd),
        guide_variance=fit.guide_variance or 0.0,
        shift_prior=fit.prior,
        averaged=fit.averaged,
    )


def _compare_with_graph(
    adata: ad.AnnData, key: str, genes: list[str], symbols: str | None, blr: DagBlr, dag_key: str
) -> None:
    stored = adata.uns.get(dag_key, {})
    now = panel_of(stored)
    if now is None or dag_key not in adata.varp:
        return  # a graph put in by hand, or since deleted: nothing to compare with
    if symbols != symbols_of(stored):
        now, _, _ = read_graph(adata, dag_key, symbols)
    differ = sorted(set(now) ^ set(genes))
    if differ:
        message = (
            f"adata.uns[{key!r}] was fitted on another gene panel than that of the graph in "
            f"adata.uns[{dag_key!r}]; genes in only one of them: {list_names(differ)}. "
            f"Run tl.fit_dag_blr again."
        )
        raise ValueError(message)
    names, _, dag = read_graph(adata, dag_key, symbols)
    arcs = {(genes[k], genes[i]) for k, i in blr.dag.edges()}
    if arcs != {(names[k], names[i]) for k, i in dag.edges()}:
        message = (
            f"The graph in adata.varp[{dag_key!r}] has changed since adata.uns[{key!r}] was "
            f"fitted: run tl.fit_dag_blr again to use the new one."
        )
        warnings.warn(message, UserWarning, stacklevel=4)


def checksum_of_cells(adata: ad.AnnData, fit: FittedPosterior) -> Checksum | None:
    """Return the weights of the checksum by which the cells of a fit are compared with those now.

    ``None`` where there is nothing to compare.
    """
    label_key, layer = str(fit.params["perturbation_key"]), fit.params.get("layer")
    gone = label_key not in adata.obs.columns or (layer is not None and layer not in adata.layers)
    if not fit.cells or gone:
        return None
    return fingerprint_weights(read_labels(adata, label_key), len(fit.columns))


def warn_of_changed_cells(
    adata: ad.AnnData, fit: FittedPosterior, key: str, checksum: int, *, stacklevel: int = 3
) -> None:
    """Warn if labels or values of cells are not those that the fit in ``uns[key]`` was made from.

    ``checksum`` is that of the values now, by the weights of :func:`checksum_of_cells`.
    """
    if not fit.cells:
        return
    label_key, layer = str(fit.params["perturbation_key"]), fit.params.get("layer")
    changed = []
    if label_key not in adata.obs.columns:
        changed.append("labels")
    if layer is not None and layer not in adata.layers:
        changed.append("values")
    if not changed:
        now = as_fingerprint(read_labels(adata, label_key), checksum)
        pairs = zip(now.items(), fit.cells.split(), strict=True)
        changed = [what for (what, value), before in pairs if value != before]
    if changed:
        message = (
            f"The cells ({' and '.join(changed)}) have changed since adata.uns[{key!r}] was fitted "
            f"to adata.obs[{label_key!r}] and {'adata.X' if layer is None else f'layer {layer!r}'}"
            f": run tl.fit_dag_blr again to use them."
        )
        warnings.warn(message, UserWarning, stacklevel=stacklevel)
