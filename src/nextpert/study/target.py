"""``nextpert.Target``: the state that cells should reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nextpert._adata.arguments import KINDS, Bound, Kind, check_value, one_of
from nextpert._adata.panel import in_order
from nextpert.core._checks import MAX_VALUE, list_names
from nextpert.core.design.goal import DISTANCES
from nextpert.study.signature import as_signature

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nextpert.core.screen.moments import Moments


Vector = NDArray[np.float64]
State = str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector
Numbers = Mapping[str, float] | pd.Series

NAMED = 5  # genes of a target that its name lists
_STATES = "str | tuple[str, str] | Mapping[str, float] | Vector | None"
_SQUARED = Bound("that is not too large to be squared", lambda value: abs(value) <= MAX_VALUE)
_WEIGHT = Bound(
    "of at least 0 that is not too large to be squared", lambda value: 0 <= value <= MAX_VALUE
)
_POSITIVE = Bound("above 0", lambda value: 0 < value <= MAX_VALUE)
_DISTANCES, _OWN_GENES = one_of(lambda: DISTANCES), one_of("exclude", "include")
_OTHERS = one_of("ignore", "control")
STATES = ("state", "away_from")  # the parts that consist of states


@dataclass(frozen=True, eq=False, kw_only=True)
class Target:
    """The state that cells should reach: states, a signature, bounds, and states to avoid.

    Use it if one state is not enough; a label, pair, mapping or vector is short for
    ``Target(state=...)``. The distance to a target is the sum of the distances to its parts, and is
    0 if all parts are reached (:class:`nextpert.core.Goal`). :doc:`/guides/read_a_ranking` lists
    the possible targets.

    Parameters
    ----------
    state
        A perturbation label; a group, as a tuple ``(obs key, value)``; a mapping gene -> mean
        log-normalised expression, of which only these genes count (see ``others``); or a NumPy
        vector of means, one per gene of the panel. The distance to a list of states equals the
        distance to their mean, plus a constant.
    signature
        Mapping gene -> desired change from the control mean, in log-normalised expression
        (standard deviations with ``distance="noise"``). Genes compensate for each other, as in a
        score, and a larger change has no penalty. Or ``{"up": genes, "down": genes}`` or a list of
        genes (changes by 1 and -1); ``"FILE.gmt:SET"``; a table of DESeq2, edgeR or limma, of which
        genes with a false discovery rate below 0.05 count, or its column of changes (as natural
        logarithms). Genes outside the panel are left out with a warning.
    at_least, at_most
        Mappings gene -> minimum and maximum mean; genes do not compensate for each other.
    away_from
        A state to avoid, such as toxicity, or a list of them, in the forms of ``state``. A
        candidate that is nearer to it than the control cells are has a penalty: the square of the
        difference of the two distances (not squared, on the genes that count), times
        ``away_weight``.
    away_weight
        Weight of ``away_from`` relative to the other parts.
    weights
        A list of the genes to include (a program), or a mapping gene -> weight; equal by default.
    others
        What a mapping of means says of the genes that it does not name: ``"ignore"`` (default)
        does not count them, and ``"control"`` counts them with their mean in control cells.
    distance
        ``"squared"`` (default): squared differences of log-normalised expression. ``"noise"``:
        squared differences in units of each gene's variance in control cells. ``"cosine"``: one
        minus the cosine of the angle to the desired change, for ``state`` or ``signature``, with
        ``weights``; the direction of weak effects is random, so check the interval.
    own_genes
        For a ``state`` that is a perturbation of the screen: ``"exclude"`` (default) leaves out the
        genes that it and each candidate target, because the loss of their messenger RNA does not
        show whether a candidate has the same effect (:doc:`/model/mathematics`, equation 28).
        ``"include"`` counts all genes, as is always done for other targets and in exact fits.

    Raises
    ------
    ValueError
        If no part is given, a number is out of range, or parts cannot be combined.
    TypeError
        If a part has a wrong type.

    Examples
    --------
    >>> import nextpert as npt
    >>> npt.Target(signature={"STAT1": -1, "IRF1": -0.5}, distance="noise")
    Target(signature={'STAT1': -1, 'IRF1': -0.5}, distance='noise')
    """

    state: State | list[Any] | None = None
    signature: Any = None
    at_least: Numbers | None = None
    at_most: Numbers | None = None
    away_from: State | list[Any] | None = None
    away_weight: float = 1.0
    weights: Numbers | Iterable[str] | None = None
    others: str = "ignore"
    distance: str = "squared"
    own_genes: str = "exclude"

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", as_signature(self.signature))
        check_value(self.distance, "distance", "str", _DISTANCES)
        check_value(self.others, "others", "str", _OTHERS)
        check_value(self.own_genes, "own_genes", "str", _OWN_GENES)
        # Numbers by gene, or genes without numbers: at least one gene, each once.
        for name in ("signature", "at_least", "at_most", "weights"):
            of_weights = name == "weights"
            kinds = f"{'Iterable[str] | ' if of_weights else ''}Mapping[str, float] | None"
            bound = _WEIGHT if of_weights else _SQUARED
            value: Any = check_value(getattr(self, name), name, kinds, bound)
            if value is None:
                continue
            if not isinstance(value, (Mapping, pd.Series)):
                value = [str(gene) for gene in in_order(value)]
                object.__setattr__(self, name, value)
            elif of_weights and not any(weight for _, weight in value.items()):
                message = "weights are all 0: give at least one gene a weight above 0."
                raise ValueError(message)
            genes = [str(gene) for gene in (value if isinstance(value, list) else value.keys())]
            if not genes or len(set(genes)) < len(genes):
                message = f"{name} must name at least one gene, and every gene once."
                raise ValueError(message)
        check_value(self.away_weight, "away_weight", "float", _POSITIVE)
        for name in STATES:
            value = getattr(self, name)
            states = value if isinstance(value, list) else [value]
            for state in states:
                check_value(state, name, _STATES, _SQUARED)
            if isinstance(value, list) and (not states or any(state is None for state in states)):
                message = f"{name} is an empty list or contains None: list at least one state, not "
                message += "None."
                raise ValueError(message)
        # Parts that belong together.
        pulls = self.state is not None or self.signature is not None
        bounds = self.at_least is not None or self.at_most is not None
        message = ""
        if not pulls and not bounds:
            message = "A Target needs a part: give state, signature, at_least or at_most."
        elif DISTANCES[self.distance].of_changes is not None:
            has_both = self.state is not None and self.signature is not None
            if not pulls or has_both or bounds or self.away_from is not None:
                message = f"distance={self.distance!r} takes only state or signature, and weights: "
                message += "leave out all other parts."
        if message:
            raise ValueError(message)

    def __repr__(self) -> str:
        parts = (f"{name}={value!r}" for name, value in parts_of(self).items())
        return f"Target({', '.join(parts)})"


def as_target(target: Any, genes: Sequence[str] | None = None) -> Target:
    """Return a :class:`Target` unchanged, and any other value as the state of a new one.

    If ``genes``, the panel, is given, vectors become mappings from genes to means.

    Examples
    --------
    >>> from nextpert.study.target import as_target
    >>> as_target("STAT1")
    Target(state='STAT1')
    >>> as_target(np.array([2.0, 0.5]), ["STAT1", "B2M"])
    Target(state={'STAT1': 2.0, 'B2M': 0.5})
    """
    converted = target if isinstance(target, Target) else Target(state=target)
    if genes is None:
        return converted

    def by_gene(state: Any) -> Any:
        if isinstance(state, list):
            return [*map(by_gene, state)]
        if not isinstance(state, np.ndarray):
            return state
        if len(state) != len(genes):
            message = f"target is a vector of {len(state)} means, but there are {len(genes)} genes "
            message += "in the panel: give one mean per gene."
            raise ValueError(message)
        return dict(zip(genes, state.tolist(), strict=True))

    return replace(converted, **{name: by_gene(getattr(converted, name)) for name in STATES})


def parts_of(target: Target) -> dict[str, Any]:
    """Return the parts of a target by name, so that ``Target(**parts)`` equals it."""
    values = {field.name: getattr(target, field.name) for field in fields(target)}
    defaults = {field.name: field.default for field in fields(target)}
    return {name: value for name, value in values.items() if not _is_default(value, defaults[name])}


def named_genes(target: Target) -> list[str] | None:
    """Return the genes that count in a target of means of some genes; ``None`` if all count.

    Examples
    --------
    >>> from nextpert.study.target import Target, named_genes
    >>> named_genes(Target(state={"STAT1": 2.0}, at_most={"MYC": 1.0}))
    ['STAT1', 'MYC']
    """
    states = listed(target.state)
    if target.others == "control" or not states:
        return None
    if not all(isinstance(state, (Mapping, pd.Series)) for state in states):
        return None
    return genes_of(replace(target, weights=None))


def genes_of(target: Target) -> list[str]:
    """Return all genes that a target names, those of states to avoid included, each once.

    Examples
    --------
    >>> from nextpert.study.target import Target, genes_of
    >>> genes_of(Target(state="MYC", signature=["STAT1", "IRF1"], away_from={"JUN": 1.0}))
    ['JUN', 'STAT1', 'IRF1']
    """
    states = [*listed(target.state), *listed(target.away_from)]
    means = [state for state in states if isinstance(state, (Mapping, pd.Series))]
    parts = [*means, target.signature, target.at_least, target.at_most, target.weights]
    named = (x if isinstance(x, list) else x.keys() for x in parts if x is not None)
    return list(dict.fromkeys(str(gene) for genes in named for gene in genes))


def columns_of(target: Any) -> list[str]:
    """Return the columns of ``obs`` that define the groups of a target.

    Examples
    --------
    >>> from nextpert.study.target import Target, columns_of
    >>> columns_of(Target(state=["STAT1", ("cell_type", "memory"), ("day", 7)]))
    ['cell_type', 'day']
    """
    requested = as_target(target)
    states = [*listed(requested.state), *listed(requested.away_from)]
    return list(dict.fromkeys(str(state[0]) for state in states if isinstance(state, tuple)))


def listed(states: State | list[Any] | None) -> list[Any]:
    """Return the states of a target as a list; empty if there are none."""
    return states if isinstance(states, list) else [] if states is None else [states]


def cell_variance(
    control: Moments, genes: Sequence[str], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each gene's variance in control cells; 1 for a constant gene with weight 0."""
    variance = np.asarray(control.scatter.diagonal() / max(control.n - 1, 1))
    flat = [genes[int(i)] for i in np.flatnonzero((variance <= 0) & (weights > 0))]
    if flat:
        message = "distance='noise' divides by the variance of control cells, which is 0 in "
        message += f"{list_names(flat)}: leave these genes out of weights."
        raise ValueError(message)
    return np.where(variance > 0, variance, 1.0)


def target_in_words(target: Target, states: Sequence[str], avoided: Sequence[str] = ()) -> str:
    """Return a target in words, with the names of its states and of those to avoid.

    Examples
    --------
    >>> from nextpert.study.target import Target, target_in_words
    >>> target = Target(state="STAT1", at_most={"MYC": 2}, weights=["IRF1"], distance="noise")
    >>> target_in_words(target, ["STAT1"])
    'STAT1; MYC <= 2; in IRF1; in units of noise'
    """
    words = []
    if states:
        words.append(list_names(states, limit=5) if len(states) > 1 else states[0])
    if target.signature is not None:
        words.append(f"change of {numbers_in_words(target.signature, ' ', sign='+')}")
    for bound, sign in ((target.at_least, " >= "), (target.at_most, " <= ")):
        if bound is not None:
            words.append(numbers_in_words(bound, sign))
    if avoided:
        by = "" if target.away_weight == 1 else f", weight {target.away_weight:g}"
        words.append(f"away from {list_names(avoided, limit=5)}{by}")
    if isinstance(target.weights, (Mapping, pd.Series)):
        words.append(f"weights {numbers_in_words(target.weights, ' ')}")
    elif target.weights is not None:
        words.append(f"in {list_names(target.weights, limit=5)}")
    if target.others != "ignore":
        words.append("other genes as in the controls")
    if target.own_genes != "exclude":
        words.append("own genes included")
    words.append(DISTANCES[target.distance].words)
    return "; ".join(filter(None, words))


def numbers_in_words(values: Numbers, between: str, sign: str = "") -> str:
    """Return ``"A=1, B=2"``, with ``between`` in place of ``=``."""
    return list_names((f"{g}{between}{float(v):{sign}.3g}" for g, v in values.items()), limit=NAMED)


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, (str, Real)) and value == default)


def _vector(value: NDArray[Any], name: str, needed: str) -> Vector:
    """Return a vector of means in double precision, or raise."""
    is_vector = value.dtype.kind in "iuf" and value.ndim == 1 and value.size
    means = value.astype(np.float64) if is_vector else np.full(1, np.nan)
    if not (np.abs(means) <= MAX_VALUE).all():
        message = (
            f"{name} must be {needed}, but is an array of shape {value.shape} and type "
            f"{value.dtype}, or holds values that are NaN, infinite or too large to be squared: "
            f"give a finite mean for each gene of the panel."
        )
        raise ValueError(message)
    return means


KINDS["Vector"] = Kind(
    "a vector of means over the panel", lambda value: isinstance(value, np.ndarray), _vector
)
KINDS["Target"] = Kind("a nextpert.Target", lambda value: isinstance(value, Target))
