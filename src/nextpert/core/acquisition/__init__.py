"""Acquisitions: which shift to try next, given the posterior and the target mean."""

from nextpert.core.acquisition.base import Acquisition, LookaheadAcquisition
from nextpert.core.acquisition.causal_variance import CausalVariance
from nextpert.core.acquisition.civ import Civ
from nextpert.core.acquisition.civ_ow import CivOw
from nextpert.core.acquisition.greedy import Greedy
from nextpert.core.acquisition.max_variance import MaxVariance
from nextpert.core.acquisition.random import Random
from nextpert.core.acquisition.target_mean_variance import TargetMeanVariance

__all__ = [
    "Acquisition",
    "CausalVariance",
    "Civ",
    "CivOw",
    "Greedy",
    "LookaheadAcquisition",
    "MaxVariance",
    "Random",
    "TargetMeanVariance",
]
