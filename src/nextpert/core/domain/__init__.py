"""Domains: where interventions may lie, each able to find its best point."""

from nextpert.core.domain.base import Domain, Optimum
from nextpert.core.domain.box import Box
from nextpert.core.domain.pool import Pool
from nextpert.core.domain.sparse import Sparse
from nextpert.core.domain.sphere import Sphere

__all__ = ["Box", "Domain", "Optimum", "Pool", "Sparse", "Sphere"]
