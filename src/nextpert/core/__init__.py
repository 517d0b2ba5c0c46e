"""The array core: moments, graphs, posterior, acquisitions, domains; no AnnData here."""

from nextpert.core.acquisition import (
    Acquisition,
    CausalVariance,
    Civ,
    CivOw,
    Greedy,
    LookaheadAcquisition,
    MaxVariance,
    Random,
    TargetMeanVariance,
)
from nextpert.core.build_acquisition import build_acquisition
from nextpert.core.campaign import CampaignResult, campaign
from nextpert.core.dag import CycleError, Dag
from nextpert.core.dag_blr import DagBlr
from nextpert.core.domain import Box, Domain, Optimum, Pool, Sparse, Sphere
from nextpert.core.gap_variance import gap_variance
from nextpert.core.moments import Moments
from nextpert.core.random_dag import random_dag
from nextpert.core.random_scm import random_scm
from nextpert.core.scm import LinearScm
from nextpert.core.structure import (
    BossResult,
    GspResult,
    PriorKnowledge,
    bootstrap_dag,
    boss,
    causaldag_gsp,
    fisher_z_threshold,
    gsp,
    minimal_imap,
    partial_correlation,
)
from nextpert.core.target_distance import target_distance

__all__ = [
    "Acquisition",
    "BossResult",
    "Box",
    "CampaignResult",
    "CausalVariance",
    "Civ",
    "CivOw",
    "CycleError",
    "Dag",
    "DagBlr",
    "Domain",
    "Greedy",
    "GspResult",
    "LinearScm",
    "LookaheadAcquisition",
    "MaxVariance",
    "Moments",
    "Optimum",
    "Pool",
    "PriorKnowledge",
    "Random",
    "Sparse",
    "Sphere",
    "TargetMeanVariance",
    "bootstrap_dag",
    "boss",
    "build_acquisition",
    "campaign",
    "causaldag_gsp",
    "fisher_z_threshold",
    "gap_variance",
    "gsp",
    "minimal_imap",
    "partial_correlation",
    "random_dag",
    "random_scm",
    "target_distance",
]
