"""Where the portal's files lie in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nextpert._adata import closest, list_names

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

SUBSETS = ("1a", "1b_alpha", "1b_beta", "2", "3", "4")
_DEEPEST = 4  # cluster/<number>/file, in a folder SCP1064
PROTEIN_KINDS = ("clr", "counts", "study")


@dataclass(frozen=True)
class PortalFiles:
    """Paths of the study's files; ``None`` for those not there or not asked for.

    Parameters
    ----------
    expression
        The full expression file, or subset files.
    is_whole
        Whether these files together are to hold every cell of the study.
    protein, protein_kind
        Protein file and what to make of it, one of ``PROTEIN_KINDS``.
    """

    expression: list[Path]
    is_whole: bool
    metadata: Path
    guides: Path
    umap: Path | None
    protein: Path | None
    protein_kind: str | None


def find_files(
    folder: str | os.PathLike[str], subset: str | Sequence[str] | None, protein: bool | str
) -> PortalFiles:
    """Find the files in the portal's folders, or anywhere up to four folders deep.

    Raises
    ------
    FileNotFoundError
        If the folder or a file needed is absent.
    ValueError
        If ``subset`` or ``protein`` is unknown, or a file is there twice.
    """
    root = Path(folder)
    if not root.is_dir():
        message = f"There is no folder or h5ad file {str(folder)!r}: pass where the study lies."
        raise FileNotFoundError(message)
    expression, is_whole = _expression(root, subset)
    kind = _protein_kind(protein)
    path = None
    if kind is not None:
        raw, study = _find(root, "raw_CITE_expression.csv"), _find(root, "Protein_expression.csv")
        if protein is True and raw is None and study is not None:
            kind = "study"
        path = study if kind == "study" else raw
        if path is None:
            name = "Protein" if kind == "study" else "raw_CITE"
            message = (
                f"The folder {root.name!r} lacks {name}_expression.csv.gz: download it from the "
                "portal (SCP1064), or pass `protein=False`."
            )
            raise FileNotFoundError(message)
    return PortalFiles(
        expression, is_whole, _need(root, "RNA_metadata.csv"),
        _need(root, "all_sgRNA_assignments.txt"), _find(root, "RNA_UMAP_cluster.csv"), path, kind,
    )  # fmt: skip


def _protein_kind(protein: bool | str) -> str | None:
    if isinstance(protein, bool):
        return "clr" if protein else None
    if protein not in PROTEIN_KINDS:
        message = (
            f"protein must be True, False or one of {list_names(PROTEIN_KINDS)}, but is "
            f"{protein!r}."
        )
        raise ValueError(message)
    return protein


def _expression(root: Path, subset: str | Sequence[str] | None) -> tuple[list[Path], bool]:
    if subset is None:
        full = _find(root, "RNA_expression.csv")
        if full is not None:
            return [full], True
        found = {name: _find(root, f"RNA_expression_subset{name}.csv") for name in SUBSETS}
        absent = [name for name, path in found.items() if path is None]
        if absent:
            message = (
                f"The folder {root.name!r} holds neither RNA_expression.csv.gz nor all six "
                f"RNA_expression_subset*.csv.gz (missing: {list_names(absent)}): download them "
                "from the portal (SCP1064), or name the subsets there are with `subset`."
            )
            raise FileNotFoundError(message)
        return [path for path in found.values() if path is not None], True
    names = [subset] if isinstance(subset, str) else [str(name) for name in subset]
    unknown = [name for name in names if name not in SUBSETS]
    if unknown or not names or len(set(names)) < len(names):
        message = (
            f"subset must name some of {list_names(SUBSETS)}, each once, but is {names}."
            f"{closest(unknown, SUBSETS)}"
        )
        raise ValueError(message)
    paths = [_need(root, f"RNA_expression_subset{name}.csv") for name in names]
    return paths, set(names) == set(SUBSETS)


def _need(root: Path, name: str) -> Path:
    found = _find(root, name)
    if found is None:
        message = (
            f"The folder {root.name!r} lacks {name!r} (or the same with .gz): download it from "
            "the portal (SCP1064)."
        )
        raise FileNotFoundError(message)
    return found


def _find(root: Path, name: str) -> Path | None:
    """Return a file's path; of a gzipped one and a plain copy of it, the first has a checksum."""
    for wanted in (f"{name}.gz", name):
        found = [p for depth in range(_DEEPEST) for p in root.glob("*/" * depth + wanted)]
        found = [path for path in found if path.is_file()]
        if len(found) > 1:
            shown = list_names([str(path.relative_to(root)) for path in found])
            message = f"The folder {root.name!r} holds {wanted!r} more than once: {shown}."
            raise ValueError(message)
        if found:
            return found[0]
    return None
