"""The array core, without AnnData: moments, graphs, posteriors, acquisitions and domains."""

from nextpert.core.causal.acquisitions.civ import Civ, CivOw, gap_variance
from nextpert.core.causal.acquisitions.expected_improvement import ExpectedImprovementInt
from nextpert.core.causal.acquisitions.greedy import Greedy
from nextpert.core.causal.acquisitions.largest_variance import CausalVariance, MaxVariance
from nextpert.core.causal.acquisitions.mutual_information import MutualInformationInt
from nextpert.core.causal.acquisitions.probability import Probability
from nextpert.core.causal.acquisitions.random import Random
from nextpert.core.causal.acquisitions.target_mean_variance import TargetMeanVariance
from nextpert.core.causal.acquisitions.thompson import Thompson
from nextpert.core.causal.acquisitions.upper_confidence import UpperConfidenceInt
from nextpert.core.causal.base import Acquisition, LookaheadAcquisition, Ranked
from nextpert.core.causal.dag_blr import DagBlr
from nextpert.core.causal.design_loop import DesignLoopResult, design_loop, design_loops
from nextpert.core.causal.domains import Box, Domain, Optimum, Pool, Sparse, Sphere
from nextpert.core.causal.registry import (
    acquisitions,
    build_acquisition,
    find_acquisition,
)
from nextpert.core.causal.scm import LinearScm, random_scm, random_target
from nextpert.core.design.candidates import Candidates
from nextpert.core.design.distances import RankedDistance, ranked_distance
from nextpert.core.design.goal import Goal
from nextpert.core.graph.dag import CycleError, Dag, perturb_dag, shd
from nextpert.core.graph.random_dag import random_dag
from nextpert.core.screen.guides import (
    PooledGuides,
    context_moments,
    pool_guides,
)
from nextpert.core.screen.moments import Moments
from nextpert.core.screen.screen import ScreenMoments
from nextpert.core.search.methods.boss import BossResult, boss
from nextpert.core.search.methods.causaldag import causaldag_gsp
from nextpert.core.search.methods.gsp import GspResult, gsp
from nextpert.core.search.minimal_imap import fisher_z_threshold, minimal_imap
from nextpert.core.search.prior_knowledge import PriorKnowledge

__all__ = [
    "Acquisition",
    "BossResult",
    "Box",
    "Candidates",
    "CausalVariance",
    "Civ",
    "CivOw",
    "CycleError",
    "Dag",
    "DagBlr",
    "DesignLoopResult",
    "Domain",
    "ExpectedImprovementInt",
    "Goal",
    "Greedy",
    "GspResult",
    "LinearScm",
    "LookaheadAcquisition",
    "MaxVariance",
    "Moments",
    "MutualInformationInt",
    "Optimum",
    "Pool",
    "PooledGuides",
    "PriorKnowledge",
    "Probability",
    "Random",
    "Ranked",
    "RankedDistance",
    "ScreenMoments",
    "Sparse",
    "Sphere",
    "TargetMeanVariance",
    "Thompson",
    "UpperConfidenceInt",
    "acquisitions",
    "boss",
    "build_acquisition",
    "causaldag_gsp",
    "context_moments",
    "design_loop",
    "design_loops",
    "find_acquisition",
    "fisher_z_threshold",
    "gap_variance",
    "gsp",
    "minimal_imap",
    "perturb_dag",
    "pool_guides",
    "random_dag",
    "random_scm",
    "random_target",
    "ranked_distance",
    "shd",
]
