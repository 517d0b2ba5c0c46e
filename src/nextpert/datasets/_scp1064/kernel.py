"""Compiled loops: rows of comma-separated numbers to sparse entries, and these to cells.

Every byte of every field is looked at. Most fields are zeros, ``0`` or ``0.0``: eight bytes at a
time are compared with a run of them. Numbers are the nearest float64 to what is printed, as
Python's ``float`` gives; where 64 bits cannot tell, the field is left to Python.
"""

# Calls of compiled functions look different to a type checker.
# mypy: disable-error-code="assignment, call-arg, import-untyped"
from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nextpert.core._compile import entry, inner

# Why `parse_rows` came back.
DONE, NOT_A_NUMBER, TOO_FEW, TOO_MANY, NEGATIVE, TOO_LARGE, TO_PYTHON, BAD_NAME = range(8)
# What `parse_rows` keeps in `state` from call to call.
POSITION, FIELD, LINE, N_ENTRIES, ZERO_LENGTH, STOP, DECIMALS = range(7)
OFF_FIELD, OFF_LINE, OFF_ENTRY, N_STATE = range(7, 11)

_COMMA, _NEWLINE, _RETURN, _QUOTE, _POINT, _ZERO = 44, 10, 13, 34, 46, 48
_SHORT_ZEROS = np.uint64(int.from_bytes(b"0,0,0,0,", "little"))
_LONG_ZEROS = np.uint64(int.from_bytes(b"0.0,0.0,", "little"))
# Eight digits in a word, turned to a number by three multiplications.
_ZEROS, _HIGH_BITS = np.uint64(0x3030303030303030), np.uint64(0x8080808080808080)
_ABOVE_NINE, _PAIRS = np.uint64(0x7676767676767676), np.uint64(0x000000FF000000FF)
_TO_EIGHT, _TO_FOUR = np.uint64(0x000F424000000064), np.uint64(0x0000271000000001)
_WHOLE_POWERS = np.array([10**k for k in range(9)], dtype=np.uint64)
_POWERS = np.array([10.0**k for k in range(23)])
_EXACT = 2**53
_SPLITTER = 134217729.0  # 2^27 + 1: halves of a float64 whose products are exact
_HALF_UNITS = np.array([0.5 / 10.0**k for k in range(23)])  # of the last decimal
# Numbers below ten have one more decimal than those above, below one two more. One printed with
# fewer than that ends in zeros.
_FEWER = 2
# Values may have gone through float32, and been printed with its digits or more.
_SINGLE, _SINGLE_DECIMALS = 2.0**-24, 8


@intrinsic
def _load(typing: Any, buffer: Any, position: Any) -> Any:
    """Return the eight bytes at ``position`` as one number, the first byte lowest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        start = builder.gep(array.data, [args[1]])
        return builder.load(builder.bitcast(start, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(buffer, types.int64), generate


@intrinsic
def _n_low_zeros(typing: Any, word: Any) -> Any:
    """Return how many bits of a 64-bit number are zero before its first one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.false_bit)

    return types.int64(types.uint64), generate


@inner
def _digits(buffer: np.ndarray, position: int, mantissa: np.uint64) -> tuple[np.uint64, int]:
    """Append the digits at ``position`` to ``mantissa``, eight at a time; return it and where."""
    n = 8
    while n == 8:
        word = _load(buffer, position) ^ _ZEROS
        n = _n_low_zeros(((word + _ABOVE_NINE) | word) & _HIGH_BITS) >> 3
        if n > 0:
            word <<= np.uint64(64 - 8 * n)
            word = word * np.uint64(10) + (word >> np.uint64(8))  # pairs of digits
            eight = (word & _PAIRS) * _TO_EIGHT + ((word >> np.uint64(16)) & _PAIRS) * _TO_FOUR
            mantissa = mantissa * _WHOLE_POWERS[n] + (eight >> np.uint64(32))
            position += n
    return mantissa, position


@inner
def _divide(mantissa: np.uint64, digits: int) -> float:
    """Return the float64 next to ``mantissa / 10**digits``, or -1 where it is too near a tie."""
    power = _POWERS[digits]
    if mantissa <= _EXACT:
        return np.float64(mantissa) / power
    high = np.float64(mantissa)
    low = np.float64(np.int64(mantissa - np.uint64(high)))
    quotient = high / power
    # quotient * power as a sum of two float64 (Dekker), for the remainder of the division.
    product = quotient * power
    a = _SPLITTER * quotient
    a -= a - quotient
    b = _SPLITTER * power
    b -= b - power
    a_low, b_low = quotient - a, power - b
    error = a_low * b_low - (((product - a * b) - a_low * b) - a * b_low)
    correction = (((high - product) - error) + low) / power
    total = quotient + correction
    left = correction - (total - quotient)
    fraction, exponent = math.frexp(total)
    half = math.ldexp(1.0, exponent - 54)
    if fraction == 0.5 or abs(abs(left) - half) < 1e-9 * half:
        return -1.0
    return total


@inner
def _number(buffer: np.ndarray, position: int) -> tuple[int, float, int, int]:
    """Return end, value, decimals and status of the number at ``position``."""
    start = position
    mantissa, position = _digits(buffer, start, np.uint64(0))
    n_digits = position - start
    decimals = 0
    if buffer[position] == _POINT:
        position += 1
        mantissa, end = _digits(buffer, position, mantissa)
        decimals = end - position
        position = end
        n_digits += decimals
    if n_digits == 0:
        return start, 0.0, 0, NEGATIVE if buffer[start] == 45 else NOT_A_NUMBER
    exponent = 0
    if buffer[position] == 101 or buffer[position] == 69:  # e, E
        position += 1
        sign = 1
        if buffer[position] == 43 or buffer[position] == 45:  # +, -
            sign = 44 - np.int64(buffer[position])
            position += 1
        first = position
        while np.uint8(buffer[position] - _ZERO) <= 9 and position - first < 6:
            exponent = exponent * 10 + (np.int64(buffer[position]) - _ZERO)
            position += 1
        if position == first:
            return start, 0.0, 0, NOT_A_NUMBER
        exponent *= sign
    decimals -= exponent
    if n_digits > 19 or decimals < 0 or decimals > 22:
        if mantissa == 0 and n_digits <= 19:
            return position, 0.0, 0, DONE
        return position, 0.0, decimals, TO_PYTHON
    value = _divide(mantissa, decimals)
    return position, value, decimals, TO_PYTHON if value < 0 else DONE


@inner
def _name_end(buffer: np.ndarray, position: int) -> int:
    """Return where the comma after a row's name stands, or -1."""
    if buffer[position] == _QUOTE:
        position += 1
        while buffer[position] != _QUOTE and buffer[position] != _NEWLINE:
            position += 1
        if buffer[position] == _NEWLINE:
            return -1
        position += 1
        return position if buffer[position] == _COMMA else -1
    while buffer[position] != _COMMA and buffer[position] != _NEWLINE:
        if buffer[position] == _QUOTE:
            return -1
        position += 1
    return position if buffer[position] == _COMMA else -1


@entry
def parse_rows(
    buffer: np.ndarray,
    state: np.ndarray,
    rows: np.ndarray,
    umi: np.ndarray,
    limit: float,
    from_python: float,
    names: np.ndarray,
    ends: np.ndarray,
    cells: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
    totals: np.ndarray,
    slack: np.ndarray,
) -> int:
    """Parse whole lines of ``buffer`` from ``state[POSITION]`` to ``state[STOP]``.

    ``rows`` holds the result's row of every field, -1 for cells not wanted. Entries that are not
    zero go to ``cells``, ``values`` and (unless empty) ``counts``; ``names`` gets where a
    line's name begins and ends in the buffer, ``ends`` where its entries end. ``totals`` sums up
    ``exp(value) - 1`` of every field, ``slack`` what rounding when printed may have changed it.
    ``from_python`` is the value of the field at hand if not negative: a field left to Python.
    """
    position, field, line, n = state[POSITION], state[FIELD], state[LINE], state[N_ENTRIES]
    stop, zero_length, most_decimals = state[STOP], state[ZERO_LENGTH], state[DECIMALS]
    off_field, off_line, off_entry = state[OFF_FIELD], state[OFF_LINE], state[OFF_ENTRY]
    n_fields, with_counts = len(rows), len(counts) > 0
    status = DONE
    while position < stop:
        if field < 0:  # at the start of a line
            name_end = _name_end(buffer, position)
            if name_end < 0:
                status = BAD_NAME
                break
            names[line, 0], names[line, 1] = position, name_end
            position = name_end + 1
            field = 0
        if zero_length == 2:
            k = _n_low_zeros(_load(buffer, position) ^ _SHORT_ZEROS) >> 4
            position += 2 * k
            field += k
            if k == 4:
                continue
        else:
            k = _n_low_zeros(_load(buffer, position) ^ _LONG_ZEROS) >> 5
            position += 4 * k
            field += k
            if k == 2:
                continue
        end, value, decimals, status = _number(buffer, position)
        if status == TO_PYTHON and from_python >= 0:
            value, from_python, status = from_python, -1.0, DONE
        if status == DONE and value > limit:
            status = TOO_LARGE
        after = buffer[end]
        if after == _RETURN and buffer[end + 1] == _NEWLINE:
            end += 1
            after = _NEWLINE
        if status == DONE and after != _COMMA and after != _NEWLINE:
            status = NOT_A_NUMBER
        if status != DONE:
            break
        if field >= n_fields:
            status = TOO_MANY
            break
        if value > 0:
            grown = math.exp(value)
            most_decimals = max(most_decimals, decimals)
            digits = max(decimals, most_decimals - _FEWER, 0)
            half = _HALF_UNITS[min(digits, 22)]
            unsure = grown * half * (1 + half)
            if digits <= _SINGLE_DECIMALS:
                unsure += grown * value * _SINGLE
            totals[field] += grown - 1
            slack[field] += unsure
            row = rows[field]
            if row >= 0:
                cells[n] = row
                values[n] = value
                scale = umi[field] * 1e-6
                count = (grown - 1) * scale
                whole = np.rint(count)
                unsure = (unsure + 2 * grown * value * _SINGLE) * scale
                if off_field < 0 and (
                    abs(count - whole) > unsure + 1e-9 or (with_counts and unsure >= 0.5)
                ):
                    off_field, off_line, off_entry = field, line, n
                if with_counts:
                    counts[n] = np.int32(whole)
                n += 1
        else:
            zero_length = 4 if end - position == 3 else 2
        position = end + 1
        field += 1
        if after == _NEWLINE:
            if field < n_fields:
                status = TOO_FEW
                break
            ends[line] = n
            line += 1
            field = -1
    state[POSITION], state[FIELD], state[LINE], state[N_ENTRIES] = position, field, line, n
    state[ZERO_LENGTH], state[DECIMALS] = zero_length, most_decimals
    state[OFF_FIELD], state[OFF_LINE], state[OFF_ENTRY] = off_field, off_line, off_entry
    return status


@entry
def sort_by_cell(
    cells: np.ndarray,
    genes: np.ndarray,
    values: np.ndarray,
    counts: np.ndarray,
    starts: np.ndarray,
    sorted_genes: np.ndarray,
    sorted_values: np.ndarray,
    sorted_counts: np.ndarray,
) -> None:
    """Sort entries by cell, keeping their order within a cell; ``starts`` is shifted to ends."""
    with_counts = len(counts) > 0
    for k in range(len(cells)):
        place = starts[cells[k]]
        starts[cells[k]] = place + 1
        sorted_genes[place] = genes[k]
        sorted_values[place] = values[k]
        if with_counts:
            sorted_counts[place] = counts[k]


@entry
def place_rows(
    lengths: np.ndarray, source: np.ndarray, next_places: np.ndarray, target: np.ndarray
) -> None:
    """Copy rows of the given lengths, one after the other in ``source``, to where they go on."""
    k = 0
    for row in range(len(lengths)):
        place = next_places[row]
        for j in range(lengths[row]):
            target[place + j] = source[k + j]
        k += lengths[row]
