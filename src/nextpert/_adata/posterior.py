"""A fit: what ``tl.fit_dag_blr`` stores of it, and a fingerprint of the cells behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.effects import Expectation, InteractionsRecord
from nextpert._adata.graph import panel_of, read_graph, symbols_of
from nextpert._adata.labels import column_of, read_labels
from nextpert._adata.members import Naming
from nextpert._adata.panel import list_names, places, resolve_panel
from nextpert._adata.read import Checksum, mixed_words, read_screens, stirred
from nextpert._adata.roles import KEY, declared, fitted_roles, role_texts
from nextpert._adata.stored import eager, read_stored
from nextpert._warn import warn
from nextpert.core import DagBlr, ScreenMoments
from nextpert.core._blas import in_blocks
from nextpert.core._codec import (
    array,
    coded,
    lists,
    nested,
    series,
    sparse,
    table,
    table_type,
    texts,
    unpack,
)
from nextpert.core.design.joint_draws import NOT_JOINED, Joined, States, states_by_effects
from nextpert.core.model.hierarchical import Hierarchical
from nextpert.core.model.perturbations import CellMeans, Perturbations
from nextpert.core.model.predictors.base import SideInformation, predictors

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles
    from nextpert.core.model.effects import Efficacy
    from nextpert.core.model.hierarchical import EffectDraws
    from nextpert.core.model.interactions import Interactions
    from nextpert.core.model.unseen_scale import WithoutCells

    Array = NDArray[np.float64]

# Of more labelled cells, only every second (third, ...) run of cells is read.
_MOST_CELLS, _RUN = 100_000, 1000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def fingerprint(adata: ad.AnnData, roles: Roles, columns: NDArray[np.int64]) -> str:
    """Return a fingerprint of all labelled cells: columns with a role, and values of the panel.

    It does not depend on how the cells are stored, nor on the order of up to 100,000 cells.
    """
    weights = fingerprint_weights(adata, roles, len(columns))
    _, number = read_screens(adata, columns, [], checksum=weights, layer=roles.layer)
    return f"{weights.roles} {number:016x}"


def require_other_cells(adata: ad.AnnData, features: Any) -> None:
    """Raise if side information is the effects of these same cells, which would count twice.

    It is compared by roles and panel of the fit that it came from, whatever those are now.
    """
    for one in features.values() if isinstance(features, Mapping) else [features]:
        origin = eager(getattr(one, "uns", {}))
        if not isinstance(origin, Mapping) or not {"cells", "panel", "fit_params"} <= set(origin):
            continue
        params = origin["fit_params"]
        try:
            roles = fitted_roles(adata, params)
            genes = list(map(str, origin["panel"]))
            symbols = symbols_of({"params": params})
            _, columns = resolve_panel(adata, genes, gene_symbols=symbols)
            same = fingerprint(adata, roles, columns) == origin["cells"]
        except ValueError:  # without its columns, genes or layer: other cells
            continue
        if same:
            message = (
                "features has effects of these same cells: give effects in another screen, or "
                "leave features out, as the fit learns from these cells anyway."
            )
            raise ValueError(message)


def fingerprint_weights(adata: ad.AnnData, roles: Roles, n_columns: int) -> Checksum:
    """Return the weights of the checksum that a fingerprint of the labelled cells is made from."""
    # An odd number for every labelled cell, equal where all roles are; 0 for others.
    words = np.zeros(adata.n_obs, np.uint64)
    own = read_labels(adata, roles.perturbation_key)
    for key in roles.columns:
        column = column_of(adata, key)
        if column.dtype.kind == "f":
            bits = mixed_words(column.to_numpy()[:, None], np.ones(1, np.uint64))
        else:
            labels = own if key == roles.perturbation_key else read_labels(adata, key)
            each = [hashlib.sha256(name.encode()).digest()[:8] for name in labels.names]
            bits = np.frombuffer(b"".join([*each, bytes(8)]), "<u8")[labels.codes]
        words = stirred(words * _ODD + bits)
    words = np.where(own.codes >= 0, words | np.uint64(1), np.uint64(0))
    of_roles = int(stirred(words).sum(dtype=np.uint64)) + int(np.count_nonzero(words))
    cells = np.flatnonzero(words)
    step = -(-len(cells) // _MOST_CELLS)
    if step > 1:
        words[cells[np.arange(len(cells)) // _RUN % step > 0]] = 0
    # Odd numbers, another for every column.
    spread = (np.arange(n_columns).astype(np.uint64) + np.uint64(1)) * _ODD
    return Checksum(words, stirred(spread) | np.uint64(1), f"{of_roles % 2**64:016x}")


def _posterior() -> Any:
    return coded(DagBlr.to_dict, DagBlr.from_dict)


@dataclass(frozen=True)
class EfficacyRecord:
    """What is stored of an ``Efficacy``: the efficacy of a perturbation that was not measured.

    Parameters
    ----------
    mean
        Mean change of the target gene over that expected of a full knockout (1), without unit.
    sd
        Standard deviation for a new perturbation, uncertainty about the mean included.
    spread
        Standard deviation between the perturbations of the screen.
    n_measured
        Number of changes of target genes that it was learned from.
    """

    mean: float = array()
    sd: float = array(least=0)
    spread: float = array(least=0)
    n_measured: int = array(whole=True, least=0)


@dataclass(frozen=True)
class PredictorRecord:
    """Weights of the predictors of perturbations without cells.

    Parameters
    ----------
    predictors
        Names of the predictors.
    weights
        Weight of each predictor, 0 or more, learned from left-out perturbations.
    error_alone
        Squared error of each predictor alone, relative to that of "no effect".
    error
        Squared error of all together, relative to that of "no effect".
    residual_variance
        Mean squared effect that the predictors do not explain, in units of a gene's variance.
    interactions
        Of combinations: strength and variances of their effects.
    scales
        Factors of the variances of effects of perturbations without cells; rows: without and with
        features, columns: what perturbations share, and own parts.
    """

    predictors: list[str] = texts("n_predictors")
    weights: Array = array("n_predictors", least=0)
    error_alone: Array = array("n_predictors")
    error: float = array()
    residual_variance: float = array()
    interactions: Interactions | InteractionsRecord | None = nested(
        InteractionsRecord, optional=True
    )
    scales: Array | None = array(2, 2, above=0, optional=True)


@dataclass(frozen=True)
class FeaturesRecord:
    """Side information about perturbations, and effects in another screen on the panel.

    Parameters
    ----------
    perturbations
        Names of the perturbations with side information.
    rows
        Components whose products are the similarities between perturbations.
    effects
        Effects in the other screen, shrunk, its mean where unknown, in units of the data.
    observed
        These effects as they were observed.
    precision
        Their precisions (one over the squared standard error), 0 where unknown.
    """

    perturbations: list[str] = texts("n_features")
    rows: Array = array("n_features", "rank", dtype=np.float32)
    effects: Array | None = array("n_features", "n_nodes", optional=True)
    observed: Array | None = array("n_features", "n_nodes", optional=True)
    precision: Array | None = array("n_features", "n_nodes", least=0, optional=True)


@dataclass(frozen=True)
class FittedPosterior:
    """All of a fit, as ``tl.fit_dag_blr`` writes it to ``.uns``.

    ``columns`` are those of its genes in the data it was read from, shape ``(n_genes,)``; they are
    not stored.

    Parameters
    ----------
    genes
        The panel.
    posterior
        The posterior over the weights of the graph.
    control_mean
        Mean of the control cells, in units of the data.
    n_control_cells
        Control cells read.
    environments
        One row per perturbation used.
    targets
        Target genes of each perturbation.
    shifts
        Expected shifts, in units of the data.
    left_out
        Labels that were not used.
    log_evidence
        Logarithm of the evidence of the weights of the graph.
    params
        Options of the call.
    cells
        Fingerprints of the cells, by which later calls notice changes: ``roles`` (the columns with
        a role), ``values`` (the cells, in any order), and the roles ``declared``.
    digest
        Digest of the whole fit; results computed from the fit keep it as ``fit``.
    means
        Unless shifts are exact: the cells' means.
    guide_variance
        Unless shifts are exact: variance between guides, relative to the noise variance.
    hierarchical
        Unless shifts are exact: draws of the hierarchical model.
    efficacy
        Unless shifts are exact: efficacy of perturbations on their target genes.
    predictors
        Unless shifts are exact: weights of the predictors of perturbations without cells.
    screen
        Unless shifts are exact: moments of the cells that these weights were learned from.
    features
        Side information, if it was given.
    ensemble
        Posterior over the weights on each bootstrap graph, if there are any.
    """

    genes: list[str] = texts("n_nodes")
    posterior: DagBlr = _posterior()
    control_mean: Array = array("n_nodes")
    n_control_cells: int = array(whole=True, least=0)
    environments: pd.DataFrame = table(
        "n_perturbations", "perturbation", "n_cells", "q_value", "q_value_from_others"
    )
    targets: list[list[str]] = lists("n_perturbations")
    shifts: Array = sparse("n_perturbations", "n_nodes")
    left_out: pd.DataFrame = table()
    log_evidence: float = array()
    params: dict[str, Any] = coded(dict, dict)
    cells: dict[str, str] | None = coded(dict, dict, optional=True)
    digest: str | None = coded(str, str, optional=True)
    means: CellMeans | None = nested(CellMeans, optional=True)
    guide_variance: float | None = array(least=0, optional=True)
    hierarchical: Hierarchical | None = nested(Hierarchical, optional=True)
    efficacy: Efficacy | EfficacyRecord | None = nested(EfficacyRecord, optional=True)
    predictors: PredictorRecord | None = nested(PredictorRecord, optional=True)
    screen: ScreenMoments | None = nested(ScreenMoments, optional=True)
    features: FeaturesRecord | None = nested(FeaturesRecord, optional=True)
    ensemble: list[DagBlr] | None = series(_posterior(), optional=True)
    columns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    # What follows from them.
    names: list[str] = field(init=False)  # of the perturbations, one a row
    n_cells: NDArray[np.int64] = field(init=False)  # (n_perturbations,)
    is_exact: bool = field(init=False)  # shifts are taken as given, as in Zhang et al. 2023
    counted: Array = field(init=False)  # cells that tell of effects, 0 for exact shifts
    seen: NDArray[np.bool_] = field(init=False)  # perturbations with such cells
    posteriors: list[DagBlr] = field(init=False)  # on the graphs of resamples, which count alike
    n_graphs: int = field(init=False)
    naming: Naming = field(init=False)
    fingerprint: str = field(init=False)  # of its cells; empty where none was stored
    origin: dict[str, str] = field(init=False)  # what a result that is computed from it keeps

    def __post_init__(self) -> None:
        counted = np.zeros(len(self.environments)) if self.means is None else self.means.n
        posteriors, params = self.ensemble or [self.posterior], self.params
        cells = " ".join(str(self.cells[name]) for name in ("roles", "values") if self.cells)
        vars(self).update(
            names=self.environments["perturbation"].astype(str).tolist(),
            n_cells=self.environments["n_cells"].to_numpy(np.int64),
            is_exact=self.hierarchical is None,
            counted=counted,
            seen=counted > 0,
            posteriors=posteriors,
            n_graphs=len(posteriors),
            naming=Naming(frozenset(self.genes), str(params["separator"]), str(params["control"])),
            fingerprint=cells,
            origin={"cells": cells, "fit": self.digest or ""},
        )
        if any(blr.n_nodes != len(self.genes) for blr in [self.posterior, *posteriors]):
            message = "it has graphs of other genes"
            raise ValueError(message)
        known = {kind.name for kind in predictors()}
        if self.predictors is not None and (unknown := set(self.predictors.predictors) - known):
            message = f"it has weights of {sorted(unknown)}, which are no predictors here"
            raise ValueError(message)
        if (self.means is None) != (self.hierarchical is None):
            message = "it has effects without the means of cells, or means without effects"
            raise ValueError(message)
        if self.predictors is not None and (
            self.screen is None
            or len(self.screen.n) != 1 + len(self.environments)
            or self.screen.n[0] < 2
        ):
            message = "its screen is not that of its perturbations"
            raise ValueError(message)

    def rows_of(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the row of each of these perturbations in the fit, -1 of those it does not have.

        Shape ``(n_names,)``.
        """
        row = {name: j for j, name in enumerate(self.names)}
        return np.array([row.get(name, -1) for name in names], np.int64)

    @cached_property
    def expectation(self) -> Expectation | None:
        """What to expect of perturbations without cells; ``None`` where nothing was learned."""
        if self.predictors is None or self.screen is None:
            return None
        own, known = places(self.targets, self.genes), self.features
        every = np.arange(1, 1 + len(own))
        seen = Perturbations(self.screen, 0, every, own, names=self.names)
        learned = self.predictors
        weights = dict(zip(learned.predictors, learned.weights.tolist(), strict=True))
        together: Any = learned.interactions
        features = None
        if known is not None:
            rows = known.rows.astype(np.float64)
            features = SideInformation(
                known.perturbations, rows, known.effects, known.observed, known.precision
            )
        return Expectation(weights, seen, features, together, learned.scales)

    def spelled(self, labels: Iterable[str]) -> list[str]:
        """Return labels as the cells have them, or the features of perturbations."""
        known = () if self.features is None else self.features.perturbations
        return self.naming.spelled(labels, [*self.names, *known])

    def effects(self, place: NDArray[np.int64], new: WithoutCells | None = None) -> EffectDraws:
        """Return joint draws of effects by the hierarchical model.

        Parameters
        ----------
        place
            Row of each perturbation in the fit, -1 of those without cells, shape
            ``(n_perturbations,)``.
        new
            What is expected of those without cells, in their order.
        """
        _, draws, rows = self._drawn(len(place), place, new)
        return draws.rows(rows)

    def _drawn(
        self, size: int, place: NDArray[np.int64], new: WithoutCells | None
    ) -> tuple[Hierarchical, EffectDraws, NDArray[np.int64]]:
        """Return as many draws as are kept of ``size`` perturbations, and the row of each asked."""
        if self.hierarchical is None:
            message = "The fit has no hierarchical model of effects."
            raise ValueError(message)
        model = self.hierarchical.thinned(size * len(self.genes))
        rows = np.append(np.cumsum(self.seen) - 1, -1)[place]
        without = np.flatnonzero(place < 0)
        if new is None or not len(without):
            return model, model.effects, rows
        rows[without] = len(model.effects.expected) + np.arange(len(without))
        found = model.predict(new.effect, own_variance=new.own_variance, scale=new.scale, rng=0)
        return model, model.effects.joined(found), rows

    def data_weight(self) -> Array:
        """Return the weight of the cells in every effect, ``(n_perturbations, n_genes)``.

        It is the posterior variance over the sampling variance: where what is expected is a normal,
        the weight of the cells' mean.
        """
        shape = len(self.names), len(self.genes)
        weight = np.zeros(shape, table_type(shape[0] * shape[1]))
        if self.hierarchical is None or self.means is None:  # exact shifts, whatever the cells
            return weight
        effects, means = self.hierarchical.effects, self.means
        if not self.seen.any():
            return weight
        weight[self.seen] = effects.sd()
        for rows in in_blocks(*shape):
            counted = means.n[rows, None] / means.ratio[rows]
            weight[rows] = np.minimum(counted * (weight[rows] / effects.unit) ** 2, 1.0)
        return weight

    def expected_state(self, row: int) -> Array:
        """Return the posterior mean of the state of a perturbation with cells, ``(n_genes,)``."""
        model = self.hierarchical
        assert model is not None
        effects = model.effects.rows([np.count_nonzero(self.seen[:row])])
        return np.asarray(model.control.mean(axis=0) + effects.posterior_mean()[0])

    def states(
        self,
        place: NDArray[np.int64],
        new: WithoutCells | None = None,
        joined: Joined = NOT_JOINED,
    ) -> States:
        """Return the joint posterior of the states of perturbations, as :meth:`effects`.

        What target states that are perturbations of the fit (``joined``) depart by from
        :meth:`expected_state` comes with every draw.
        """
        targets = joined.rows
        more = [row for row in dict.fromkeys(targets) if row >= 0 and row not in place]
        every = np.append(place, np.array(more, np.int64))  # of a candidate its own draw is taken
        at = [int(np.flatnonzero(every == row)[0]) if row >= 0 else -1 for row in targets]
        none = np.zeros(len(self.genes))
        points = np.array([self.expected_state(row) if row >= 0 else none for row in targets])
        model, draws, rows = self._drawn(len(place), every, new)
        return states_by_effects(draws, model.control, rows, at, points, len(more), joined.numbers)

    def in_condition(self, name: str) -> FittedPosterior:
        """Return the fit with the effects, cells and controls of one condition.

        What is expected of perturbations without any cells stays that of all conditions.

        Raises
        ------
        ValueError
            If the fit has no effects by condition, or no such condition.
        """
        model = self.hierarchical
        if model is None or not model.conditions:
            key, message = (
                str(self.params.get("condition_key") or ""),
                (
                    "The fit has no effects by condition: declare the column of conditions by "
                    "pp.setup_screen(adata, condition_key=...), and run tl.fit_dag_blr again."
                ),
            )
            if key:
                message = (
                    f"The fit has no effects by condition, as fewer than two conditions of "
                    f"adata.obs[{key!r}] have control and perturbed cells: leave condition out for "
                    f"the effects of all cells."
                )
            raise ValueError(message)
        by_name = {each.name: k for k, each in enumerate(model.conditions)}
        if name not in by_name:
            message = f"No condition {name!r}: give one of {list_names(by_name)}."
            raise ValueError(message)
        assert self.means is not None
        one, seen = model.conditions[by_name[name]], np.flatnonzero(self.seen)
        table, n, mean = self.environments.copy(), self.means.n.copy(), self.means.mean.copy()
        n_cells = self.n_cells.copy()
        # Of few cells that count there are a part; a few remain, so that rows stay what they are.
        n[seen] *= np.maximum(one.n_cells, 1e-9) / np.maximum(n_cells[seen], 1)
        mean[seen] = self.control_mean + one.change
        n_cells[seen] = one.n_cells
        table["n_cells"] = n_cells
        return replace(
            self, environments=table, means=replace(self.means, n=n, mean=mean),
            hierarchical=model.in_condition(by_name[name]),
        )  # fmt: skip


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
    where, remedy = f"adata.uns[{key!r}]", "run tl.fit_dag_blr again"
    fit = unpack(FittedPosterior, stored, where, remedy)
    symbols, written = symbols_of(stored), (f"uns[{key!r}]", "tl.fit_dag_blr")
    genes, columns = resolve_panel(adata, fit.genes, gene_symbols=symbols, written=written)
    fit = replace(fit, columns=columns)
    dag_key = str(fit.params["dag_key"])
    of_graph = adata.uns.get(dag_key, {})
    now = panel_of(of_graph)
    # A graph put in by hand, or since deleted, has no panel to compare with.
    if now is not None and dag_key in adata.varp:
        if symbols != symbols_of(of_graph):
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
        edges = {(genes[k], genes[i]) for k, i in fit.posterior.dag.edges()}
        if edges != {(names[k], names[i]) for k, i in dag.edges()}:
            message = (
                f"The graph in adata.varp[{dag_key!r}] has changed since adata.uns[{key!r}] was "
                f"fitted: run tl.fit_dag_blr again to use the new one."
            )
            warn(message)
    # Roles that were declared since, and are neither those before nor those of the fit.
    if KEY in adata.uns and fit.fingerprint:
        roles, used = role_texts(declared(adata)), role_texts(fit.params)
        before = json.loads(str((fit.cells or {})["declared"]))
        other = [
            f"{name} {x!r}" for name, x in roles.items() if x not in (before[name], used[name])
        ]
        if other:
            message = (
                f"pp.setup_screen has declared {', '.join(other)} since adata.uns[{key!r}] was "
                f"fitted with other roles: run tl.fit_dag_blr again to use them."
            )
            warn(message)
    if compare:
        weights = checksum_of_cells(adata, fit)
        number = 0
        if weights is not None:
            layer = fit.params.get("layer")
            _, number = read_screens(adata, columns, [], checksum=weights, layer=layer)
        warn_of_changed_cells(adata, fit, key, number)
    return fit


def checksum_of_cells(adata: ad.AnnData, fit: FittedPosterior) -> Checksum | None:
    """Return the weights of the checksum by which the cells of a fit are compared with those now.

    ``None`` where there is nothing to compare.
    """
    layer = fit.params.get("layer")
    gone = str(fit.params["perturbation_key"]) not in adata.obs.columns or not (
        layer is None or layer in adata.layers
    )
    if not fit.fingerprint or gone:
        return None
    return fingerprint_weights(adata, fitted_roles(adata, fit.params), len(fit.columns))


def warn_of_changed_cells(adata: ad.AnnData, fit: FittedPosterior, key: str, checksum: int) -> None:
    """Warn if labels or values of cells are not those that the fit in ``uns[key]`` was made from.

    ``checksum`` is that of the values now, by the weights of :func:`checksum_of_cells`.
    """
    if not fit.fingerprint:
        return
    label_key, layer = str(fit.params["perturbation_key"]), fit.params.get("layer")
    changed = [] if label_key in adata.obs.columns else ["labels"]
    changed += [] if layer is None or layer in adata.layers else ["values"]
    if not changed:
        roles, before = fitted_roles(adata, fit.params), fit.cells or {}
        others = len(roles.columns) > 1
        if fingerprint_weights(adata, roles, 0).roles != before["roles"]:
            changed = [f"columns {list_names(roles.columns)}" if others else "labels"]
        elif f"{checksum:016x}" != before["values"]:
            changed = ["values, or which cells have which labels"]
    if changed:
        message = (
            f"The cells ({' and '.join(changed)}) have changed since adata.uns[{key!r}] was fitted "
            f"to adata.obs[{label_key!r}] and {'adata.X' if layer is None else f'layer {layer!r}'}"
            f": run tl.fit_dag_blr again to use them."
        )
        warn(message)
