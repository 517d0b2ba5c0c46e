"""Check that wheel and source archive hold every file of the package: ``check_dist.py dist``."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
LEFT_OUT = {".pyc", ".pyo", ".nbi", ".nbc"}  # what Python and numba leave behind


def expected() -> set[str]:
    """Every file below ``src/nextpert``: modules, and what they read such as templates."""
    files = (path for path in (SOURCE / "nextpert").rglob("*") if path.is_file())
    return {str(path.relative_to(SOURCE)) for path in files if path.suffix not in LEFT_OUT}


def absent(folder: Path) -> dict[str, set[str]]:
    """By archive the files of the package that it lacks; there is one archive of each kind."""
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(source) as archive:
        names = (name.partition("/src/") for name in archive.getnames())
        in_source = {inside for _, found, inside in names if found}
    return {wheel.name: expected() - in_wheel, source.name: expected() - in_source}


if __name__ == "__main__":
    lacking = absent(Path(sys.argv[1]))
    for name, files in lacking.items():
        sys.stdout.write(f"{name}: {len(files)} files of the package absent\n")
        sys.stdout.writelines(f"  {file}\n" for file in sorted(files))
    sys.exit(any(lacking.values()))
