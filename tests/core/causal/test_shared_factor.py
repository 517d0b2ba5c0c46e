"""One factor for all nodes of a complete graph, against dense inverses of every node."""

import copy

import numpy as np
import pytest

from nextpert.core import Civ, Dag, DagBlr, Moments, random_scm


@pytest.fixture(params=[False, True], ids=["no intercept", "intercept"])
def started(request):
    """A complete graph in a random order, and its posterior after some controls."""
    rng, p = np.random.default_rng(3), 9
    order = rng.permutation(p)
    dag = Dag.from_edges(p, [(order[a], order[b]) for b in range(p) for a in range(b)])
    controls = rng.normal(size=(20, p)) @ rng.normal(size=(p, p)) + 0.5
    blr = DagBlr(dag, intercept=request.param, prior_scale=0.7, noise_var=None)
    blr.update(Moments.from_array(controls), inplace=True)
    _ = blr.blocks
    shifts = rng.normal(size=(12, p))
    cells = rng.normal(size=(12, p)) + shifts
    return blr, controls, cells, shifts


def dense(blr, controls, cells, shifts):
    """Return covariance, weights, unexplained squares and log|M'| - log|M| from all cells."""
    x = np.vstack([controls, cells])
    a = np.vstack([np.zeros_like(controls), shifts])
    for i in range(blr.n_nodes):
        design = x[:, blr.dag.parents(i)]
        prior = np.full(design.shape[1], 1 / 0.7)
        if blr.intercept:
            design = np.column_stack([np.ones(len(x)), design])
            prior = np.append(1e-6, prior)
        y = x[:, i] - a[:, i]
        gram = design.T @ design
        cov = np.linalg.inv(gram + np.diag(prior))
        weights = cov @ design.T @ y
        logdet = np.linalg.slogdet(cov)[1] + np.log(prior).sum()
        yield gram, cov, weights, y @ y - weights @ design.T @ y, logdet


def require_dense(blr, *seen):
    for i, (gram, cov, weights, residual, logdet) in enumerate(dense(blr, *seen)):
        square, column = slice(*blr.mptr[i : i + 2]), slice(*blr.vptr[i : i + 2])
        found = blr.blocks["cov"][square].reshape(cov.shape)
        np.testing.assert_allclose(found, cov, rtol=0, atol=1e-12 * np.abs(cov).max(initial=1))
        np.testing.assert_allclose(blr.xtx[square].reshape(gram.shape), gram, rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(blr.blocks["weights"][column], weights, rtol=1e-9, atol=1e-11)
        assert blr.blocks["residual"][i] == pytest.approx(residual, rel=1e-10)
        assert blr.blocks["logdet"][i] == pytest.approx(logdet, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("inplace", [False, True])
def test_single_cells_update_the_factor_as_all_cells_do(started, inplace):
    blr, controls, cells, shifts = started
    for x, shift in zip(cells, shifts, strict=True):
        blr = blr.update(Moments.from_array(x[None]), shift, inplace=inplace)
        assert "cov" not in blr.estimates  # nothing of size n_nodes^3
        assert "xtx" not in vars(blr)
        assert blr.cells[0] == len(controls) + 1 + np.flatnonzero((cells == x).all(axis=1))[0]
    root = blr.shared_factor().root
    require_dense(blr, controls, cells, shifts)
    np.testing.assert_array_equal(blr.shared_factor().root, root)
    again = DagBlr.from_dict(blr.to_dict())
    require_dense(again, controls, cells, shifts)


def test_an_updated_copy_leaves_the_first_posterior_as_it_was(started):
    blr, controls, cells, shifts = started
    first = blr.update(Moments.from_array(cells[:1]), shifts[0])
    held = copy.deepcopy(first)
    first.update(Moments.from_array(cells[1:2]), shifts[1])
    np.testing.assert_array_equal(first.shared_factor().root, held.shared_factor().root)
    require_dense(first, controls, cells[:1], shifts[:1])
    require_dense(blr, controls, cells[:0], shifts[:0])


@pytest.mark.parametrize("n", [2, 5])
def test_several_cells_follow_single_ones(started, n):
    blr, controls, cells, _ = started
    zero = np.zeros_like(cells)
    blr = blr.update(Moments.from_array(cells[:1])).update(Moments.from_array(cells[1 : 1 + n]))
    require_dense(blr, controls, cells[: 1 + n], zero[: 1 + n])
    blr = blr.update(Moments.from_array(cells[1 + n : 2 + n]))
    require_dense(blr, controls, cells[: 2 + n], zero[: 2 + n])


def test_a_held_node_ends_the_sharing(started):
    blr, _, cells, shifts = started
    held = int(blr.dag.order[3])
    blr = blr.update(Moments.from_array(cells[:1]), shifts[0])
    assert blr.shared_factor() is not None
    blr = blr.update(Moments.from_array(cells[1:2]), do=[held])
    assert blr.shared_factor() is None
    blr = blr.update(Moments.from_array(cells[2:3]))
    assert "xtx" in vars(blr)
    again = blr.solve_blocks(blr.blocks["precision"])
    for name in ("cov", "weights", "residual", "logdet"):
        np.testing.assert_allclose(blr.blocks[name], again[name], rtol=1e-9, atol=1e-11)


def test_a_campaign_step_reads_no_separate_blocks(monkeypatch):
    scm = random_scm(12, "complete", rng=0)
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    Civ(blr, np.ones(12))  # makes the factor
    monkeypatch.setattr(DagBlr, "_unfold", lambda self: pytest.fail("separate blocks were made"))
    for seed in range(3):
        blr = blr.update(Moments.from_array(scm.sample(1, np.ones(12), rng=seed)), np.ones(12))
        Civ(blr, np.ones(12)).value_and_grad(np.ones(12))
        Civ(blr, np.ones(12)).values(np.eye(12))
