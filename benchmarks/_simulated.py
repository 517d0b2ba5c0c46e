"""Simulated screens with known truth, for the trials of graphs from every environment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks._screens import Statistics
from nextpert.core import LinearScm, ScreenMoments, random_scm

N_UNMEASURED = 6


@dataclass(frozen=True)
class Setting:
    """One row of a table; error and factors are in units of a gene's own variance and SD."""

    degree: float  # expected number of neighbours of a gene
    n_genes: int = 36
    n_seen: int = 18  # genes that are knocked out in the screen
    efficacy: tuple[float, float] = (1.0, 1.0)  # least and largest share of the control mean
    n_control: int = 5000
    n_cells: int = 100  # of each perturbation
    unmeasured: bool = False  # also perturbations of genes off the panel; each shifts three
    error: float = 0.0  # variance of measurement error
    hidden: float = 0.0  # what one hidden factor gives to every gene
    n_batches: int = 1  # crossed with all perturbations
    batch_sd: float = 1.0  # of the shifts of batches


@dataclass(frozen=True)
class Simulated:
    """A screen and its truth; genes in random order, of standard deviation one in controls."""

    scm: LinearScm
    seen: np.ndarray  # genes knocked out
    unseen: np.ndarray  # genes whose knockout is to be predicted
    change: np.ndarray  # full shift of a knockout of each gene: minus its control mean
    cells: np.ndarray  # shape (n_cells, n_genes)
    label: np.ndarray  # perturbation of every cell; a knockout is the number of its gene
    batch: np.ndarray

    @property
    def targets(self) -> dict[str, int]:
        """Measured target of every perturbation that has one."""
        return {str(gene): int(gene) for gene in self.seen}

    def statistics(self, *, only: str | None = None, batches: bool = True) -> Statistics:
        """Return the statistics of all cells, or of those of one label."""
        kept = np.ones(len(self.label), bool) if only is None else self.label == only
        pairs = np.array([f"{n}\t{b}" for n, b in zip(self.label, self.batch, strict=True)])
        names, codes = np.unique(pairs[kept], return_inverse=True)
        moments = ScreenMoments.from_array(self.cells[kept], codes, len(names))
        label, batch = np.array([name.split("\t") for name in names], dtype=object).T
        fixed = (batch[:, None] == np.unique(self.batch.astype(str))[1:]).astype(float)
        return Statistics(moments, label, "control", fixed if batches else None)


def simulate(setting: Setting, seed: int) -> Simulated:
    """Draw a model, its perturbations and cells."""
    rng, p = np.random.default_rng(seed), setting.n_genes
    unit = random_scm(p, "erdos_renyi", expected_degree=setting.degree, rng=rng)
    place = rng.permutation(p)  # random graphs come in topological order
    mean = rng.uniform(3, 5, p)  # a fifth to a third of it is the standard deviation, 1
    weights = unit.weights[np.ix_(place, place)]
    scm = LinearScm(weights, unit.noise_var[place], mean - weights @ mean)
    genes = rng.permutation(p)
    shifts = {"control": np.zeros(p)}
    for gene in genes[: setting.n_seen]:
        shifts[str(gene)] = -rng.uniform(*setting.efficacy) * mean[gene] * np.eye(p)[gene]
    for k in range(N_UNMEASURED if setting.unmeasured else 0):
        shift = np.zeros(p)
        shift[rng.choice(p, 3, replace=False)] = rng.normal(size=3)
        shifts[f"unmeasured {k}"] = shift
    loading = setting.hidden * rng.choice([-1.0, 1.0], p)
    batch_shift = setting.batch_sd * rng.normal(size=(setting.n_batches, p))
    batch_shift[0] = 0.0
    cells, labels = [], []
    for name, shift in shifts.items():
        n = setting.n_control if name == "control" else setting.n_cells
        cells.append(scm.sample(n, shift, rng=rng))
        labels += [name] * n
    x = np.concatenate(cells)
    batch = rng.integers(setting.n_batches, size=len(x))
    x += np.outer(rng.normal(size=len(x)), loading) + batch_shift[batch]
    x += np.sqrt(setting.error) * rng.normal(size=x.shape)
    return Simulated(
        scm,
        genes[: setting.n_seen],
        genes[setting.n_seen :],
        -mean,
        x,
        np.array(labels, dtype=object),
        batch,
    )


def unexplained(found: Simulated, effects: np.ndarray) -> float:
    """Return the unexplained share of the effects of unseen knockouts on the other genes.

    ``effects`` are predicted per unit of the gene's own change, column = the gene that changes.
    """
    truth = np.linalg.inv(np.eye(found.scm.n_nodes) - found.scm.weights)
    off = (truth - effects)[:, found.unseen] * found.change[found.unseen]
    whole = truth[:, found.unseen] * found.change[found.unseen]
    off[found.unseen, np.arange(len(found.unseen))] = 0.0
    whole[found.unseen, np.arange(len(found.unseen))] = 0.0
    return float((off**2).sum() / (whole**2).sum())
