"""Structure searches: the moments of one environment in, a graph out."""

from nextpert.core.structure.bootstrap import bootstrap_dag
from nextpert.core.structure.boss import BossResult, boss
from nextpert.core.structure.causaldag_gsp import causaldag_gsp
from nextpert.core.structure.fisher_z_threshold import fisher_z_threshold
from nextpert.core.structure.gsp import GspResult, gsp
from nextpert.core.structure.minimal_imap import minimal_imap
from nextpert.core.structure.partial_correlation import partial_correlation
from nextpert.core.structure.prior_knowledge import PriorKnowledge

__all__ = [
    "BossResult",
    "GspResult",
    "PriorKnowledge",
    "bootstrap_dag",
    "boss",
    "causaldag_gsp",
    "fisher_z_threshold",
    "gsp",
    "minimal_imap",
    "partial_correlation",
]
