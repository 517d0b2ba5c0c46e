"""One codec for results: dataclasses to and from mappings of what h5ad and zarr keep.

A field says beside itself what is stored of it: :func:`array`, :func:`sparse`,
:func:`flag`, :func:`text`, :func:`texts`, :func:`lists`, :func:`table`, :func:`nested`,
:func:`series` and :func:`coded` return fields of a dataclass; an ``optional`` one is ``None`` by
default, and left out then. Shapes are written in sizes that all fields share, such as ``"n_nodes"``
or ``"n_nodes+1"``: the first field that has one binds it. :func:`unpack` checks types, shapes,
finiteness and bounds once. A class refuses what no field can see alone by a ValueError of its
``__post_init__``; constants in its ``stored_beside``, such as a format number, are stored with it
and have to be the same. A result that is no dataclass carries a list of what it holds
(:func:`describe`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")
FORMAT = 6  # of every result; others are refused, and a test says when it has to move
_DOUBLE = 10_000_000  # numbers of a table: of more, an array in double precision takes gigabytes


def table_type(size: int) -> type[np.floating[Any]]:
    """Return the numbers of tables of so many: of very many in single precision."""
    return np.float32 if size > _DOUBLE else np.float64


def filled(shape: tuple[int, ...], value: float) -> NDArray[np.float64]:
    """Return a table of one value; a very large one takes no memory, and cannot be written."""
    one = np.broadcast_to(value, shape)
    return one if one.size > _DOUBLE else one.copy()


@dataclass
class Reading:
    """A stored result that is being read.

    Parameters
    ----------
    where
        What it is called in errors.
    remedy
        What helps where it is damaged, such as ``"run tl.fit_dag_blr again"``.
    sizes
        Lengths by name, bound so far.
    """

    where: str
    remedy: str
    sizes: dict[str, int]

    def damaged(self, what: str) -> ValueError:
        """Return the error of a result that no function writes so."""
        return ValueError(
            f"{self.where} is damaged or of another version of nextpert ({what.rstrip('.')}): "
            f"{self.remedy}."
        )

    def require_shape(self, found: tuple[int, ...], shape: Sequence[str | int], name: str) -> None:
        """Raise unless a shape is the one declared; sizes that are not known yet are bound."""
        wanted = list(shape)
        for k, (length, size) in enumerate(zip(found, shape, strict=False)):
            symbol, _, more = str(size).partition("+")
            if isinstance(size, str) and length >= int(more or 0):
                wanted[k] = self.sizes.setdefault(symbol, length - int(more or 0)) + int(more or 0)
        if list(found) != wanted:
            each = zip(wanted, shape, strict=True)
            declared = ", ".join(str(n) if n == size else f"{size}={n}" for n, size in each)
            raise self.damaged(f"{name} has the shape {list(found)} in place of [{declared}]")


class Part(NamedTuple):
    """How a field is stored, and how it is read back; ``record`` is the dataclass that it holds."""

    pack: Callable[[Any], Any]
    unpack: Callable[[Any, Reading, str], Any]
    record: type | None = None


def pack(value: Any, record: type | None = None) -> dict[str, Any]:
    """Return a dataclass as it is stored, or what ``record`` declares of any other object.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from nextpert.core._codec import array, pack, texts, unpack
    >>> @dataclass
    ... class Effects:
    ...     genes: list[str] = texts("n_genes")
    ...     mean: np.ndarray = array("n_genes")
    >>> stored = pack(Effects(["MYC", "STK3"], np.array([0.5, -1.0])))
    >>> unpack(Effects, stored, "The result", "run it again").mean.tolist()
    [0.5, -1.0]
    >>> unpack(Effects, stored | {"mean": [0.5]}, "The result", "run it again")
    Traceback (most recent call last):
    ValueError: The result is damaged or of another version of nextpert (mean has the shape [1] in \
place of [n_genes=2]): run it again.
    """
    out: dict[str, Any] = {}
    waiting = [(out, value, record or type(value))]
    for into, one, of in waiting:  # parts that are dataclasses are appended as they are met
        into.update(getattr(of, "stored_beside", ()))
        for each in fields(of):
            part: Part | None = each.metadata.get("part")
            held = getattr(one, each.name)
            if part is None or (held is None and each.default is not MISSING):
                continue
            if part.record is None:
                into[each.name] = part.pack(held)
            else:
                into[each.name] = {}
                waiting.append((into[each.name], held, part.record))
    return out


def unpack(
    make: Callable[..., T],
    stored: Any,
    where: str,
    remedy: str,
    record: Any = None,
    reading: Reading | None = None,
    **sizes: int,
) -> T:
    """Return what :func:`pack` stored, all of it checked.

    Parameters
    ----------
    make
        The dataclass, or what else is called with the fields of ``record``.
    stored
        What is stored of it.
    where, remedy
        As of :class:`Reading`.
    record
        The dataclass that declares the fields; ``None`` stands for ``make``.
    reading
        That of which this is a part, in place of ``where``, ``remedy`` and ``sizes``.
    sizes
        Lengths that are known already.

    Raises
    ------
    ValueError
        If a part is absent, of another type or shape, not finite, out of bounds, or refused by
        ``make`` with a ValueError.
    """
    reading, record = reading or Reading(where, remedy, dict(sizes)), record or make
    if not hasattr(stored, "keys"):
        raise reading.damaged(f"it is no mapping, but {type(stored).__name__}")
    for name, value in dict(getattr(record, "stored_beside", ())).items():
        if not np.array_equal(_numbers(stored.get(name), reading, name), value):
            raise reading.damaged(f"its {name} is not {np.asarray(value).tolist()}")
    values = {}
    for each in fields(record):
        part: Part | None = each.metadata.get("part")
        if part is None:  # not stored
            continue
        if each.name in stored and part.record is not None:
            inside = Reading(f"{reading.where}[{each.name!r}]", reading.remedy, reading.sizes)
            values[each.name] = unpack(part.record, stored[each.name], "", "", reading=inside)
        elif each.name in stored:
            values[each.name] = part.unpack(stored[each.name], reading, each.name)
        elif each.default is MISSING:
            raise reading.damaged(f"its {each.name} is gone")
    try:
        return make(**values)
    except ValueError as error:
        raise reading.damaged(str(error)) from None


# -- kinds of fields --------------------------------------------------------------------------


def _field(store: Any, read: Any, record: type | None = None, *, optional: bool = False) -> Any:
    held = {"part": Part(store, read, record)}
    return field(default=None, metadata=held) if optional else field(metadata=held)


def array(
    *shape: str | int,
    whole: bool = False,
    least: float = -np.inf,
    above: float = -np.inf,
    most: float = np.inf,
    unless: str | None = None,
    optional: bool = False,
    is_table: bool = False,
    dtype: Any = None,
) -> Any:
    """Declare finite numbers of a shape, ``whole`` or floats; without a shape one number.

    They are no less than ``least``, more than ``above`` and at most ``most``. The text ``unless``
    may stand in their place. A table is kept and read by :func:`table_type`, and many numbers by a
    small ``dtype``.
    """

    def read(stored: Any, reading: Reading, name: str) -> Any:
        if unless is not None and isinstance(stored, str) and stored == unless:
            return unless
        is_whole = whole or (dtype is not None and np.dtype(dtype).kind == "i")
        found = _numbers(stored, reading, name, whole=is_whole, least=least, above=above)
        reading.require_shape(found.shape, shape, name)
        if found.size and found.max() > most:
            raise reading.damaged(f"{name} holds values above {most:g}")
        kind = dtype or (np.int64 if whole else table_type(found.size) if is_table else np.float64)
        found = found.astype(kind, copy=False)
        return found if shape else found.item()

    def store(value: Any) -> Any:
        if is_table:
            kind = table_type(np.size(value))
            if not np.any(value):  # pages of zeros that are not written take no memory
                return np.zeros(np.shape(value), kind)
            return np.asarray(value, kind, order="C")
        return np.asarray(value, dtype, order="C") if shape else value

    return _field(store, read, optional=optional)


def flag() -> Any:
    """Declare a yes or no, stored as 1 or 0."""

    def read(stored: Any, reading: Reading, name: str) -> bool:
        found = _numbers(stored, reading, name)
        if found.shape or found not in (0, 1):
            raise reading.damaged(f"{name} is {stored!r}, and can be 0 or 1")
        return bool(found)

    return _field(int, read)


def sparse(*shape: str, least: float = -np.inf, fill: float = 0.0, dense: bool = True) -> Any:
    """Declare a table that is stored as CSR, without the entries that are ``fill``.

    Beside a file it is dense, unless it is a ``csr_array`` there as well.
    """

    def store(value: Any) -> sp.csr_array:
        if not dense:
            return value
        rows, columns = np.nonzero(~np.isnan(value) if np.isnan(fill) else value != fill)
        return sp.csr_array((value[rows, columns], (rows, columns)), shape=value.shape)

    def read(stored: Any, reading: Reading, name: str) -> Any:
        if not sp.issparse(stored) or stored.format != "csr":
            raise reading.damaged(f"{name} is no CSR matrix")
        reading.require_shape(stored.shape, shape, name)
        _numbers(stored.data, reading, name, least=least)
        try:
            stored.check_format(full_check=True)
        except ValueError as error:
            raise reading.damaged(f"{name}: {error}") from None
        if not dense:
            return sp.csr_array(stored)
        # Pages of zeros that nobody writes take no memory, nor does a large table of one value.
        if fill and not stored.nnz:
            return filled(stored.shape, fill)
        found = np.full(stored.shape, fill) if fill else np.zeros(stored.shape)
        given = stored.tocoo()
        found[given.row, given.col] = given.data
        return found

    return _field(store, read)


def text(*among: str) -> Any:
    """Declare one text, of some where they are given."""

    def read(stored: Any, reading: Reading, name: str) -> str:
        if not isinstance(stored, str) or (among and stored not in among):
            raise reading.damaged(f"{name} is {stored!r}, and should be {among or 'a text'}")
        return str(stored)

    return _field(str, read)


def texts(size: str, *among: str) -> Any:
    """Declare a list of texts, of some where they are given."""

    def read(stored: Any, reading: Reading, name: str) -> list[str]:
        found = _texts(stored, reading, name)
        reading.require_shape((len(found),), (size,), name)
        unknown = set(found) - set(among or found)
        if unknown:
            raise reading.damaged(f"{name} holds {sorted(unknown)}, and can hold {among}")
        return found

    return _field(strings, read)


def lists(size: str) -> Any:
    """Declare lists of texts, which are stored by :func:`stored_lists`."""

    def read(stored: Any, reading: Reading, name: str) -> list[list[str]]:
        held = stored if hasattr(stored, "get") else {}
        names = _texts(held.get("names"), reading, f"{name}/names")
        offsets = _numbers(held.get("offsets"), reading, f"{name}/offsets", whole=True)
        reading.require_shape(offsets.shape, (f"{size}+1",), f"{name}/offsets")
        if offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(names):
            raise reading.damaged(f"{name}/offsets do not count its names")
        return [names[a:b] for a, b in itertools.pairwise(offsets.tolist())]

    return _field(stored_lists, read)


def nested(record: type, *, optional: bool = False) -> Any:
    """Declare another dataclass, with the same sizes."""

    def read(stored: Any, reading: Reading, name: str) -> Any:
        inside = Reading(f"{reading.where}[{name!r}]", reading.remedy, reading.sizes)
        return unpack(record, stored, "", "", reading=inside)

    return _field(lambda value: pack(value, record), read, record, optional=optional)


def coded(
    store: Callable[[Any], Any], read: Callable[[Any], Any], *, optional: bool = False
) -> Any:
    """Declare what has its own way to and from what is stored, and its own errors."""
    return _field(store, lambda stored, reading, name: read(stored), optional=optional)


def series(each: Any, *, optional: bool = False) -> Any:
    """Declare a list of fields of one kind, stored as ``"0"``, ``"1"`` and so on."""
    part: Part = each.metadata["part"]

    def store(value: Iterable[Any]) -> dict[str, Any]:
        return {str(k): part.pack(one) for k, one in enumerate(value)}

    def read(stored: Any, reading: Reading, name: str) -> list[Any]:
        inside = Reading(f"{reading.where}[{name!r}]", reading.remedy, reading.sizes)
        there = set(getattr(stored, "keys", lambda: {"no mapping"})())
        numbers = [str(k) for k in range(len(there))]
        if there != set(numbers):
            raise inside.damaged("some of its parts are gone")
        return [part.unpack(stored[k], inside, k) for k in numbers]

    return _field(store, read, optional=optional)


def table(size: str | None = None, *columns: str) -> Any:
    """Declare a DataFrame, and columns that it has beside others."""

    def read(stored: Any, reading: Reading, name: str) -> Any:
        gone = sorted(set(columns) - set(getattr(stored, "columns", ())))
        if gone or not hasattr(stored, "columns"):
            raise reading.damaged(f"{name} has no column {gone}" if gone else f"{name} is no table")
        if size is not None:
            reading.require_shape((len(stored),), (size,), name)
        return stored

    return _field(lambda value: value, read)


def strings(values: Iterable[Any]) -> NDArray[np.object_]:
    """Return texts as the object array that anndata gives back when it reads an h5ad file."""
    items = [str(value) for value in values]
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def stored_lists(lists: Iterable[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """Return lists of texts one after the other (``names``), and where each begins.

    Texts may hold any character, so that none joined from them could be taken apart again.
    """
    every = [list(some) for some in lists]
    offsets = np.cumsum([0, *map(len, every)], dtype=np.int64)
    return {"names": strings(itertools.chain(*every)), "offsets": offsets}


def _numbers(
    stored: Any,
    reading: Reading,
    name: str,
    *,
    whole: bool = False,
    least: float = -np.inf,
    above: float = -np.inf,
) -> NDArray[Any]:
    """Return finite numbers, none below ``least`` and all above ``above``."""
    try:
        found = np.asarray(stored)
    except ValueError:  # lists of different lengths
        raise reading.damaged(f"{name} is ragged") from None
    if found.dtype.kind not in ("iu" if whole else "iuf"):
        kind = "whole numbers" if whole else "numbers"
        raise reading.damaged(f"{name} holds no {kind}, but {found.dtype}")
    # By the smallest and largest, as a mask of a very large array takes much memory.
    if found.size and not (np.isfinite(found.min()) and np.isfinite(found.max())):
        raise reading.damaged(f"{name} holds NaN or infinite values")
    if found.size and (found.min() < least or found.min() <= above):
        bound = f"below {least:g}" if least > above else f"that are not above {above:g}"
        raise reading.damaged(f"{name} holds values {bound}")
    return found


def _texts(stored: Any, reading: Reading, name: str) -> list[str]:
    try:
        found = np.asarray(stored)
    except ValueError:
        raise reading.damaged(f"{name} is ragged") from None
    values: list[Any] = found.tolist() if found.ndim == 1 else [None]
    if not all(isinstance(value, str) for value in values):
        raise reading.damaged(f"{name} is no list of texts")
    return values


# -- results without a dataclass ---------------------------------------------------------------


def require_as_described(stored: Any, where: str, remedy: str) -> None:
    """Raise unless a result is as :func:`describe` says.

    Parts may be added, and rows of tables left out.

    Raises
    ------
    ValueError
        If it has another format, or a part of it is gone, was cut, has another type or is no
        longer finite.
    """
    reading = Reading(where, remedy, {})
    if not hasattr(stored, "keys") or hasattr(stored, "columns"):
        raise reading.damaged("it is no result")
    its_format = stored.get("format")
    if describe({"format": its_format})["format"] != "numbers []" or its_format != FORMAT:
        raise reading.damaged(f"its format is not {FORMAT}")
    try:
        target = json.loads(str(stored.get("contents")))
    except json.JSONDecodeError:
        target = None
    if not isinstance(target, dict):
        raise reading.damaged("the list of what it holds is unreadable")
    now = describe({name: stored[name] for name in target if name in stored})  # others are added
    compared: list[tuple[str, Any, Any]] = [("", {"parts": now}, {"parts": target})]
    for place, one, other in compared:  # parts of parts are appended as they are met
        if not isinstance(one, dict) or not isinstance(other, dict):
            if one != other:
                raise reading.damaged(f"{place} is {one} in place of {other}")
            continue
        if one.keys() != other.keys():
            raise reading.damaged(f"{place} has another type")
        ((kind, parts),) = other.items()
        for name, part in parts.items():
            inside = f"{place}/{name}" if place else name
            if name not in one[kind]:
                raise reading.damaged(f"it lacks {inside}")
            compared.append((inside, one[kind][name], part))


def digest_of(value: Any) -> str:
    """Return a digest of a result; of arrays of more than a million values, of some."""
    text, waiting = hashlib.sha256(), [value]
    while waiting:  # depth first, every name before what it names
        part = waiting.pop()
        if isinstance(part, bytes):
            text.update(part)
        elif isinstance(part, Mapping) or hasattr(part, "columns"):
            for name in reversed(list(part)):
                waiting += [part[name], f"{name}\0".encode()]
        elif sp.issparse(part):
            waiting += [part.data, part.indices, part.indptr]
        else:
            flat = np.asarray(part).ravel()
            some = flat[:: 1 + flat.size // 1_000_000]
            as_text = some.dtype.kind not in "biuf"
            text.update(f"{flat.size}\0".encode())
            text.update("\0".join(map(str, some)).encode() if as_text else some.tobytes())
    return text.hexdigest()[:16]


def describe(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return type, shape and finiteness of each part of a result, in words that files keep."""
    kinds = {**dict.fromkeys("biuf", "numbers"), "c": "complex"}  # all others are texts
    description: dict[str, Any] = {}
    waiting = [(description, str(name), value) for name, value in result.items()]
    for into, name, value in waiting:  # parts of parts are appended as they are met
        into[name], array = "", value
        if hasattr(value, "columns"):
            each = {str(key): kinds.get(value[key].dtype.kind, "text") for key in value.columns}
            into[name] = {"columns": each}
            continue
        if isinstance(value, Mapping):
            inside: dict[str, Any] = {}
            into[name] = {"parts": inside}
            waiting += [(inside, str(key), part) for key, part in value.items()]
            continue
        if value is None:
            into[name] = "nothing"
            continue
        if sp.issparse(value):
            into[name] = f"sparse {list(value.shape)}"
            array = value.data
            try:
                if value.format in ("csr", "csc"):
                    value.check_format(full_check=True)
            except ValueError as error:
                into[name] = f"damaged, {error}"
                continue
        else:
            try:
                array = np.asarray(value)
            except ValueError:
                into[name] = "ragged"
                continue
            kind = kinds.get(array.dtype.kind, "text") if array.size else "empty"
            into[name] = f"{kind} {list(array.shape)}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            into[name] += " not finite"
    return description
