"""Acquisitions by name, in a registry that a decorator fills."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from nextpert.core._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from nextpert.core.causal.base import Acquisition
    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

Kind = TypeVar("Kind", bound="type[Acquisition]")
_ACQUISITIONS: Registry[type[Acquisition]] = Registry(
    "nextpert.core.causal.acquisitions", "an acquisition"
)


def acquisition(name: str) -> Callable[[Kind], Kind]:
    """Return a decorator that registers an acquisition under a name that users can give.

    Raises
    ------
    ValueError
        If another class already has this name.

    Examples
    --------
    >>> from nextpert.core.causal.base import Acquisition
    >>> from nextpert.core.causal.registry import acquisition
    >>> @acquisition("greedy")
    ... class Mine(Acquisition): ...
    Traceback (most recent call last):
    ...
    ValueError: There is an acquisition 'greedy' already (Greedy): choose another name.
    """
    return _ACQUISITIONS.named(name)


def acquisitions(*, on_domain: bool = False, exact: bool = True) -> tuple[str, ...]:
    """Return the names of all acquisitions, or of those with given properties.

    Parameters
    ----------
    on_domain
        Whether to return only acquisitions that can be minimised over a domain of shifts.
    exact
        Whether to include acquisitions that need exact shifts; ``False`` returns only those that
        can rank candidates whose shifts are uncertain.

    Examples
    --------
    >>> from nextpert.core import acquisitions
    >>> sorted(set(acquisitions()) - set(acquisitions(on_domain=True)))
    ['probability', 'remaining_variance', 'thompson']
    >>> sorted(acquisitions(exact=False))
    ['ei', 'greedy', 'probability', 'random', 'remaining_variance', 'thompson']
    """
    return tuple(
        name
        for name, kind in _ACQUISITIONS.every().items()
        if (kind.on_domain or not on_domain) and (exact or not kind.exact_only)
    )


def find_acquisition(name: str, *, on_domain: bool = False) -> type[Acquisition]:
    """Return the class of the acquisition with a given name.

    Raises
    ------
    ValueError
        If the name is unknown, or ``on_domain`` and it cannot be minimised over a domain.
    """
    kind = _ACQUISITIONS.find(name)
    if kind is None or (on_domain and not kind.on_domain):
        names = ", ".join(acquisitions(on_domain=on_domain))
        message = f"Unknown acquisition {name!r}: choose one of {names}."
        raise ValueError(message)
    return kind


def build_acquisition(
    acquisition: str,
    posterior: DagBlr,
    target_mean: ArrayLike,
    *,
    domain: Domain,
    n_cells: float,
    noise_aware: bool = False,
    best: float = np.inf,
    rng: int | np.random.Generator | None = None,
) -> Acquisition:
    """Return the acquisition function with a given name, to be minimised over a domain.

    Parameters
    ----------
    acquisition
        ``"civ"``, ``"civ_ow"``, ``"cv"``, ``"maxv"``, ``"target_mean_variance"``, ``"greedy"``,
        ``"random"``, ``"ei"``, ``"mi"`` or ``"ucb"``.
    posterior
        The posterior over the weights.
    target_mean
        The target state, shape ``(n_nodes,)``, units of the data.
    domain
        The set of possible shifts; CIV and CIV-OW average over it.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether to include the information in the scatter of the hypothetical cells (see
        :class:`LookaheadAcquisition`).
    best
        Smallest squared distance so far, for expected improvement (``"ei"``).
    rng
        Seed or generator for ``"random"`` and acquisitions that draw from the posterior.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, Sphere, build_acquisition
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False)
    >>> options = dict(domain=Sphere(1.0), n_cells=1, rng=np.random.default_rng(0))
    >>> build_acquisition("cv", blr, np.ones(2), **options).name
    'cv'
    """
    return find_acquisition(acquisition, on_domain=True).build(
        posterior,
        target_mean,
        domain=domain,
        n_cells=n_cells,
        noise_aware=noise_aware,
        best=best,
        rng=rng,
    )
