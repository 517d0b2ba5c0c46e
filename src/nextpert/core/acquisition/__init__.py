"""Acquisitions: which shift to try next, given the posterior and the target mean."""

from nextpert.core.acquisition.base import Acquisition, LookaheadAcquisition
from nextpert.core.acquisition.causal_variance import CausalVariance
from nextpert.core.acquisition.civ import Civ
from nextpert.core.acquisition.civ_ow import CivOw
from nextpert.core.acquisition.expected_improvement import ExpectedImprovementInt
from nextpert.core.acquisition.greedy import Greedy
from nextpert.core.acquisition.max_variance import MaxVariance
from nextpert.core.acquisition.mutual_information import MutualInformationInt
from nextpert.core.acquisition.random import Random
from nextpert.core.acquisition.target_mean_variance import TargetMeanVariance
from nextpert.core.acquisition.upper_confidence import UpperConfidenceInt

__all__ = [
    "Acquisition",
    "CausalVariance",
    "Civ",
    "CivOw",
    "ExpectedImprovementInt",
    "Greedy",
    "LookaheadAcquisition",
    "MaxVariance",
    "MutualInformationInt",
    "Random",
    "TargetMeanVariance",
    "UpperConfidenceInt",
]
