"""Models, moments and plain brute force for the structure searches."""

import json

import anndata as ad
import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from nextpert.core import Dag, LinearScm, Moments, random_scm


@pytest.fixture(scope="session")
def simulated():
    """Return ``(scm, moments)`` of a random model with shuffled node numbers."""

    def simulate(n_nodes, degree, seed, n_cells=5000, standardise=True):
        rng = np.random.default_rng(seed)
        scm = random_scm(
            n_nodes, "erdos_renyi", expected_degree=degree, standardise=standardise, rng=rng
        )
        label = rng.permutation(n_nodes)
        weights = np.zeros((n_nodes, n_nodes))
        weights[np.ix_(label, label)] = scm.weights
        noise_var = np.empty(n_nodes)
        noise_var[label] = scm.noise_var
        shuffled = LinearScm(weights, noise_var)
        return shuffled, Moments.from_array(shuffled.sample(n_cells, rng=rng))

    return simulate


@pytest.fixture(scope="session")
def tapseq_controls(screen_path):
    """Moments of the TAP-seq controls, log-normalised, of genes seen in more than 10 % of them."""
    adata = ad.read_h5ad(screen_path / "schraivogel_tapseq" / "schraivogel_tapseq_umi5.h5ad")
    counts = adata[adata.obs["perturbation"] == "non-targeting"].to_df().to_numpy(dtype=float)
    lognorm = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    return Moments.from_array(lognorm[:, (counts > 0).mean(axis=0) > 0.1])


@pytest.fixture(scope="session")
def p_value():
    """Fisher's z, two-sided, of two nodes given others, by regression on them."""

    def test(moments, i, j, given):
        given = list(given)
        scatter = moments.scatter
        rest = scatter[np.ix_([i, j], [i, j])]
        if given:
            across = scatter[np.ix_(given, [i, j])]
            rest = rest - across.T @ np.linalg.solve(scatter[np.ix_(given, given)], across)
        r = rest[0, 1] / np.sqrt(rest[0, 0] * rest[1, 1])
        return 2 * norm.sf(np.sqrt(moments.n - len(given) - 3) * abs(np.arctanh(r)))

    return test


@pytest.fixture(scope="session")
def brute_imap(p_value):
    """The minimal I-map of a permutation, one test at a time."""

    def imap(moments, order, alpha):
        edges = []
        for m, child in enumerate(order):
            for parent in order[:m]:
                given = [k for k in order[:m] if k != parent]
                if p_value(moments, parent, child, given) < alpha:
                    edges.append((parent, child))
        return Dag.from_edges(moments.n_nodes, edges)

    return imap


@pytest.fixture(scope="session")
def equivalence_class():
    """What two graphs share exactly when they are Markov equivalent: skeleton and colliders."""

    def describe(dag):
        edges = set(dag.edges())
        skeleton = {frozenset(edge) for edge in edges}
        colliders = {
            (frozenset((a, b)), child)
            for child in range(dag.n_nodes)
            for a in dag.parents(child).tolist()
            for b in dag.parents(child).tolist()
            if a < b and frozenset((a, b)) not in skeleton
        }
        return skeleton, colliders

    return describe


@pytest.fixture(scope="session")
def paper_orders(screen_path):
    """The 346 orders of the paper's panel of 36 genes as pairs of nodes, and the gene names."""
    folder = screen_path / "reference"
    known = json.loads((folder / "genes_modules_programs.json").read_text())
    genes = known["selected_genes"]
    place = {gene: i for i, gene in enumerate(genes)}
    return [(place[a], place[b]) for a, b in known["fixed_orders"]], genes


@pytest.fixture(scope="session")
def consistent_orders(paper_orders):
    """Those of the paper's orders that are on no circle."""
    orders, genes = paper_orders
    matrix = np.zeros((len(genes), len(genes)))
    matrix[tuple(np.transpose(orders))] = 1
    part = connected_components(csr_array(matrix), connection="strong")[1]
    return [(a, b) for a, b in orders if part[a] != part[b]]
