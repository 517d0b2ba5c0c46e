"""What is judged is what is used: a replay's plates are those of the calls that users make."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.evaluate import replay_plates
from nextpert.study import replay
from nextpert.study.plate import STRATEGIES, PlateSize
from nextpert.tl import _replay_design as campaigns
from tests._screens import true_graph, with_fit

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]

N_WARMUP, N_ROUNDS, SIZE, N_CELLS, SEED = 60, 3, 4, 12, 5
COLUMNS = {"plain": {}, "guides and batches": {"guide_key": "guide", "batch_key": "plate"}}


@pytest.fixture(scope="module", params=COLUMNS)
def campaign(request):
    """A screen, what a replay makes of it, and the row of every cell of its pool."""
    told = COLUMNS[request.param]
    adata = npt.datasets.simulated_screen(
        n_genes=12, n_control=400, n_perturbed=90, perturbed=9, expected_degree=3, rng=3
    )
    rng, sd = np.random.default_rng(0), adata.X.std(axis=0)
    label = adata.obs["perturbation"].astype(str)
    guide, plate = rng.integers(3, size=adata.n_obs), rng.integers(2, size=adata.n_obs)
    adata.obs["guide"] = [f"{name}-{g}" for name, g in zip(label, guide, strict=True)]
    adata.obs["plate"] = [f"plate {k}" for k in plate]
    place = adata.obs.groupby("guide").ngroup().to_numpy()
    if "guide_key" in told:
        adata.X += 0.4 * sd * rng.normal(size=(place.max() + 1, adata.n_vars))[place]
    if "batch_key" in told:
        adata.X += sd * rng.normal(size=(2, adata.n_vars))[plate]
    npt.pp.setup_screen(adata, guide_key=None, batch_key=None, check_scale=False)
    npt.pp.setup_screen(adata, check_scale=False, **told)
    with_fit(adata, true_graph(adata))
    pool, setting = campaigns.read_pool(adata, posterior_from(adata))
    control = np.flatnonzero(label == "control")
    rows = np.concatenate([np.flatnonzero(label == name) for name in setting.spec.plan.names])
    return adata, pool, setting, control, rows


def seen_after(campaign, deal, chosen):
    """The cells of the warm-up and of some plates, as the pool has them."""
    adata, pool, _, control, rows = campaign
    used, cells = dict.fromkeys(range(99), 0), []
    for j in chosen.ravel().tolist():
        cells += deal.orders[j][used[j] : used[j] + N_CELLS].tolist()
        used[j] += N_CELLS
    index = np.concatenate([control[deal.warmup], rows[cells].astype(int)])
    part = adata[np.sort(index)].copy()
    values = dict(
        zip(index, np.vstack([pool.control[deal.warmup], pool.cells[cells]]), strict=True)
    )
    part.X = np.array([values[i] for i in np.sort(index)])
    return part


@pytest.mark.parametrize("strategy", [*STRATEGIES, "thompson", "ei", "exact_greedy"])
def test_plates_and_recommendations_are_those_of_the_calls(campaign, strategy, monkeypatch):
    _, pool, setting, _, _ = campaign
    names, deal = setting.spec.plan.names, pool.deal(2, N_WARMUP, rng=1)
    found = replay_plates(
        pool, deal, campaigns.known_strategies(setting)[strategy], np.random.default_rng(SEED),
        n_rounds=N_ROUNDS, n_perturbations=SIZE, n_cells=N_CELLS,
    )  # fmt: skip
    shift_sd = 0 if strategy.startswith("exact_") else "learned"
    streams = np.random.default_rng(SEED).spawn(2 * N_ROUNDS)
    target = dict(zip(setting.spec.genes, deal.target.states[0], strict=True))
    candidates = [names[j] for j in deal.first]
    options = {"candidates": candidates, "n_samples": replay.N_SAMPLES}
    planning = import_module("nextpert.tl._plan_screen")
    rounds = import_module("nextpert.study.next_round")
    monkeypatch.setitem(rounds.next_plate.__kwdefaults__, "n_samples", replay.N_SAMPLES)
    plate_size = PlateSize(SIZE, N_CELLS, SIZE * N_CELLS, N_CELLS, n_controls=0)
    monkeypatch.setattr(planning, "split_cells", lambda *_: plate_size)
    for t in range(N_ROUNDS):
        adata = seen_after(campaign, deal, found.chosen[:t])
        npt.tl.fit_dag_blr(adata, shift_sd=shift_sd)
        npt.tl.design_interventions(adata, target, rng=streams[2 * t], **options)
        ranking = adata.uns["design"]["ranking"].set_index("perturbation")
        assert ranking["mean_distance"].idxmin() == names[found.recommended[t]]
        npt.tl.plan_screen(
            adata, target, strategy=strategy.removeprefix("exact_"), n_perturbations=SIZE,
            n_cells=SIZE * N_CELLS, rng=streams[2 * t + 1], candidates=candidates,
        )  # fmt: skip
        plate = adata.uns["plan"]["plate"]
        assert plate["perturbation"].tolist() == [names[j] for j in found.chosen[t]]
        assert plate["n_cells"].tolist() == [N_CELLS] * SIZE
