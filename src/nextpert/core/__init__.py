"""The array core: moments, graphs, posterior, acquisitions, domains; no AnnData here."""

from nextpert.core.acquisition.base import Acquisition, LookaheadAcquisition
from nextpert.core.acquisition.build_acquisition import build_acquisition
from nextpert.core.acquisition.causal_variance import CausalVariance
from nextpert.core.acquisition.civ import Civ
from nextpert.core.acquisition.civ_ow import CivOw
from nextpert.core.acquisition.domain.base import Domain, Optimum
from nextpert.core.acquisition.domain.box import Box
from nextpert.core.acquisition.domain.pool import Pool
from nextpert.core.acquisition.domain.sparse import Sparse
from nextpert.core.acquisition.domain.sphere import Sphere
from nextpert.core.acquisition.expected_improvement import ExpectedImprovementInt
from nextpert.core.acquisition.gap_variance import gap_variance
from nextpert.core.acquisition.greedy import Greedy
from nextpert.core.acquisition.many_graphs import ManyGraphs
from nextpert.core.acquisition.max_variance import MaxVariance
from nextpert.core.acquisition.mutual_information import MutualInformationInt
from nextpert.core.acquisition.random import Random
from nextpert.core.acquisition.target_mean_variance import TargetMeanVariance
from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.acquisition.uncertain_values import uncertain_values
from nextpert.core.acquisition.upper_confidence import UpperConfidenceInt
from nextpert.core.cells.exogenous_moments import exogenous_moments
from nextpert.core.cells.moments import Moments
from nextpert.core.cells.pool_guides import PooledGuides, guide_variance, pool_guides
from nextpert.core.cells.screen_moments import ScreenMoments
from nextpert.core.effects.random_shifts import RandomShifts, fit_random_shifts
from nextpert.core.effects.shift_prior import ShiftPrior
from nextpert.core.graph.dag import CycleError, Dag
from nextpert.core.graph.perturb_dag import perturb_dag
from nextpert.core.graph.random_dag import random_dag
from nextpert.core.graph.shd import shd
from nextpert.core.loop.design_loop import DesignLoopResult, design_loop
from nextpert.core.loop.design_loop_rows import design_loop_rows
from nextpert.core.loop.design_loops import design_loops
from nextpert.core.posterior.dag_blr import DagBlr
from nextpert.core.posterior.shift_posterior import ShiftPosterior
from nextpert.core.predict.goal import Goal
from nextpert.core.predict.ranked_distance import RankedDistance, ranked_distance
from nextpert.core.search.methods.boss import BossResult, boss, boss_with_network
from nextpert.core.search.methods.causaldag import causaldag_gsp
from nextpert.core.search.methods.gsp import GspResult, gsp
from nextpert.core.search.minimal_imap import fisher_z_threshold, minimal_imap
from nextpert.core.search.network_belief import NetworkBelief
from nextpert.core.search.prior_knowledge import PriorKnowledge
from nextpert.core.simulate.random_scm import random_scm
from nextpert.core.simulate.random_target import random_target
from nextpert.core.simulate.scm import LinearScm

__all__ = [
    "Acquisition",
    "BossResult",
    "Box",
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
    "ManyGraphs",
    "MaxVariance",
    "Moments",
    "MutualInformationInt",
    "NetworkBelief",
    "Optimum",
    "Pool",
    "PooledGuides",
    "PriorKnowledge",
    "Random",
    "RandomShifts",
    "RankedDistance",
    "ScreenMoments",
    "ShiftPosterior",
    "ShiftPrior",
    "Sparse",
    "Sphere",
    "TargetMeanVariance",
    "UncertainCiv",
    "UpperConfidenceInt",
    "boss",
    "boss_with_network",
    "build_acquisition",
    "causaldag_gsp",
    "design_loop",
    "design_loop_rows",
    "design_loops",
    "exogenous_moments",
    "fisher_z_threshold",
    "fit_random_shifts",
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
