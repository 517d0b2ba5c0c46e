"""Check the archives of a release: ``check_dist.py FOLDER [NUMBER]``.

There is one source archive and one wheel for all systems, and ``NUMBER`` wheels (by default 0) for
one platform and version of Python each. Each holds every file of the package; the wheels for a
platform also hold compiled kernels as ``nextpert.core._compile`` lists them.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
LEFT_OUT = {".pyc", ".pyo", ".nbi", ".nbc"}  # what Python and numba leave behind
KERNELS = "nextpert/core/kernels/"


def expected() -> set[str]:
    """Return every file below ``src/nextpert``: modules, and what they read such as templates."""
    files = (path for path in (SOURCE / "nextpert").rglob("*") if path.is_file())
    return {path.relative_to(SOURCE).as_posix() for path in files if path.suffix not in LEFT_OUT}


def in_wheel(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel: files that it lacks, damaged or unexpected kernels."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        wrong = [f"{file} is absent" for file in sorted(expected() - names)]
        kernels = {name for name in names if name.startswith(KERNELS)}
        if wheel.name.endswith("-py3-none-any.whl"):
            return wrong + [f"{file} fits one system only" for file in sorted(kernels)]
        if KERNELS + "index.json" not in names:
            return [*wrong, "there are no compiled kernels"]
        index = json.loads(archive.read(KERNELS + "index.json"))
        forms = [form for _, forms in index["kernels"].values() for form in forms.values()]
        for name, digest in forms:
            file = KERNELS + name
            if file not in names:
                wrong.append(f"{file} is absent")
            elif hashlib.sha256(archive.read(file)).hexdigest() != digest:
                wrong.append(f"{file} is damaged")
    return wrong


def in_source(source: Path) -> list[str]:
    """Return what is wrong with a source archive: files that it lacks."""
    with tarfile.open(source) as archive:
        names = archive.getnames()
    inside = {name.partition("/src/")[2] for name in names}
    build = {name.partition("/")[2] for name in names}
    absent = (expected() - inside) | ({"hatch_build.py", "build_kernels.py"} - build)
    return [f"{file} is absent" for file in sorted(absent)]


def problems(folder: Path, n_platforms: int = 0) -> dict[str, list[str]]:
    """Return what is wrong with every archive of a folder, and with their number."""
    found = {path.name: in_wheel(path) for path in sorted(folder.glob("*.whl"))}
    n_pure = sum(name.endswith("-py3-none-any.whl") for name in found)
    sources = {path.name: in_source(path) for path in folder.glob("*.tar.gz")}
    numbers = (len(sources), n_pure, len(found) - n_pure)
    if numbers != (1, 1, n_platforms):
        message = "{} source archives, {} wheels for all systems, {} for one".format(*numbers)
        found[str(folder)] = [f"{message}; 1, 1 and {n_platforms} are expected"]
    return found | sources


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for name, lines in wrong.items():
        sys.stdout.write(f"{name}: {len(lines)} problems\n")
        sys.stdout.writelines(f"  {line}\n" for line in lines)
    sys.exit(any(wrong.values()))
