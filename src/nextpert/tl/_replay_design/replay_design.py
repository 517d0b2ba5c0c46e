"""``tl.replay_design``: campaigns in plates over the real cells of a screen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata import arguments
from nextpert._adata import effects as _shifts
from nextpert._adata.arguments import WORKERS, at_least, checked, one_of
from nextpert._adata.table import require_cells
from nextpert.core._checks import as_rng
from nextpert.tl._replay_design import modelled, tables
from nextpert.tl._replay_design.setup import read_setup

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert._adata.target import Target
    from nextpert.tl._replay_design.setup import Setup

logger = logging.getLogger(__name__)


@arguments.options(n_warmup=at_least(2), shift=one_of(*_shifts.KINDS))
@dataclass(frozen=True)
class _CampaignOptions:
    """``campaign_options``: each is documented there."""

    n_warmup: int = 100
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] = "knockout"


@checked(
    held_out=one_of("both"), n_repeats=at_least(2), campaign_options=_CampaignOptions,
    n_jobs=WORKERS,
)  # fmt: skip
def replay_design(
    adata: ad.AnnData,
    targets: Sequence[str | Target] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    strategies: Sequence[str] = ("exploit", "random", "thompson_means", "round_robin_means"),
    held_out: bool | str = False,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
    n_repeats: int = 20,
    campaign_options: Mapping[str, Any] | None = None,
    dag_key: str = "dag",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = 1,
    key_added: str = "replay",
    copy: bool = False,
) -> ad.AnnData | None:
    """Replay a screen as campaigns, to compare how many plates strategies need to find a state.

    Use it on a finished screen, before you choose a strategy for the next one. The cells of the
    screen replace the experiments, as in Fig. 6c of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0): each campaign starts from a few control cells, draws a plate
    in each round, fits the model again with the calls that users make, and recommends a
    perturbation. The score is the squared distance of the mean of all cells of the recommended
    perturbation to the target, minus the sampling error. :doc:`/guides/plan_a_plate` shows an
    example; :func:`nextpert.pl.replay` draws the result.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, with a graph from :func:`learn_dag`.
    targets
        Labels, for the state of each (the mean of half of its cells), or :class:`nextpert.Target`.
        ``None`` (default): the candidates three standard errors or more from the controls.
    candidates
        Labels that may be proposed; ``None`` (default) takes all with 4 cells or more.
    strategies
        How plates are chosen: a ``strategy`` of :func:`plan_screen` (``"exploit"``, ``"explore"``,
        ``"both"``, or an acquisition such as ``"thompson"``), ``"random"``, ``"exact_greedy"`` and
        ``"exact_civ"`` (known shifts, as in the paper), or, without a model,
        ``"thompson_means"`` and ``"round_robin_means"``, the baseline that is always added.
    held_out
        Whether the target itself is kept out of the pool, so that the best of the others is to be
        found: ``False`` (default), ``True`` or ``"both"``.
    n_rounds
        Number of plates.
    n_perturbations, n_cells
        Perturbations per plate, and cells per perturbation.
    n_repeats
        Number of repeats, at least 2.
    campaign_options
        Rarely changed options of a campaign, a mapping with some of:

        - ``"n_warmup"`` (100): control cells at the start, drawn anew in each repeat.
        - ``"shift"``: expected shift, as in :func:`fit_dag_blr`; ``"knockout"`` by default.
    dag_key
        Graph in ``adata.varp`` (row = parent), used as it is in every fit, also if it was learned
        from the cells that are replayed. Bootstrap graphs are not used.
    rng
        Seed or generator. All strategies see the same cells in each repeat.
    n_jobs
        Number of processes; the results do not depend on it. ``None``: joblib's context.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["replay"]`` with:

        - ``summary`` (text): the results in sentences.
        - ``overall`` (table): by ``strategy``, over targets: ``plates`` needed, ``relative_last``
          (last distance, relative to the control's) and ``verdict`` beside the baseline.
        - ``table`` (table): ``mean`` and ``sem`` of the squared distance after every ``round``.
        - ``targets`` (table): distances of the best, the control and the pool.

    Raises
    ------
    ValueError
        If there is no graph, a name is unknown, there are too few cells or candidates, or no target
        differs from the controls; TypeError if a list is a string. Nothing is written then.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=6, n_control=300, n_perturbed=60, perturbed=4)
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> plates = {"n_perturbations": 2, "n_rounds": 2, "n_repeats": 2}
    >>> npt.tl.replay_design(adata, strategies=["exploit"], **plates)
    >>> adata.uns["replay"]["overall"]["strategy"].tolist()
    ['exploit', 'round_robin_means']
    """
    require_cells(adata, "replay_design")
    chosen = _CampaignOptions(**campaign_options or {})
    learned = _adata.eager(adata.uns.get(dag_key))
    of_graph = learned.get("params", {}) if isinstance(learned, Mapping) else {}
    roles = _adata.read_roles(
        adata, perturbation_key=of_graph.get("perturbation_key"),
        control=of_graph.get("control"), layer=of_graph.get("layer"),
    )  # fmt: skip
    names = _strategies(strategies)
    readings = [False, True] if held_out == "both" else [bool(held_out)]
    setup = read_setup(
        adata, targets, candidates, chosen.shift, dag_key=dag_key, roles=roles, held_out=readings
    )  # fmt: skip
    if chosen.n_warmup > len(setup.pool.control):
        message = (
            f"n_warmup is {chosen.n_warmup}, but only {len(setup.pool.control)} cells are "
            f"labelled {roles.control!r}: lower n_warmup."
        )
        raise ValueError(message)
    all_cells = int(setup.pool.n_cells[: setup.n_candidates].sum())
    if n_rounds > all_cells:
        message = (
            f"n_rounds is {n_rounds}, but the candidates have only {all_cells} cells, which "
            f"last for at most as many rounds: lower n_rounds."
        )
        raise ValueError(message)
    options = modelled.Options(
        names, chosen.n_warmup, n_rounds, min(n_perturbations, setup.n_candidates), n_cells,
        n_repeats,
    )  # fmt: skip
    runs = modelled.run_all(
        setup.pool, setup.setting, setup.goals, options, as_rng(rng), n_jobs=n_jobs
    )
    params: dict[str, Any] = {
        **asdict(options),
        "strategies": _adata.strings(names),
        "shift_sd": _adata.strings(map(modelled.shift_sd_of, names)),
        "held_out": np.array(readings),
        "shift": chosen.shift if isinstance(chosen.shift, str) else "table",
        "dag_key": dag_key,
        **roles.stored(),
        "rng": _adata.seed_of(rng),
    }
    stored = _results(setup, readings, options, runs) | {"params": params}
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["summary"])
    return written


def _strategies(strategies: Sequence[str]) -> tuple[str, ...]:
    names = list(dict.fromkeys(map(str, _adata.in_order(strategies))))
    known = modelled.strategies()
    unknown = [name for name in names if name not in known]
    if unknown:
        message = (
            f"Unknown strategies: {_adata.list_names(unknown)}."
            f"{_adata.closest(unknown, known)} Choose from {', '.join(known)}."
        )
        raise ValueError(message)
    return (*names, *(name for name in [tables.BASELINE] if name not in names))


def _results(
    setup: Setup,
    readings: list[bool],
    options: modelled.Options,
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> dict[str, Any]:
    """Return the tables of the campaigns; ``runs`` as of ``run_all``."""
    recommended, chosen = runs
    goals, spec = setup.goals, setup.setting.spec
    targets, good = tables.targets_table(goals, readings, spec.plan.names)
    distance = np.stack([g.truth.distance[x] for g, x in zip(goals, recommended, strict=True)])
    shape = (len(targets), *distance.shape[2:])
    is_good = np.take_along_axis(good, recommended.reshape(len(targets), -1), axis=1).reshape(shape)
    flat = distance.reshape(shape)
    per_plate = options.n_cells * options.n_perturbations
    overall = tables.overall_table(flat, is_good, targets, options.strategies)
    return {
        "table": tables.rounds_table(flat, is_good, targets, options.strategies, per_plate),
        "overall": overall,
        "targets": targets,
        "environments": setup.environments,
        "left_out": setup.left_out,
        "summary": tables.in_words(overall, targets, options.n_rounds),
        "runs": {"distance": distance, "recommended": recommended, "chosen": chosen},
        "genes": _adata.strings(spec.genes),
    }
