"""Files that appear whole or not at all, where a link leads if the path is one."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``path`` at the end, or vanishes after an error.

    The temporary file lies in a temporary folder beside ``path``, so that the move is one step,
    and bears the same name, since writers take the format from its ending.
    """
    target = followed(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        os.replace(temporary, target)


def followed(path: str | os.PathLike[str]) -> Path:
    """Return the path that symbolic links lead to, whether or not there is anything yet.

    To replace a link would leave the file behind it as it was.
    """
    return Path(os.path.realpath(path))


def write_hdf5(path: Path, fill: Callable[[Any], T]) -> T:
    """Write an HDF5 file that ``fill`` fills, in memory first; return what that returned.

    On a full disk the HDF5 library ends Python with a segmentation fault; plain bytes raise an
    OSError there.
    """
    import h5py  # type: ignore[import-untyped]

    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        returned = fill(file)
    with path.open("wb") as out:
        out.write(image.getbuffer())
        out.flush()
        os.fsync(out.fileno())
    return returned


def write_zarr(path: Path, fill: Callable[[Any], T]) -> T:
    """Write a zarr folder whose store ``fill`` fills, in memory first; return what that returned.

    After an error zarr's threads write on, and make anew the folder that one removes.
    """
    import zarr

    held: dict[str, Any] = {}
    is_new = hasattr(zarr.storage, "LocalStore")  # version 3
    returned = fill(zarr.storage.MemoryStore(held) if is_new else held)
    for key, value in held.items():
        file = path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(value.to_bytes() if is_new else memoryview(value).tobytes())
    return returned
