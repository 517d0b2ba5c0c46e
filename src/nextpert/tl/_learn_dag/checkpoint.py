"""Finished graphs of an ensemble on disk, so that an interrupted call takes them up again."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp

from nextpert._adata import LabelTable, fingerprint
from nextpert._files import writing_to

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core import ScreenMoments
    from nextpert.core.search.registry import SearchOptions

logger = logging.getLogger(__name__)

_WHAT = "finished graphs of tl.learn_dag"


class Finished(NamedTuple):
    """Graph of a resample: its arcs, exogenous nodes that are there, and the arcs of these."""

    arcs: sp.csr_array
    present: NDArray[np.int64]
    direct: NDArray[np.bool_]


@dataclass
class Checkpoint:
    """Finished graphs by the number of their resample, and the file that they are kept in.

    Parameters
    ----------
    path
        The file; ``None`` keeps nothing.
    digest
        What tells apart all that the graphs depend on.
    done
        The graphs.
    """

    path: Path | None
    digest: str
    done: dict[int, Finished]

    def add(self, number: int, graph: Finished) -> None:
        """Take up a graph; the file changes in one step, whenever the process is stopped."""
        self.done[number] = graph
        if self.path is None:
            return
        arrays: dict[str, Any] = {"what": np.array(_WHAT), "digest": np.array(self.digest)}
        for k, (arcs, present, direct) in self.done.items():
            arrays[f"arcs_{k}"] = np.array(arcs.nonzero(), np.int32)
            arrays[f"present_{k}"], arrays[f"direct_{k}"] = present, direct
        part = _part(self.path)
        with writing_to(self.path):
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(part, self.path)


def open_checkpoint(path: str | os.PathLike[str] | None, digest: str, n_genes: int) -> Checkpoint:
    """Return the graphs that an earlier call with the same ``digest`` kept, if there are any.

    Raises
    ------
    ValueError
        If the file is no checkpoint, is damaged, or is that of another call.
    """
    if path is None:
        return Checkpoint(None, digest, {})
    file = Path(path)
    if not file.parent.is_dir() or file.is_dir():
        message = f"checkpoint must be a file in a folder that is there, but is {str(file)!r}."
        raise ValueError(message)
    if not file.exists():
        return Checkpoint(file, digest, {})
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if str(arrays.pop("what")) != _WHAT:
            raise KeyError
        earlier = str(arrays.pop("digest"))
        numbers = sorted(int(name.removeprefix("arcs_")) for name in arrays if "arcs_" in name)
        done = {k: _read(arrays, k, n_genes) for k in numbers}
    except (BadZipFile, EOFError, KeyError, OSError, ValueError, TypeError, AttributeError):
        message = (
            f"checkpoint {str(file)!r} holds no graphs of an interrupted call of tl.learn_dag, or "
            f"is damaged: name another file, or remove it."
        )
        raise ValueError(message) from None
    if earlier != digest:
        message = (
            f"checkpoint {str(file)!r} is of another call: cells, labels, options, rng or the "
            f"version of nextpert differ. Repeat that call, name another file, or remove it."
        )
        raise ValueError(message)
    logger.info("%d finished graphs are taken from %s.", len(done), file)
    return Checkpoint(file, digest, done)


def close_checkpoint(path: str | os.PathLike[str] | None) -> None:
    """Remove the file, once the graphs are where they belong."""
    if path is not None:
        for file in (Path(path), _part(Path(path))):
            file.unlink(missing_ok=True)


def digest_of(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    genes: Sequence[str],
    environments: Environments,
    screen: ScreenMoments,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
) -> str:
    """Return a digest of all that the graphs depend on; workers are not among it."""
    rows = environments.table.astype(str).agg("\0".join, axis=1).tolist()
    labels = LabelTable("environments", rows, environments.codes)
    cells = fingerprint(adata, labels, columns, environments.roles.layer)
    bits: Any = rng.bit_generator
    seed = bits.seed_seq
    given = (
        version("nextpert"), cells, list(genes), environments.roles, n_graphs, bits.state,
        (seed.entropy, seed.spawn_key, seed.n_children_spawned),
    )  # fmt: skip
    found = hashlib.sha256(repr(given).encode())
    tables: list[Any] = [environments.covariates, screen.n, screen.mean, screen.squares]
    tables.append(screen.scatter)
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "prior" and value is not None:
            tables += [value.before, value.required, value.forbidden]
        elif isinstance(value, np.ndarray):
            tables.append(value)
        else:
            found.update(f"{field.name}={value!r}".encode())
    for table in tables:
        found.update(f"{table.shape}{table.dtype}".encode())
        found.update(np.ascontiguousarray(table).tobytes())
    return found.hexdigest()


def _read(arrays: dict[str, NDArray[Any]], number: int, p: int) -> Finished:
    parents, children = arrays[f"arcs_{number}"]
    ones = np.ones(len(parents))
    arcs = sp.csr_array(sp.coo_array((ones, (parents, children)), shape=(p, p)))
    return Finished(arcs, arrays[f"present_{number}"], arrays[f"direct_{number}"])


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
