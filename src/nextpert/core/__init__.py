"""The array core: moments, graphs, posterior, acquisitions, domains; no AnnData here."""

from nextpert.core.design.acquisitions.civ import CausalVariance, Civ, CivOw, gap_variance
from nextpert.core.design.acquisitions.expected_improvement import ExpectedImprovementInt
from nextpert.core.design.acquisitions.greedy import Greedy
from nextpert.core.design.acquisitions.max_variance import MaxVariance
from nextpert.core.design.acquisitions.mutual_information import MutualInformationInt
from nextpert.core.design.acquisitions.probability import Probability
from nextpert.core.design.acquisitions.random import Random
from nextpert.core.design.acquisitions.target_mean_variance import TargetMeanVariance
from nextpert.core.design.acquisitions.thompson import Thompson
from nextpert.core.design.acquisitions.upper_confidence import UpperConfidenceInt
from nextpert.core.design.base import Acquisition, LookaheadAcquisition
from nextpert.core.design.candidates import Candidates, Ranked
from nextpert.core.design.distances import RankedDistance, ranked_distance
from nextpert.core.design.domains import Box, Domain, Optimum, Pool
from nextpert.core.design.goal import Goal
from nextpert.core.design.registry import (
    acquisitions,
    build_acquisition,
    find_acquisition,
    uncertain_values,
)
from nextpert.core.design.sphere import Sparse, Sphere
from nextpert.core.evaluate.design_loop import (
    DesignLoopResult,
    design_loop,
    design_loop_rows,
    design_loops,
)
from nextpert.core.graph.dag import CycleError, Dag, perturb_dag, shd
from nextpert.core.graph.random_dag import random_dag
from nextpert.core.model.dag_blr import DagBlr
from nextpert.core.screen.context import context_moments
from nextpert.core.screen.guides import PooledGuides, guide_variance, pool_guides
from nextpert.core.screen.moments import Moments
from nextpert.core.screen.screen import ScreenMoments
from nextpert.core.search.methods.boss import BossResult, boss, boss_with_network
from nextpert.core.search.methods.causaldag import causaldag_gsp
from nextpert.core.search.methods.gsp import GspResult, gsp
from nextpert.core.search.minimal_imap import fisher_z_threshold, minimal_imap
from nextpert.core.search.network_belief import NetworkBelief
from nextpert.core.search.prior_knowledge import PriorKnowledge
from nextpert.core.simulate.scm import LinearScm, random_scm, random_target

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
    "NetworkBelief",
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
    "boss_with_network",
    "build_acquisition",
    "causaldag_gsp",
    "context_moments",
    "design_loop",
    "design_loop_rows",
    "design_loops",
    "find_acquisition",
    "fisher_z_threshold",
    "gap_variance",
    "gsp",
    "guide_variance",
    "minimal_imap",
    "perturb_dag",
    "pool_guides",
    "random_dag",
    "random_scm",
    "random_target",
    "ranked_distance",
    "shd",
    "uncertain_values",
]
