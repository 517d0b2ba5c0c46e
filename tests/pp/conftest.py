"""The Perturb-CITE-seq screen as its loader gives it: full numbers of cells, a few genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

CONDITIONS = {"Control": 57_627, "IFNγ": 87_590, "Co-culture": 73_114}
PANEL = """
    B2M CCR10 CD58 CD59 CDH19 CDK4 CDK6 CTSA CTSB CTSD CXCR4 DNMT1 EIF3K FOS HLA-A HLA-B HLA-C
    HLA-E IFNGR1 IFNGR2 IRF3 LAMP2 MYC NGFR NPC1 NPC2 RB1 SAT1 SEC11C SERPINE2 SMAD4 SOX4 SP100
    STAT1 STAT3 TGFB1
""".split()  # noqa: SIM905
HARDLY = ["CCR10", "CDH19", "CXCR4", "NGFR"]
# Targeted, and measured under another name, not at all, or as genes outside the panel.
OTHERS = ["NUP50-AS", "HLA-H", "ACSL3", "TP53"]
TARGETS = [*PANEL, *OTHERS, *(f"LOC{i}" for i in range(248 - len(PANEL) - len(OTHERS)))]
GENES = ["TP53", "ACSL3", *reversed(PANEL), "NUP50-AS1", "GAPDH"]
# Cells with one targeting guide, by target: 31 to 169 for the panel, the others share the rest.
SINGLE = dict(zip(PANEL, [*range(50, 85), 169], strict=True)) | {"MYC": 31}


def control_guides(rng):
    """Guide lists of the Control cells, in the proportions of the study."""
    rest = 26_716 - sum(SINGLE.values())
    others = [target for target in TARGETS if target not in SINGLE]
    per_target = SINGLE | {t: rest // len(others) for t in others}
    per_target[others[0]] += rest % len(others)
    lists = [""] * 5039
    for target, n in per_target.items():
        lists += [f"{target}_{k}" for k in rng.integers(1, 4, n)]
    lists += [f"NO_SITE_{k}" for k in rng.integers(1, 38, 2189)]
    lists += [f"ONE_NON-GENE_SITE_{k}" for k in rng.integers(1, 38, 1581)]
    return lists, per_target


@pytest.fixture(scope="session")
def full_study():
    """All 218,331 cells, their guides in ``uns``, expression of 40 genes as ln(1 + TPM)."""
    rng = np.random.default_rng(3)
    lists, per_target = control_guides(rng)
    several = CONDITIONS["Control"] - len(lists)
    pool = np.array([f"{target}_1" for target in TARGETS] + ["NO_SITE_1", "ONE_NON-GENE_SITE_1"])
    first, second = rng.integers(0, len(pool), (2, several))
    second = np.where(first == second, (second + 1) % len(pool), second)
    lists += [f"{pool[a]},{pool[b]}" for a, b in zip(first, second, strict=True)]
    shuffle = rng.permutation(len(lists))
    guides = np.array([lists[i] for i in shuffle], dtype=object)
    n_cells = sum(CONDITIONS.values())
    guides = np.concatenate([guides, np.resize(guides, n_cells - len(guides))])
    depth = rng.integers(2000, 20_000, n_cells).astype(float)
    # Expression of the Control cells alone, which is all that is looked at.
    shown = (CONDITIONS["Control"], len(GENES))
    values = rng.integers(0, 4, shown, dtype=np.int8)
    values[:, np.isin(GENES, HARDLY)] *= rng.random((shown[0], len(HARDLY))) < 0.002
    counts = sp.csr_matrix(values, dtype=np.float64)
    counts.resize((n_cells, len(GENES)))
    x = counts.multiply(1e6 / depth[:, None]).tocsr().log1p().astype(np.float32)
    obs = pd.DataFrame(
        {
            "condition": pd.Categorical(np.repeat(list(CONDITIONS), list(CONDITIONS.values()))),
            "guides": pd.Categorical(guides),
            "UMI_count": depth,
        },
        index=[f"CELL_{i + 1}" for i in range(n_cells)],
    )
    adata = ad.AnnData(x, obs, pd.DataFrame(index=GENES))
    return adata, counts, per_target


CELLS = [
    # guides, number of cells
    ("", 40), ("NO_SITE_3", 60), ("ONE_NON-GENE_SITE_1,NO_SITE_2", 15), ("MYC_1", 30),
    ("MYC_1,MYC_2", 12), ("MYC_3,NO_SITE_9", 8), ("MYC_1,STAT1_2", 25), ("STAT1_1", 22),
    ("MYC_2,TP53_1", 9), ("TP53_2", 21), ("HLA-H_1", 24), ("NUP50-AS_1", 23), ("CDK4_1", 19),
    ("HLA-H_2,TP53_1", 7),
]  # fmt: skip
FEW_GENES = ["GAPDH", "CDK4", "MYC", "STAT1", "TP53", "NUP50-AS1"]


@pytest.fixture
def small_study():
    """A few hundred cells whose every combination of guides is listed in ``CELLS``; counts."""
    rng = np.random.default_rng(8)
    lists = [guides for guides, n in CELLS for _ in range(n)]
    shuffle = rng.permutation(len(lists))
    obs = pd.DataFrame({"guides": pd.Categorical([lists[i] for i in shuffle])})
    obs["condition"] = pd.Categorical(["Control"] * len(obs))
    obs.index = "CELL_" + obs.index.astype(str)
    counts = rng.poisson(3, (len(lists), len(FEW_GENES))).astype(np.float32)
    return ad.AnnData(sp.csr_matrix(counts), obs, pd.DataFrame(index=FEW_GENES))
