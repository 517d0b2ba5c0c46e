"""Chains of Gibbs sampling: how long they are, and how they run on several processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    # Runs a task for each of some blocks; results come in their order.
    Workers = Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]]

_FOR_ALL = 1_000_000  # effects, of more of which all processors are used
# Effects of all draws that are kept, a byte each: of more, sweeps take hours, and their summaries
# minutes. Of screens for which the first number is fewer than 40 draws, the second.
_ROOM, _MOST = 80_000_000, 500_000_000


def threads(size: int) -> int:
    """Return how many threads draw and summarise a number of effects: all of many, else one.

    Results do not depend on it. Below a million effects, starting threads costs more than it saves.
    """
    return cpu_count() if size > _FOR_ALL else 1


class Chain(NamedTuple):
    """Lengths of a chain.

    Parameters
    ----------
    burn
        Sweeps thrown away.
    keep
        Draws kept.
    every
        Sweeps from one draw to the next.
    warm
        First sweeps in which the weights of tails are the most likely ones.
    """

    burn: int = 50
    keep: int = 200
    every: int = 1
    warm: int = 0

    @classmethod
    def of_size(cls, size: int) -> Chain:
        """Return lengths for a number of effects: weights learned from many need few sweeps.

        Up to 400,000 effects 50 sweeps are thrown away and 200 draws kept: on TAP-seq with 20
        cells a perturbation means are off by 0.07 to 0.11 sd (root mean square, four seeds), by
        0.07 with 1,000 sweeps. Of 10 million effects 40 are thrown away, and 40 kept of 80; of 50
        million and more 15, and 10 kept of 20.
        """
        # Draws that fit into the room, but no fewer than are needed.
        least = np.clip(_MOST // max(size, 1), 10, 40)
        keep = int(np.clip(_ROOM // max(size, 1), least, cls().keep))
        return cls() if keep == cls().keep else cls(max(keep, 15), keep, 2, 10)

    def sweeps(
        self, n_jobs: int, progress: Callable[[int, int], object] | None
    ) -> Iterator[tuple[int, int | None, Workers]]:
        """Yield the number of every sweep, of the draw that is kept after it, and the workers.

        ``None`` stands for sweeps after which none is kept; the rest is as in
        :func:`~nextpert.core.model.hierarchical.fit_hierarchical`.
        """
        every = self.burn + self.keep * self.every
        with Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem") as pool:

            def shared(task: Callable[[int], Any], blocks: Sequence[int]) -> Iterable[Any]:
                if len(blocks) == 1:
                    return map(task, blocks)
                done: Iterable[Any] = pool(map(delayed(task), blocks))
                return done

            # A chain is many short sweeps.
            workers: Workers = map if n_jobs == 1 else shared
            for number in range(every):
                draw, left = divmod(number - self.burn + 1, self.every)
                yield number, draw - 1 if draw > 0 and left == 0 else None, workers
                if progress is not None:
                    progress(number + 1, every)
