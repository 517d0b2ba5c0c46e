"""The codec of results: it converts dataclasses to and from mappings that h5ad and zarr can store.

The declaration of a field says how it is stored: :func:`array`, :func:`sparse`, :func:`flag`,
:func:`text`, :func:`texts`, :func:`lists`, :func:`table`, :func:`nested`, :func:`series` and
:func:`coded` return fields of a dataclass; an ``optional`` field is ``None`` by default, and is
then not stored. Every result contains a list of its contents (:func:`describe`), against which
types, shapes and finiteness of all parts are checked when it is read. :func:`unpack` also compares
shapes, which are given in sizes that all fields share, such as ``"n_nodes"`` or ``"n_nodes+1"``.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast
from zlib import crc32

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

T = TypeVar("T")
FORMAT = 7  # of every result; other formats raise an error, and a test says when to increase it
_SUM = ", sum "  # before the checksum of texts
_DOUBLE = 10_000_000  # maximum size of tables in double precision, to limit memory


def table_type(size: int) -> type[np.floating[Any]]:
    """Return the type of the numbers of a table: single precision for very large tables."""
    return np.float32 if size > _DOUBLE else np.float64


def damaged(where: str, problem: str, remedy: str) -> ValueError:
    """Return the error about a stored result, named ``where``, that cannot be read."""
    problem = problem.rstrip(".")
    return ValueError(
        f"{where} is damaged or was written by another version of nextpert ({problem}): {remedy}."
    )


@dataclass(frozen=True)
class Part:
    """The declaration of how a field is stored and read.

    Parameters
    ----------
    kind, shape
        Name of the function that declares the field, and its sizes as names or numbers.
    dtype
        Type of the numbers; by default double precision.
    unless
        A string that is allowed instead of numbers.
    is_table
        Whether the numbers are stored and read with the type of :func:`table_type`.
    record, inner
        The dataclass of a nested field, and the declaration of the elements of a series.
    store, read
        Functions that convert the value to and from its stored form.
    """

    kind: str
    shape: tuple[str | int, ...] = ()
    dtype: Any = None
    unless: str | None = None
    is_table: bool = False
    record: type | None = None
    inner: Part | None = None
    store: Callable[[Any], Any] | None = None
    read: Callable[[Any], Any] | None = None


def pack(value: Any, record: type | None = None) -> dict[str, Any]:
    """Return the stored form of a dataclass, or of another object with a declared ``record``.

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
    ValueError: The result is damaged or was written by another version of nextpert (mean has the \
shape [1] instead of [2]): run it again.
    """
    record = record or type(value)
    out = dict(getattr(record, "stored_beside", ()))
    for slot in fields(record):
        content = getattr(value, slot.name)
        part = slot.metadata.get("part")
        if part is not None and (content is not None or slot.default is MISSING):
            out[slot.name] = _store(part, content)
    return out


def _store(part: Part, value: Any) -> Any:
    """Return the stored form of a field's value."""
    if part.store is not None:
        return part.store(value)
    if part.record is not None:
        return pack(value, part.record)
    if part.inner is not None:
        return {str(k): _store(part.inner, one) for k, one in enumerate(value)}
    if part.kind == "array" and part.shape:
        dtype = table_type(np.size(value)) if part.is_table else part.dtype
        # An array of zeros that is never written to takes no memory.
        if part.is_table and not np.any(value):
            return np.zeros(np.shape(value), dtype)
        return np.asarray(value, dtype, order="C")
    return value


def unpack(record: Callable[..., T], stored: Any, where: str, remedy: str) -> T:
    """Return the dataclass that :func:`pack` stored.

    ``where`` is the name of the result in error messages, and ``remedy`` the advice if it is
    damaged, such as ``"run tl.fit_dag_blr again"``.
    """
    try:
        sizes: dict[str, int] = {}  # the lengths known so far, by name
        result: dict[str, Any] = {}
        # Parts to read, the next one last. A dataclass, or None for a list, waits below its parts,
        # which are in a mapping when its turn comes.
        waiting: list[tuple[Any, str, Any, dict[str, Any]]] = [
            (Part("nested", record=cast("type", record)), "", stored, result)
        ]
        while waiting:
            part, name, content, into = waiting.pop()
            if part is None:
                into[name] = list(content.values())
            elif not isinstance(part, Part):
                into[name] = part(**content)
            elif part.record is None and part.inner is None:
                into[name] = _read(part, content, sizes, name)
            else:
                inner: dict[str, Any] = {}
                waiting.append((part.record, name, inner, into))
                parts = _parts_of(part, content)
                waiting += [
                    (field_part, key, content[key], inner) for key, field_part in reversed(parts)
                ]
        return cast("T", result[""])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise damaged(where, str(error), remedy) from error


def _parts_of(part: Part, stored: Any) -> list[tuple[str, Part]]:
    """Return the parts of a stored dataclass or series, by name; raise if one is missing."""
    if part.inner is not None:
        return [(str(k), part.inner) for k in range(len(stored))]
    assert part.record is not None
    for name, value in getattr(part.record, "stored_beside", ()):
        if not np.array_equal(stored.get(name), value):
            message = f"its {name} is not {value}"
            raise ValueError(message)
    declared = [(slot, slot.metadata.get("part")) for slot in fields(part.record)]
    for slot, inner in declared:
        if inner is not None and slot.name not in stored and slot.default is MISSING:
            message = f"its {slot.name} is missing"
            raise ValueError(message)
    # A field without a part is not stored.
    return [(slot.name, inner) for slot, inner in declared if inner and slot.name in stored]


def _read(part: Part, stored: Any, sizes: dict[str, int], name: str) -> Any:
    """Return the value of a field that has no parts; ``sizes`` is that of :func:`unpack`."""
    if part.unless is not None and isinstance(stored, str) and stored == part.unless:
        return stored
    if part.read is None:
        numbers = np.asarray(stored)
        usual = table_type(numbers.size) if part.is_table else np.float64
        value: Any = numbers.astype(part.dtype or usual, casting="same_kind", copy=False)
    else:
        value = part.read(stored)
        if not part.shape:
            return value
    shape, target = list(np.shape(value)), list(part.shape)
    # The first array with a size sets it; all others must agree.
    for k, (length, size) in enumerate(zip(shape, part.shape, strict=False)):
        if isinstance(size, str):
            symbol, _, extra = size.partition("+")
            target[k] = sizes.setdefault(symbol, length - int(extra or 0)) + int(extra or 0)
    if shape[: len(target)] != target or (part.read is None and len(shape) != len(target)):
        message = f"{name} has the shape {shape} instead of {target}"
        raise ValueError(message)
    return value if part.shape else value.item()


# -- kinds of fields --------------------------------------------------------------------------


def _field(kind: str, *shape: str | int, optional: bool = False, **declared: Any) -> Any:
    metadata = {"part": Part(kind, shape, **declared)}
    return field(default=None, metadata=metadata) if optional else field(metadata=metadata)


def array(*shape: str | int, **declared: Any) -> Any:
    """Declare numbers of a shape, or one number; ``declared`` has arguments of :class:`Part`."""
    return _field("array", *shape, **declared)


def flag() -> Any:
    """Declare a truth value, stored as 1 or 0."""
    return _field("flag", store=int, read=bool)


def sparse(*shape: str, dense: bool = True) -> Any:
    """Declare a matrix that is stored as CSR, and read as a ``dense`` or CSR array."""
    read = (lambda stored: stored.toarray()) if dense else sp.csr_array
    return _field("sparse", *shape, store=sp.csr_array, read=read)


def text() -> Any:
    """Declare one string."""
    return _field("text", store=str, read=str)


def texts(size: str) -> Any:
    """Declare a list of strings."""
    return _field("texts", size, store=strings, read=lambda stored: list(map(str, stored)))


def lists() -> Any:
    """Declare lists of strings, which :func:`stored_lists` stores."""
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
    """Declare a value with its own functions for storing and reading, which raise their errors."""
    return _field("coded", store=store, read=read, optional=optional)


def series(inner: Any, *, optional: bool = False) -> Any:
    """Declare a list of fields of one kind, stored as ``"0"``, ``"1"`` and so on."""
    return _field("series", inner=inner.metadata["part"], optional=optional)


def strings(values: Iterable[Any]) -> NDArray[np.object_]:
    """Return strings as an object array, as anndata does when it reads an h5ad file."""
    # In h5ad, strings are objects.
    items = [str(value) for value in values]
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def stored_lists(lists: Iterable[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """Return lists of strings as one concatenated array (``names``) with ``offsets``.

    Strings may contain any character, so that no separator could be used to join them.
    """
    rows = [list(row) for row in lists]
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return {"names": strings(itertools.chain(*rows)), "offsets": offsets}


def _read_lists(stored: Mapping[str, Any]) -> list[list[str]]:
    names = list(map(str, stored["names"]))
    offsets = np.asarray(stored["offsets"]).tolist()
    return [names[a:b] for a, b in itertools.pairwise(offsets)]


# -- results without a dataclass ---------------------------------------------------------------


def require_as_described(stored: Any, where: str, remedy: str) -> None:
    """Raise an error unless a result agrees with its stored list of contents (:func:`describe`).

    Additional parts and missing rows of tables are allowed.
    """
    if not hasattr(stored, "keys") or hasattr(stored, "columns"):
        raise damaged(where, "it is not a result", remedy)
    if not np.array_equal(stored.get("format"), FORMAT):
        raise damaged(where, f"its format is not {FORMAT}", remedy)
    try:
        target = json.loads(str(stored.get("contents")))
        described = describe({name: stored[name] for name in target if name in stored})
    except (json.JSONDecodeError, TypeError):
        raise damaged(where, "the list of its contents is unreadable", remedy) from None
    waiting = [("", described, {"parts": target})]
    # Compare each part with the list that was stored with the result.
    for path, present, before in waiting:
        if not isinstance(present, dict) or not isinstance(before, dict):
            # Results of earlier versions have no sums of texts.
            (current, _, _), (former, _, has_sum) = (
                str(x).partition(_SUM) for x in (present, before)
            )
            if current != former:
                raise damaged(where, f"{path} is {current} instead of {former}", remedy)
            if has_sum and present != before:
                raise damaged(where, f"the text of {path} has changed", remedy)
            continue
        ((kind, parts),) = before.items()
        for name, part in parts.items():
            inside = f"{path}/{name}" if path else name
            if name not in present.get(kind, {}):
                raise damaged(where, f"it lacks {inside}", remedy)
            waiting.append((inside, present[kind][name], part))


def digest_of(value: Any) -> str:
    """Return a digest of a result, with a subset of the values of arrays above a million."""
    text = hashlib.sha256()
    waiting = [value]
    # Depth first, with every name before its part.
    while waiting:
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
            sample = flat[:: 1 + flat.size // 1_000_000]
            as_text = sample.dtype.kind not in "biuf"
            text.update(f"{flat.size}\0".encode())
            text.update("\0".join(map(str, sample)).encode() if as_text else sample.tobytes())
    return text.hexdigest()[:16]


def describe(value: Any) -> Any:
    """Return type, shape and finiteness of a value, or of each of its parts, as strings.

    Texts also have a checksum, because a changed text has the same type and shape.
    """
    kinds = {**dict.fromkeys("biuf", "numbers"), "c": "complex"}  # all others are strings
    described: dict[str, Any] = {}
    waiting = [(described, "", value)]
    for into, name, part in waiting:
        if hasattr(part, "columns"):
            columns = {str(key): kinds.get(part[key].dtype.kind, "text") for key in part.columns}
            into[name] = {"columns": columns}
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
                numbers = part.data
                words = f"sparse {list(part.shape)}"
                if part.format in ("csr", "csc"):
                    part.check_format(full_check=True)
            else:
                numbers = np.asarray(part)
                kind = kinds.get(numbers.dtype.kind, "text") if numbers.size else "empty"
                words = f"{kind} {list(numbers.shape)}"
                if kind == "text":
                    every_text = "\0".join(map(str, numbers.ravel().tolist()))
                    words += f"{_SUM}{crc32(every_text.encode(errors='surrogatepass')):08x}"
        except ValueError as error:
            into[name] = f"damaged, {error}" if sp.issparse(part) else "ragged"
            continue
        is_finite = numbers.dtype.kind != "f" or np.isfinite(numbers).all()
        into[name] = words if is_finite else f"{words} not finite"
    return described[""]
