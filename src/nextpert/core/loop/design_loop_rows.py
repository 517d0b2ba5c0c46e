"""Results of loops as columns of one tidy table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.loop.design_loop import DesignLoopResult

COLUMNS = ("round", "distance", "value", "seconds")


def design_loop_rows(
    results: Sequence[DesignLoopResult], labels: Sequence[Mapping[str, Any]]
) -> dict[str, NDArray[Any]]:
    """Return one row for every round of every loop, column by column.

    Plain columns of numbers and strings: they save as they are (``numpy.savez``), and
    ``pandas.DataFrame(design_loop_rows(...))`` is a table. Distances are those of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0), squared.

    Parameters
    ----------
    results
        What loops did, from :func:`design_loops`.
    labels
        What tells them apart (criterion, instance, run ...), one mapping a loop, all with the
        same keys.

    Returns
    -------
    dict
        A column for every label, then ``round`` (0 is before the first), ``distance`` (relative
        and squared, of the recommended shift after the round), ``value`` (of the criterion at the
        shift tried in the round; NaN at round 0 and in a warm-up) and ``seconds`` (wall time to
        propose it; NaN at round 0, 0 in a warm-up).

    Raises
    ------
    ValueError
        If the labels do not match the results, differ in their keys, or take a column's name.

    Examples
    --------
    >>> from nextpert.core import DagBlr, design_loop_rows, design_loops, random_scm
    >>> scm = random_scm(4, rng=0)
    >>> blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False)
    >>> task = {"source": scm, "posterior": blr, "target_mean": scm.mean([0, 0, 0.6, 0.8])}
    >>> names = ["civ", "greedy"]
    >>> tasks = [task | {"criterion": name, "n_rounds": 2, "rng": 0} for name in names]
    >>> results = design_loops(tasks)
    >>> rows = design_loop_rows(results, [{"criterion": name} for name in names])
    >>> rows["criterion"].tolist()
    ['civ', 'civ', 'civ', 'greedy', 'greedy', 'greedy']
    >>> rows["round"].tolist()
    [0, 1, 2, 0, 1, 2]
    """
    if len(results) != len(labels):
        message = f"There are {len(results)} results, but {len(labels)} labels: give one to each."
        raise ValueError(message)
    keys = list(labels[0]) if len(labels) else []
    for i, label in enumerate(labels):
        if set(label) != set(keys):
            message = f"Label {i} has the keys {list(label)}, but the first one has {keys}."
            raise ValueError(message)
    taken = sorted(set(keys) & set(COLUMNS))
    if taken:
        message = f"Labels must not be called {', '.join(taken)}: the table has these columns."
        raise ValueError(message)
    lengths = [len(result.distance) for result in results]
    columns = {key: np.repeat(np.array([label[key] for label in labels]), lengths) for key in keys}
    parts: dict[str, list[NDArray[Any]]] = {
        "round": [np.arange(n) for n in lengths],
        "distance": [result.distance for result in results],
        "value": [np.concatenate([[np.nan], result.values]) for result in results],
        "seconds": [np.concatenate([[np.nan], result.seconds]) for result in results],
    }
    for name, part in parts.items():
        kind = np.int64 if name == "round" else np.float64
        columns[name] = np.concatenate([np.empty(0, kind), *part])
    return columns
