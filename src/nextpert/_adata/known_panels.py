"""The panel, modules and programs of the paper, and genes that go by several names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The 36 genes of the Perturb-CITE-seq analysis of Zhang et al. 2023,
# doi:10.1038/s42256-023-00719-0.
ZHANG2023 = (
    "B2M", "CCR10", "CD58", "CD59", "CDH19", "CDK4", "CDK6", "CTSA", "CTSB", "CTSD", "CXCR4",
    "DNMT1", "EIF3K", "FOS", "HLA-A", "HLA-B", "HLA-C", "HLA-E", "IFNGR1", "IFNGR2", "IRF3",
    "LAMP2", "MYC", "NGFR", "NPC1", "NPC2", "RB1", "SAT1", "SEC11C", "SERPINE2", "SMAD4", "SOX4",
    "SP100", "STAT1", "STAT3", "TGFB1",
)  # fmt: skip

PANELS: Mapping[str, tuple[str, ...]] = {"zhang2023": ZHANG2023}

# Regulatory modules (genes perturbed together) and programs (genes that respond together) of
# Frangieh et al. 2021, doi:10.1038/s41588-021-00779-1, as the paper uses them. No gene of the panel
# lies in two modules or in two programs.
_MODULES = {
    "m1": "CD59 CDH19 IRF3 RB1 SOX4 SP100",
    "m2": "CD58 CTSD CXCR4 HLA-C SMAD4",
    "m3": "CDK4 CTSA FOS HLA-A HLA-E",
    "m5": "EIF3K LAMP2 NPC1 NPC2 SAT1 SEC11C",
    "m6": "B2M CCR10 HLA-B NGFR TGFB1",
}
_PROGRAMS = {
    "A": "CTSA CTSB CTSD IFNGR1 IFNGR2 IRF3 SOX4 STAT1 STAT3 TGFB1",
    "B": "CD58 CD59 SAT1 SP100",
    "C": "CDK4 DNMT1 HLA-E NPC2",
    "D": "CDK6 MYC SERPINE2",
}
MODULE_OF = {gene: name for name, genes in _MODULES.items() for gene in genes.split()}
PROGRAM_OF = {gene: name for name, genes in _PROGRAMS.items() for gene in genes.split()}

# Names of guide targets and of the paper's lists against gene symbols: taken only where the name
# itself is not measured and the symbol is.
ALIASES: Mapping[str, str] = {
    "NUP50-AS": "NUP50-AS1",
    "TMEM173": "STING1",
    "ATP5MD": "ATP5MK",
    # Slips of the pen in the paper's lists of genes.
    "FBOX32": "FBXO32",
    "HLA-DBQI": "HLA-DQB1",
    "NRSP1": "NSRP1",
    "PARPI": "PARP1",
    "XBPI": "XBP1",
}
