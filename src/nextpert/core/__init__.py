"""The array core: moments, graphs, posterior, acquisitions, domains; no AnnData here."""

from nextpert.core.acquisition import (
    Acquisition,
    CausalVariance,
    Civ,
    CivOw,
    ExpectedImprovementInt,
    Greedy,
    LookaheadAcquisition,
    MaxVariance,
    MutualInformationInt,
    Random,
    TargetMeanVariance,
    UpperConfidenceInt,
)
from nextpert.core.build_acquisition import build_acquisition
from nextpert.core.campaign import CampaignResult, campaign
from nextpert.core.campaign_rows import campaign_rows
from nextpert.core.campaigns import campaigns
from nextpert.core.dag import CycleError, Dag
from nextpert.core.dag_blr import DagBlr
from nextpert.core.domain import Box, Domain, Optimum, Pool, Sparse, Sphere
from nextpert.core.gap_variance import gap_variance
from nextpert.core.moments import Moments
from nextpert.core.perturb_dag import perturb_dag
from nextpert.core.random_dag import random_dag
from nextpert.core.random_scm import random_scm
from nextpert.core.random_target import random_target
from nextpert.core.scm import LinearScm
from nextpert.core.shd import shd
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
    "ExpectedImprovementInt",
    "Greedy",
    "GspResult",
    "LinearScm",
    "LookaheadAcquisition",
    "MaxVariance",
    "Moments",
    "MutualInformationInt",
    "Optimum",
    "Pool",
    "PriorKnowledge",
    "Random",
    "Sparse",
    "Sphere",
    "TargetMeanVariance",
    "UpperConfidenceInt",
    "bootstrap_dag",
    "boss",
    "build_acquisition",
    "campaign",
    "campaign_rows",
    "campaigns",
    "causaldag_gsp",
    "fisher_z_threshold",
    "gap_variance",
    "gsp",
    "minimal_imap",
    "partial_correlation",
    "perturb_dag",
    "random_dag",
    "random_scm",
    "random_target",
    "shd",
    "target_distance",
]
