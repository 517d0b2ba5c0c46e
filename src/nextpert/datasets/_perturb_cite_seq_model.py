"""A model of the paper's 36 genes in Perturb-CITE-seq, from printed and published numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert._adata.panel import MODULE_OF
from nextpert.core import LinearScm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Gene, transcripts per million in control cells, log2 fold change of the gene under its own
# knockout, and number of cells with one guide, against this gene: from the condition Control of
# Frangieh et al. 2021 (doi:10.1038/s41588-021-00779-1). Three targets outside the panel come last.
_KNOCKOUTS = """
B2M 1211 -1.20 132;  CCR10 0.4378 1.42 116;  CD58 45.34 -1.02 128;  CD59 245.4 -0.67 150;
CDH19 0 0.00 156;  CDK4 95.08 -0.74 126;  CDK6 138.3 -1.15 51;  CTSA 151.9 -1.22 146;
CTSB 251.4 -1.37 133;  CTSD 168.8 -2.06 169;  CXCR4 0.06254 -0.09 105;  DNMT1 201.4 -0.74 51;
EIF3K 383.6 -0.82 116;  FOS 5.92 -1.49 119;  HLA-A 457.8 -0.51 156;  HLA-B 104.4 -0.37 98;
HLA-C 476.6 -1.80 94;  HLA-E 57.12 -1.21 107;  IFNGR1 50.36 -1.38 133;  IFNGR2 106.8 -0.82 141;
IRF3 55.85 -0.12 131;  LAMP2 70.19 -1.20 148;  MYC 61.08 0.07 31;  NGFR 0.04169 -0.06 120;
NPC1 21.93 -0.71 146;  NPC2 298.6 -0.98 121;  RB1 21.93 -1.07 157;  SAT1 348 0.52 137;
SEC11C 181.6 -1.09 149;  SERPINE2 605.3 -1.32 112;  SMAD4 17.55 -1.89 135;  SOX4 83.49 -0.63 169;
SP100 85.55 -1.22 132;  STAT1 66.33 -1.31 110;  STAT3 51.76 -1.02 123;  TGFB1 83.82 -2.12 164;
JAK1 85.63 -1.67 135;  JAK2 4.211 -0.58 161;  CD274 9.631 -0.44 141
"""
# Parent: children. The 144 edges that the authors of Zhang et al. 2023 learned with GSP from
# control cells (github.com/uhlerlab/actlearn_optint, MIT licence; Extended Data Fig. 7).
_EDGES = """
B2M: CD59 CTSD EIF3K FOS HLA-A HLA-B HLA-C SEC11C SERPINE2
CD59: CDK4 CTSD EIF3K HLA-C IFNGR2 LAMP2 SOX4 SP100
CDK4: STAT1
CDK6: B2M CD59 DNMT1 EIF3K IFNGR2 MYC SERPINE2 SP100 STAT1
CTSA: B2M CD59 CDK4 CTSD DNMT1 EIF3K HLA-A HLA-B HLA-C SAT1 SERPINE2 SOX4 TGFB1
CTSB: B2M CD59 CDK4 CTSA CTSD DNMT1 EIF3K HLA-A HLA-C IFNGR2 NPC2
CTSB: SAT1 SEC11C SERPINE2 SOX4 STAT3 TGFB1
CTSD: HLA-A LAMP2 NPC1 SEC11C SP100
DNMT1: B2M CD59 CDK4 EIF3K FOS IFNGR2 MYC RB1 SAT1
EIF3K: CDK4 FOS HLA-A HLA-C IFNGR1 IFNGR2 SEC11C TGFB1
FOS: CXCR4 MYC STAT3
HLA-A: HLA-B
HLA-B: HLA-E
HLA-C: CTSD FOS HLA-A HLA-B TGFB1
HLA-E: NPC1
IFNGR2: CDK4 SEC11C SOX4 STAT3
LAMP2: HLA-E
MYC: CD58
NPC2: B2M CD59 CDK6 CTSA CTSD DNMT1 EIF3K HLA-A HLA-C SEC11C SERPINE2
SAT1: FOS HLA-A HLA-B HLA-C LAMP2 SEC11C SOX4 STAT3 TGFB1
SEC11C: CDK4 STAT3
SERPINE2: CD59 CTSD EIF3K FOS HLA-A HLA-B HLA-C IFNGR2 MYC SAT1 SEC11C SOX4 TGFB1
SOX4: CXCR4 IRF3
STAT1: IRF3
STAT3: IRF3 STAT1
TGFB1: CD58 HLA-B IFNGR1 IFNGR2 LAMP2 SOX4 STAT1 STAT3
"""

# Choices. With these, simulated means and distances are near those printed in Zhang et al. 2023:
# mean ln(1 + TPM) in cells without guides and with the knockout, MYC 1.52 and 2.58, EIF3K 5.19 and
# 4.78, HLA-C 5.98 and 4.16; squared distances to the CDH19 knockout 0.4 to 5.1, HLA-C 4.35.
DEPTH = 19_000.0  # UMI of a cell with guides, on average: sampling errors of distances
GUIDE_FREE_DEPTH = 6_500.0  # of a cell without: MYC and EIF3K fall or rise with the depth
GUIDE_FREE_SHIFT = {"HLA-C": 0.28}
_MIN_RATE = 0.05  # TPM; CDH19, which has none above, has a few counts in 20,000 cells
_WEIGHT = (0.05, 0.15)  # range of the magnitude: distances beyond a gene's own fall
_NOISE_SD = 0.3  # of the log expression
_NOISE_SD_OF = dict.fromkeys(
    ["B2M", "CD59", "CDK6", "CTSA", "CTSB", "DNMT1", "NPC2", "SAT1", "SERPINE2"], 0.7
)  # genes with 8 to 17 children, so that GSP finds some of the edges
_NOISE_SD_OF |= {"CTSD": 1.0, "TGFB1": 1.0}  # largest distances


class PanelModel(NamedTuple):
    """A linear causal model of log expression.

    ``scm`` describes deviations from the controls' mean log expression. ``tpm`` is the mean of
    each gene in controls, ``knockdown`` the shift by a guide (natural logarithm), and ``n_cells``
    all have shape ``(n_genes,)``.
    """

    scm: LinearScm
    tpm: NDArray[np.float64]
    knockdown: NDArray[np.float64]


def reference_edges() -> list[tuple[str, str]]:
    """Return the edges of the published graph, parent first."""
    lines = (line.split(": ") for line in _EDGES.strip().splitlines())
    return [(parent, child) for parent, children in lines for child in children.split()]


def _knockouts() -> dict[str, tuple[float, float, int]]:
    """Return for each target its transcripts per million, log2 fold change and cells."""
    rows = (row.split() for row in _KNOCKOUTS.replace("\n", " ").split(";"))
    return {gene: (float(tpm), float(change), int(cells)) for gene, tpm, change, cells in rows}


def panel_model(genes: Sequence[str], rng: np.random.Generator) -> PanelModel:
    """Return the model of some of the genes, with random weights on the published edges.

    Weights between genes of one regulatory module are positive; other signs are random.
    """
    position = {gene: j for j, gene in enumerate(genes)}
    weights = np.zeros((len(genes), len(genes)))
    for parent, child in reference_edges():
        size, sign = rng.uniform(*_WEIGHT), rng.choice([-1.0, 1.0])
        if parent in position and child in position:
            module = MODULE_OF.get(parent)
            together = module is not None and module == MODULE_OF.get(child)
            weights[position[child], position[parent]] = size if together else sign * size
    noise_sd = np.array([_NOISE_SD_OF.get(gene, _NOISE_SD) for gene in genes])
    knockouts = _knockouts()
    tpm, change = np.array([knockouts[gene][:2] for gene in genes]).T
    scm = LinearScm(weights, noise_sd**2)
    return PanelModel(scm, np.maximum(tpm, _MIN_RATE), change * np.log(2))


def cells_per_target(targets: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of cells of each target's knockout in the study, ``(n_targets,)``."""
    knockouts = _knockouts()
    return np.array([knockouts[target][2] for target in targets])
