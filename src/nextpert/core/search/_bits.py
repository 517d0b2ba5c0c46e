"""Sets of nodes as rows of 64-bit words, and splitmix64: random words, draws, weights of cells.

A set of ``p`` nodes takes ``ceil(p / 64)`` words; node ``k`` is bit ``k % 64`` of word ``k // 64``.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from math import exp, factorial
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._compile import inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE = np.uint64(1)
_LOW6 = np.uint64(63)
_M1 = np.uint64(0x5555555555555555)
_M2 = np.uint64(0x3333333333333333)
_M4 = np.uint64(0x0F0F0F0F0F0F0F0F)
_H1 = np.uint64(0x0101010101010101)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S1, _S2, _S4 = np.uint64(1), np.uint64(2), np.uint64(4)
_S11, _S27, _S30, _S31, _S32, _S56 = (np.uint64(s) for s in (11, 27, 30, 31, 32, 56))
# P(weight <= k) of a Poisson weight of mean 1; what lies beyond is below 1e-20.
_POISSON = np.cumsum([exp(-1.0) / factorial(k) for k in range(20)])


def pack_rows(matrix: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Pack a boolean matrix into bit sets, one a row, shape ``(n_rows, n_words)``."""
    rows, n = matrix.shape
    words = max((n + 63) // 64, 1)
    padded = np.zeros((rows, words * 64), dtype=np.uint8)
    padded[:, :n] = matrix
    packed = np.packbits(padded, axis=1, bitorder="little")
    return packed.view(np.dtype("<u8")).astype(np.uint64)


def unpack_rows(sets: NDArray[np.uint64], n: int) -> NDArray[np.bool_]:
    """Return the boolean matrix of some bit sets, shape ``(n_rows, n)``."""
    octets = np.ascontiguousarray(sets, dtype=np.dtype("<u8")).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")[:, :n].astype(bool)


@inner
def has(row, node):
    """Whether the set holds the node."""
    return (row[node >> 6] >> (np.uint64(node) & _LOW6)) & _ONE != np.uint64(0)


@inner
def flip(row, node):
    """Put the node in if it is out, and out if it is in."""
    row[node >> 6] ^= _ONE << (np.uint64(node) & _LOW6)


@inner
def popcount(word):
    """Count the bits that are set."""
    word = word - ((word >> _S1) & _M1)
    word = (word & _M2) + ((word >> _S2) & _M2)
    word = (word + (word >> _S4)) & _M4
    return np.int64((word * _H1) >> _S56)


@inner
def members(row, out):
    """Write the members of a set to ``out`` in ascending order; return how many there are."""
    count = 0
    for w in range(row.shape[0]):
        word = row[w]
        while word != np.uint64(0):
            lowest = word & (~word + _ONE)
            out[count] = w * 64 + popcount(lowest - _ONE)
            count += 1
            word ^= lowest
    return count


@inner
def mix(x):
    """Scramble 64 bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@inner
def random_below(state, n):
    """Draw from ``0..n - 1`` (splitmix64); ``state`` is an array of one word."""
    state[0] += _GOLDEN
    return np.int64(((mix(state[0]) >> _S32) * np.uint64(n)) >> _S32)


def poisson_weights(seeds: NDArray[np.uint64], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how often each resample takes each cell, shape ``(n_seeds, n_cells)``.

    Poisson of mean 1. The weight of cell ``k`` comes from number ``k`` of the splitmix64 stream
    of the resample's seed, so that it depends on neither the order nor the blocks of the cells.
    """
    steps = (cells.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    uniform = (mix.py_func(seeds[:, None] + steps) >> _S11) * 2.0**-53
    return np.searchsorted(_POISSON, uniform, side="right").astype(np.uint8)
