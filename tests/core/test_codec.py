"""Every kind of field comes back as it was, and whatever else lies there is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from nextpert.core._codec import (
    FORMAT,
    array,
    coded,
    describe,
    digest_of,
    flag,
    lists,
    nested,
    pack,
    require_as_described,
    series,
    sparse,
    table,
    text,
    texts,
    unpack,
)

CSR = sp.csr_array(np.eye(2, 3))
BEYOND = sp.csr_array((np.ones(1), np.array([0]), np.array([0, 1, 1])), shape=(2, 3))
BEYOND.indices[0] = 7


@dataclass
class Inner:
    scale: np.ndarray = array("n_genes")
    n: int = array(dtype=np.int64)

    def __post_init__(self):
        if self.n == 13:
            raise ValueError("n is 13.")


@dataclass
class Record:
    stored_beside = (("format", 2), ("grid", np.array([0.0, 0.5])))

    genes: list[str] = texts("n_genes")
    pair: np.ndarray = array("n_rows", 2)
    mean: np.ndarray = array("n_rows", "n_genes")
    counts: np.ndarray = array("n_rows+1", dtype=np.int64)
    own: sp.csr_array = sparse("n_rows", "n_genes", dense=False)
    shift: np.ndarray = sparse("n_rows", "n_genes")
    pooled: bool = flag()
    scale: float | str = array(unless="learned")
    how: str = text()
    targets: list[list[str]] = lists()
    cells: pd.DataFrame = table("n_rows")
    params: dict[str, Any] = coded(dict, dict)
    inner: Inner = nested(Inner)
    many: list[Inner] = series(nested(Inner))
    other: np.ndarray | None = array("n_genes", optional=True)


def record():
    genes = ["a/b", "B, C", "é"]
    own = sp.csr_array(np.eye(2, 3) / 2)
    inner = Inner(np.ones(3), 4)
    return Record(
        genes, np.ones((2, 2)), np.arange(6.0).reshape(2, 3), np.array([1, 0, 3]), own,
        np.eye(2, 3), True, 0.5, "graph", [["x, y", ""], []],
        pd.DataFrame({"perturbation": ["p", "q"]}), {"k": 1}, inner, [inner, replace(inner, n=5)],
    )  # fmt: skip


def read(stored):
    return unpack(Record, stored, "uns['it']", "run tl.it again")


def assert_alike(one, other):
    assert type(one) is type(other)
    if isinstance(one, (Record, Inner)):
        assert_alike(vars(one), vars(other))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            assert_alike(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_alike(*pair)
    elif sp.issparse(one):
        assert_alike(one.toarray(), other.toarray())
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one.equals(other) if isinstance(one, pd.DataFrame) else one == other


def test_it_comes_back_as_it_was():
    one = record()
    assert_alike(read(pack(one)), one)
    more = replace(one, other=np.zeros(3), scale="learned", pooled=False)
    assert_alike(read(pack(more)), more)
    stored = pack(one)
    assert "other" not in stored
    assert (stored["own"].nnz, stored["shift"].nnz) == (2, 2)


def test_other_objects_are_stored_by_what_a_record_declares():
    class Elsewhere:
        scale, more = np.ones(2), "left out"
        n = property(lambda self: 7)

    assert_alike(pack(Elsewhere(), Inner), {"scale": np.ones(2), "n": 7})


WRONG = {
    "format": [1, "2", None],
    "grid": [np.array([0.0, 0.6]), np.array([0.0]), None],
    "mean": [np.zeros((3, 2)), np.zeros(6), "x"],
    "counts": [np.array([1.5, 0, 3]), np.array([1, 0]), np.array([], int)],
    "pair": [np.ones((2, 3)), [[1.0], [1.0, 2.0]]],
    "scale": ["evidence", [1.0], 1j],
    "inner": [None, [], {"scale": np.ones(3)}, {"scale": np.ones(3), "n": 13},
              {"scale": np.ones(4), "n": 1}],
    "many": [{"0": {"scale": np.ones(4), "n": 1}}, {"1": {}}],
    "other": [np.zeros(4), "x"],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_belong_there_is_refused(name):
    stored = pack(record())
    for wrong in WRONG[name]:
        with pytest.raises(ValueError, match=r"^uns\['it'\] is damaged.*: run tl\.it again\.$"):
            read({**stored, name: wrong})
    if name != "other":
        with pytest.raises(ValueError, match=rf"{name}"):
            read({key: part for key, part in stored.items() if key != name})


def test_sizes_are_compared_and_what_is_no_mapping_is_refused():
    stored = pack(record())
    with pytest.raises(ValueError, match=r"mean has the shape \[2, 3\] instead of \[3, 3\]"):
        read({**stored, "pair": np.ones((3, 2))})
    for wrong in ("text", 5, None, [1]):
        with pytest.raises(ValueError, match="is damaged"):
            read(wrong)


def test_a_part_that_is_not_as_it_was_written_is_named():
    stored = {"mean": np.zeros((2, 3)), "own": CSR.copy(), "names": ["a"], "more": {"n": 1}}
    contents = json.dumps(describe(stored)["parts"])
    stored |= {"format": FORMAT, "contents": contents}
    require_as_described({**stored, "new": 1}, "It", "run it again")
    for name, wrong in (
        ("format", 0), ("mean", np.zeros(6)),
        ("mean", np.full((2, 3), np.inf)), ("own", CSR.toarray()), ("own", BEYOND),
        ("names", [1]), ("more", {}), ("more", None), ("mean", None),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"It is damaged.*{name}.*run it again"):
            require_as_described({**stored, name: wrong}, "It", "run it again")
    with pytest.raises(ValueError, match="list of its contents is unreadable"):
        require_as_described({**stored, "contents": "{"}, "It", "run it again")
    del stored["own"]
    with pytest.raises(ValueError, match="it lacks own"):
        require_as_described(stored, "It", "run it again")


@pytest.mark.parametrize("damage", ["", "other", "b\0a", ["a", "c"], np.array(["b", "a"], object)])
def test_a_changed_text_is_named(damage):
    made = {"words": np.array(["a", "b"], object) if len(np.shape(damage)) else "ba"}
    stored = made | {"format": FORMAT, "contents": json.dumps(describe(made)["parts"])}
    require_as_described(stored, "The result", "run it again")
    with pytest.raises(ValueError, match=r"the text of words has changed.*run it again"):
        require_as_described(stored | {"words": damage}, "The result", "run it again")
    # Results without sums are read as before.
    old = json.dumps({"words": describe(made)["parts"]["words"].split(", sum")[0]})
    require_as_described(stored | {"words": damage, "contents": old}, "The result", "run it again")


def test_a_digest_depends_on_letters_and_on_the_last_bit():
    names = ["MYC", "STAT1"]
    copies = np.array(["".join(list(name)) for name in names], dtype=object)
    assert digest_of({"genes": np.array(names, dtype=object)}) == digest_of({"genes": copies})
    assert digest_of({"genes": copies}) != digest_of({"genes": copies[::-1]})
    assert digest_of({"mean": np.ones(2)}) != digest_of({"mean": np.nextafter(np.ones(2), 2)})
