"""One codec for results: dataclasses to and from mappings of what h5ad and zarr keep.

A field says beside itself what is stored of it: :func:`array`, :func:`sparse`,
:func:`flag`, :func:`text`, :func:`texts`, :func:`lists`, :func:`table`, :func:`nested`,
:func:`series` and :func:`coded` return fields of a dataclass; an ``optional`` one is ``None`` by
default, and left out then. Every result carries a list of what it holds, by which the types and
shapes of all parts are checked (:func:`describe`). :func:`unpack` checks numbers beside: shapes,
written in sizes that all fields share, such as ``"n_nodes"`` or ``"n_nodes+1"``, finiteness and
bounds. A class refuses what no field can see alone by a ValueError of its ``__post_init__``;
constants in its ``stored_beside``, such as a format number, are stored with it and have to be the
same.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

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

    def inside(self, name: str) -> Reading:
        """Return the reading of a part, which shares its sizes."""
        return Reading(f"{self.where}[{name!r}]", self.remedy, self.sizes)

    def require_shape(self, found: tuple[int, ...], shape: Sequence[str | int], name: str) -> None:
        """Raise unless a shape is the one declared; sizes that are not known yet are bound."""
        target = list(shape)
        for k, (length, size) in enumerate(zip(found, shape, strict=False)):
            symbol, _, more = str(size).partition("+")
            if isinstance(size, str) and length >= int(more or 0):
                target[k] = self.sizes.setdefault(symbol, length - int(more or 0)) + int(more or 0)
        if list(found) != target:
            each = zip(target, shape, strict=True)
            declared = ", ".join(str(n) if n == size else f"{size}={n}" for n, size in each)
            raise self.damaged(f"{name} has the shape {list(found)} in place of [{declared}]")

    def numbers(self, stored: Any, name: str, part: Part) -> NDArray[Any]:
        """Return the finite numbers that a part declares, of any shape."""
        try:
            found = np.asarray(stored)
        except ValueError:  # lists of different lengths
            raise self.damaged(f"{name} is ragged") from None
        if found.dtype.kind not in ("iu" if part.whole else "iuf"):
            kind = "whole numbers" if part.whole else "numbers"
            raise self.damaged(f"{name} holds no {kind}, but {found.dtype}")
        if not found.size:
            return found
        # By the smallest and largest, as a mask of a very large array takes much memory.
        low, high = found.min(), found.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise self.damaged(f"{name} holds NaN or infinite values")
        if low < part.least or low <= part.above or high > part.most:
            bounds = f"{part.least:g} to {part.most:g}, above {part.above:g}"
            raise self.damaged(f"{name} holds values out of bounds ({bounds})")
        return found


@dataclass(frozen=True)
class Part:
    """How a field is stored and read.

    Parameters
    ----------
    kind, shape
        Name of the function that declares it, and sizes by name or as numbers.
    whole, least, above, most, dtype
        Of numbers: whether they are whole, bounds, and a small type for many.
    unless
        A text that may stand in place of numbers.
    is_table
        Whether numbers are kept and read by :func:`table_type`.
    record, inner
        The dataclass that it holds, and the part that a series has many of.
    store, read
        Its own way to and from what is stored.
    """

    kind: str
    shape: tuple[str | int, ...] = ()
    whole: bool = False
    least: float = -np.inf
    above: float = -np.inf
    most: float = np.inf
    dtype: Any = None
    unless: str | None = None
    is_table: bool = False
    record: type | None = None
    inner: Part | None = None
    store: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] | None = None


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
    record = record or type(value)
    out = dict(getattr(record, "stored_beside", ()))
    for each in fields(record):
        held, part = getattr(value, each.name), each.metadata.get("part")
        if part is not None and (held is not None or each.default is MISSING):
            out[each.name] = _store(part, held)
    return out


def _store(part: Part, value: Any) -> Any:
    """Return the value of a field as it is stored."""
    if part.store is not None:
        return part.store(value)
    if part.record is not None:
        return pack(value, part.record)
    if part.inner is not None:
        return {str(k): _store(part.inner, one) for k, one in enumerate(value)}
    if part.kind == "array" and part.shape:
        dtype = table_type(np.size(value)) if part.is_table else part.dtype
        if part.is_table and not np.any(value):  # pages of zeros, not written, take no memory
            return np.zeros(np.shape(value), dtype)
        return np.asarray(value, dtype, order="C")
    return value


def unpack(
    record: Callable[..., T],
    stored: Any,
    where: str,
    remedy: str,
    reading: Reading | None = None,
) -> T:
    """Return what :func:`pack` stored, all of it checked.

    Parameters
    ----------
    record
        The dataclass.
    stored
        What is stored of it.
    where, remedy
        As of :class:`Reading`.
    reading
        That of which this is a part, in place of ``where`` and ``remedy``.

    Raises
    ------
    ValueError
        If a part is absent, of another type or shape, not finite, out of bounds, or refused by
        the dataclass with a ValueError.
    """
    reading = reading or Reading(where, remedy, {})
    if not hasattr(stored, "keys"):
        raise reading.damaged(f"it is no mapping, but {type(stored).__name__}")
    for name, value in dict(getattr(record, "stored_beside", ())).items():
        if not np.array_equal(reading.numbers(stored.get(name), name, Part("array")), value):
            raise reading.damaged(f"its {name} is not {np.asarray(value).tolist()}")
    values = {}
    for each in fields(cast("Any", record)):
        part: Part | None = each.metadata.get("part")
        if part is None:  # not stored
            continue
        if each.name not in stored:
            if each.default is MISSING:
                raise reading.damaged(f"its {each.name} is gone")
        elif part.record is not None:
            inside = reading.inside(each.name)
            values[each.name] = unpack(part.record, stored[each.name], "", "", reading=inside)
        else:
            values[each.name] = _read(part, stored[each.name], reading, each.name)
    try:
        return record(**values)
    except ValueError as error:
        raise reading.damaged(str(error)) from None


def _read(part: Part, stored: Any, reading: Reading, name: str) -> Any:
    """Return the value of a field from what is stored of it, or raise."""
    if part.read is not None:
        made = part.read(stored)
        if part.shape:
            reading.require_shape(np.shape(made)[: len(part.shape)], part.shape, name)
        return made
    if part.record is not None:
        return unpack(part.record, stored, "", "", reading=reading.inside(name))
    if part.inner is not None:
        inside = reading.inside(name)
        return [_read(part.inner, stored[str(k)], inside, str(k)) for k in range(len(stored))]
    if part.unless is not None and isinstance(stored, str) and stored == part.unless:
        return part.unless
    found = reading.numbers(stored, name, part)
    reading.require_shape(found.shape, part.shape, name)
    usual = table_type(found.size) if part.is_table else np.float64
    found = found.astype(part.dtype or (np.int64 if part.whole else usual), copy=False)
    return found if part.shape else found.item()


# -- kinds of fields --------------------------------------------------------------------------


def _field(kind: str, *shape: str | int, optional: bool = False, **declared: Any) -> Any:
    held = {"part": Part(kind, shape, **declared)}
    return field(default=None, metadata=held) if optional else field(metadata=held)


def array(*shape: str | int, **declared: Any) -> Any:
    """Declare finite numbers of a shape, or one number; ``declared`` as of :class:`Part`."""
    return _field("array", *shape, **declared)


def flag() -> Any:
    """Declare a yes or no, stored as 1 or 0."""
    return _field("flag", whole=True, least=0, most=1, dtype=bool, store=int)


def sparse(*shape: str, dense: bool = True) -> Any:
    """Declare a table that is stored as CSR, and is ``dense`` beside a file, or a CSR array."""
    read = (lambda stored: stored.toarray()) if dense else sp.csr_array
    return _field("sparse", *shape, store=sp.csr_array, read=read)


def text() -> Any:
    """Declare one text."""
    return _field("text", store=str, read=str)


def texts(size: str) -> Any:
    """Declare a list of texts."""
    return _field("texts", size, store=strings, read=lambda stored: list(map(str, stored)))


def lists() -> Any:
    """Declare lists of texts, which are stored by :func:`stored_lists`."""
    return _field("lists", store=stored_lists, read=_read_lists)


def table(*size: str) -> Any:
    """Declare a DataFrame."""
    return _field("table", *size, store=lambda value: value, read=lambda stored: stored)


def nested(record: type, *, optional: bool = False) -> Any:
    """Declare another dataclass, with the same sizes."""
    return _field("nested", record=record, optional=optional)


def coded(
    store: Callable[[Any], Any], read: Callable[[Any], Any], *, optional: bool = False
) -> Any:
    """Declare what has its own way to and from what is stored, and its own errors."""
    return _field("coded", store=store, read=read, optional=optional)


def series(each: Any, *, optional: bool = False) -> Any:
    """Declare a list of fields of one kind, stored as ``"0"``, ``"1"`` and so on."""
    return _field("series", inner=each.metadata["part"], optional=optional)


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


def _read_lists(stored: Mapping[str, Any]) -> list[list[str]]:
    names, offsets = list(map(str, stored["names"])), np.asarray(stored["offsets"]).tolist()
    return [names[a:b] for a, b in itertools.pairwise(offsets)]


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
    if not np.array_equal(stored.get("format"), FORMAT):
        raise reading.damaged(f"its format is not {FORMAT}")
    try:
        target = json.loads(str(stored.get("contents")))
    except json.JSONDecodeError:
        target = None
    if not isinstance(target, dict):
        raise reading.damaged("the list of what it holds is unreadable")
    now = describe({name: stored[name] for name in target if name in stored})  # others are added
    waiting = [("", now, {"parts": target})]
    for place, found, before in waiting:
        if not isinstance(found, dict) or not isinstance(before, dict):
            if found != before:
                raise reading.damaged(f"{place} is {found} in place of {before}")
            continue
        if found.keys() != before.keys():
            raise reading.damaged(f"{place} has another type")
        ((kind, parts),) = before.items()
        for name, part in parts.items():
            inside = f"{place}/{name}" if place else name
            if name not in found[kind]:
                raise reading.damaged(f"it lacks {inside}")
            waiting.append((inside, found[kind][name], part))


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


def describe(value: Any) -> Any:
    """Return type, shape and finiteness of a value or of each part of it, in words for files."""
    kinds = {**dict.fromkeys("biuf", "numbers"), "c": "complex"}  # all others are texts
    every: dict[str, Any] = {}
    waiting = [(every, "", value)]
    for into, name, part in waiting:
        if hasattr(part, "columns"):
            each = {str(key): kinds.get(part[key].dtype.kind, "text") for key in part.columns}
            into[name] = {"columns": each}
            continue
        if isinstance(part, Mapping):
            inside: dict[str, Any] = {}
            into[name] = {"parts": inside}
            waiting += [(inside, str(key), inner) for key, inner in part.items()]
            continue
        if part is None:
            into[name] = "nothing"
            continue
        try:
            if sp.issparse(part):
                numbers, words = part.data, f"sparse {list(part.shape)}"
                if part.format in ("csr", "csc"):
                    part.check_format(full_check=True)
            else:
                numbers = np.asarray(part)
                kind = kinds.get(numbers.dtype.kind, "text") if numbers.size else "empty"
                words = f"{kind} {list(numbers.shape)}"
        except ValueError as error:
            into[name] = f"damaged, {error}" if sp.issparse(part) else "ragged"
            continue
        is_finite = numbers.dtype.kind != "f" or np.isfinite(numbers).all()
        into[name] = words if is_finite else f"{words} not finite"
    return every[""]
