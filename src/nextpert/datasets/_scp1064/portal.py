"""The portal's files: where they lie, and what they say of the cells. Errors name file and line."""

from __future__ import annotations

import csv
import gzip
import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import closest, list_names
from nextpert._warn import warn
from nextpert.datasets._scp1064.expression import ExpressionFile, read_expression
from nextpert.datasets._scp1064.rows import Study, Wanted

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from nextpert.datasets._scp1064.rows import Entries

logger = logging.getLogger(__name__)
SUBSETS = ("1a", "1b_alpha", "1b_beta", "2", "3", "4")
_DEEPEST = 4  # cluster/<number>/file, in a folder SCP1064
NO_GUIDE, CONTROL_GUIDE = "no_guide", "control_guide"
_KINDS = {"NO_SITE": "no_site", "ONE_NON-GENE_SITE": "one_non-gene_site"}
_GUIDE = re.compile(r"(?P<target>.+)_\d+")


def read_portal(
    folder: str | os.PathLike[str], subset: str | Sequence[str] | None, wanted: Wanted
) -> tuple[Study, Iterator[Entries]]:
    """Read what a folder of the portal's files says of the cells; the matrix comes in entries.

    The files lie in the portal's folders, or anywhere up to four folders deep.

    Raises
    ------
    FileNotFoundError
        If the folder or a file needed is absent.
    ValueError
        If ``subset`` or a condition is unknown, a file is there twice or is damaged, or files are
        not of the same study.
    """
    root = Path(folder)
    if not root.is_dir():
        message = f"There is no folder or h5ad file {str(folder)!r}: pass where the study lies."
        raise FileNotFoundError(message)
    paths, is_whole = _expression_files(root, subset)
    kind, protein = _protein_file(root, wanted.protein)
    metadata = read_table(
        _need(root, "RNA_metadata.csv"), ["NAME", "condition", "MOI", "sgRNA", "UMI_count"],
        optional=["library_preparation_protocol"],
    )  # fmt: skip
    assigned = read_table(_need(root, "all_sgRNA_assignments.txt"), ["Cell", "sgRNAs"])
    obs, guides = _cells(metadata, assigned, verify=wanted.verify)
    files = [ExpressionFile(path) for path in paths]
    kept = wanted.cells(obs["condition"])
    kept &= _held(files, metadata.file, obs.index, is_whole=is_whole)
    if not kept.any():
        message = (
            f"No cell of {metadata.file!r} is of condition {wanted.condition!r} and in subset "
            f"{subset!r}: choose others."
        )
        raise ValueError(message)
    obsm: dict[str, Any] = {}
    path = _find(root, "RNA_UMAP_cluster.csv")
    if path is None:
        logger.info("No RNA_UMAP_cluster.csv: the result has no obsm['X_umap']")
    else:
        umap = read_table(path, ["NAME", "X", "Y"])
        order = np.array(umap.align(list(obs.index), "the metadata"))
        xy = np.column_stack([umap.numbers(name) for name in ("X", "Y")])
        obsm["X_umap"] = xy[order[kept]].astype(np.float32)
    if protein is not None:
        obsm["protein"] = _read_protein(protein, kind, obs.index).reindex(obs.index[kept])
    names = np.array([path.name for path in paths], dtype=object)
    facts = {"source": "portal", "files": names, "protein": kind}
    study = Study(obs, guides, kept, list(wanted.genes or ()), obsm, facts)
    return study, read_expression(files, study, wanted)


def _expression_files(root: Path, subset: str | Sequence[str] | None) -> tuple[list[Path], bool]:
    """Return the files, and whether they are to hold every cell of the study."""
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


def _protein_file(root: Path, wanted: bool | str) -> tuple[str, Path | None]:
    """Return what to make of proteins (``"clr"``, ``"counts"``, ``"study"``), and of which file."""
    if wanted is False:
        return "none", None
    kind = "clr" if wanted is True else str(wanted)
    raw, study = _find(root, "raw_CITE_expression.csv"), _find(root, "Protein_expression.csv")
    if wanted is True and raw is None and study is not None:
        kind = "study"
    path = study if kind == "study" else raw
    if path is None:
        name = "Protein" if kind == "study" else "raw_CITE"
        message = (
            f"The folder {root.name!r} lacks {name}_expression.csv.gz: download it from the "
            "portal (SCP1064), or pass `protein=False`."
        )
        raise FileNotFoundError(message)
    return kind, path


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


def _cells(metadata: Table, assigned: Table, *, verify: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs``, and the table of guides."""
    conditions = metadata.columns["condition"]
    if "" in conditions:
        line = metadata.lines[conditions.index("")]
        message = f"{metadata.file!r}, line {line} gives no condition."
        raise ValueError(message)
    no_protocol = [""] * len(metadata.lines)
    obs = pd.DataFrame(
        {
            "condition": conditions,
            "MOI": metadata.numbers("MOI", whole=True, least=0).astype(np.int64),
            "sgRNA": pd.Categorical(metadata.columns["sgRNA"]),
            "UMI_count": metadata.numbers("UMI_count", least=1e-9),
            "library_preparation_protocol": pd.Categorical(
                metadata.columns.get("library_preparation_protocol", no_protocol)
            ),
        },
        index=pd.Index(metadata.names),
    )
    order = assigned.align(metadata.names, metadata.file)
    called = []
    for line, text in zip(assigned.lines, assigned.columns["sgRNAs"], strict=True):
        names = [name.strip() for name in text.split(",")] if text.strip() else []
        if "" in names or len(set(names)) < len(names):
            message = f"{assigned.file!r}, line {line} holds {text!r}, which is no list of guides."
            raise ValueError(message)
        called.append(names)
    labels, guides = label_cells([called[i] for i in order], obs.index, repr(assigned.file))
    obs = obs.join(labels)
    named = obs["sgRNA"].astype(str)
    differs = obs["MOI"] != obs["n_guides"]
    differs |= (named != "") & (named != obs["guides"].astype(str))
    differs |= (obs["n_guides"] == 1) & (named == "")
    if differs.any():
        message = (
            f"MOI or sgRNA of the metadata differ from the guides in {assigned.file!r} for "
            f"{int(differs.sum())} cells, such as {obs.index[differs][0]!r}"
        )
        if verify:
            message += ": are both of the same study? Pass `verify=False` to go by the latter."
            raise ValueError(message)
        warn(f"{message}; the latter are used.")
    return obs, guides


def label_cells(
    called: Sequence[Sequence[str]], cells: pd.Index, where: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` that follow from every cell's guides, and a table of guides.

    Guides are named ``TARGET_<number>``; gene names hold dashes, control names underscores.
    ``perturbation`` joins the sorted targets by ``+``; control guides beside targeting ones do
    not enter it.
    """
    names = sorted({name for some in called for name in some})
    found = [_GUIDE.fullmatch(name) for name in names]
    unclear = [name for name, match in zip(names, found, strict=True) if match is None]
    if unclear:
        message = (
            f"{where} holds guides that are not named 'TARGET_<number>': {list_names(unclear)}. "
            "Is this the study's list of guides?"
        )
        raise ValueError(message)
    stems = [match["target"] for match in found if match is not None]
    targets = ["" if stem in _KINDS else stem for stem in stems]
    kinds = pd.Categorical([_KINDS.get(stem, "targeting") for stem in stems])
    index = pd.Index(names, name="guide")
    guides = pd.DataFrame({"target": targets, "kind": kinds}, index=index)
    target = dict(zip(names, targets, strict=True))
    hit = [sorted({target[name] for name in some} - {""}) for some in called]
    labels = {
        "guides": pd.Categorical([",".join(some) for some in called]),
        "perturbation": pd.Categorical([
            "+".join(genes) if genes else CONTROL_GUIDE if some else NO_GUIDE
            for genes, some in zip(hit, called, strict=True)
        ]),
        "n_guides": [len(some) for some in called],
        "n_targets": [len(genes) for genes in hit],
    }  # fmt: skip
    return pd.DataFrame(labels, index=cells), guides


def _held(
    files: Sequence[ExpressionFile], metadata: str, cells: pd.Index, *, is_whole: bool
) -> NDArray[np.bool_]:
    """Return which cells of the metadata the expression files hold, each once."""
    held = np.zeros(len(cells), dtype=bool)
    for file in files:
        place = cells.get_indexer(pd.Index(file.cells))
        if (place < 0).any():
            other = [file.cells[j] for j in np.flatnonzero(place < 0)]
            what = (
                f"names {len(other)} cells that {metadata!r} lacks: {list_names(other, limit=3)}. "
                "Are both files of the same study?"
            )
            raise file.error(what, line=1)
        if held[place].any():
            twice = cells[place[held[place]]]
            what = f"names cells that another file holds too: {list_names(twice, limit=3)}"
            raise file.error(what, line=1)
        held[place] = True
    if is_whole and not held.all():
        absent = cells[~held]
        names = list_names([file.path.name for file in files])
        message = (
            f"{names} lack {len(absent)} cells of {metadata!r}, such as {absent[0]!r}: are the "
            "files of the same study?"
        )
        raise ValueError(message)
    return held


def _read_protein(path: Path, kind: str, cells: pd.Index) -> pd.DataFrame:
    """Return a table of cells x antibodies, in the order of the file.

    With ``kind="clr"``, counts :math:`c` become :math:`ln(1 + c)` minus its mean over the
    antibodies of the cell. Cells that are not among ``cells`` are an error.
    """
    rows = _rows(path)
    header = next(rows, (0, []))[1]
    names = header[1:]
    if not names or header[0] not in ("", "Protein") or len(set(names)) < len(names):
        message = f"{path.name!r}, line 1 does not hold the names of cells, each once."
        raise ValueError(message)
    of_cells = [f"for cell {name!r}" for name in names]
    values: dict[str, np.ndarray] = {}
    for line, fields in rows:
        name = fields[0].removesuffix(" protein")
        if not name or name in values:
            message = f"{path.name!r}, line {line} names {name!r}: each antibody needs one name."
            raise ValueError(message)
        least = -np.inf if kind == "study" else 0
        values[name] = _to_numbers(
            fields[1:], path.name, [line] * len(names), of_cells, whole=kind != "study", least=least
        )
    if not values:
        message = f"{path.name!r} holds no row beside its header."
        raise ValueError(message)
    table = pd.DataFrame(values, index=pd.Index(names))
    other = table.index.difference(cells)
    if len(other):
        message = (
            f"{path.name!r} holds {len(other)} cells that the metadata lacks, such as "
            f"{other[0]!r}: are both files of the same study?"
        )
        raise ValueError(message)
    if kind == "clr":
        logged = np.log1p(table.to_numpy(dtype=np.float64))
        table[:] = logged - logged.mean(axis=1, keepdims=True)
    return table.astype(np.float32)


@dataclass(frozen=True)
class Table:
    """Rows of a csv file by their first column.

    Parameters
    ----------
    file
        Its name.
    columns
        Values of every column of the header, as text.
    lines
        Line of every row.
    """

    file: str
    columns: dict[str, list[str]]
    lines: list[int]

    @property
    def names(self) -> list[str]:
        """The first column."""
        return next(iter(self.columns.values()))

    def numbers(
        self, column: str, *, whole: bool = False, least: float = -np.inf
    ) -> NDArray[np.float64]:
        """Return a column as finite numbers of at least ``least``; ``whole`` ones if asked."""
        texts = self.columns[column]
        what = [f"as {column}"] * len(texts)
        return _to_numbers(texts, self.file, self.lines, what, whole=whole, least=least)

    def align(self, cells: Sequence[str], whose: str) -> list[int]:
        """Return for every cell the table's row; both must hold the same cells.

        Raises
        ------
        ValueError
            If one of them holds cells that the other lacks.
        """
        row = {name: i for i, name in enumerate(self.names)}
        absent = [name for name in cells if name not in row]
        known = set(cells)
        other = [i for i, name in enumerate(self.names) if name not in known]
        parts = []
        if other:
            shown = list_names([self.names[i] for i in other], limit=3)
            line = self.lines[other[0]]
            parts.append(f"line {line} and others name cells not in {whose}: {shown}")
        if absent:
            parts.append(f"cells of {whose} are missing: {list_names(absent, limit=3)}")
        if parts:
            message = f"{self.file!r}: {'; '.join(parts)}. Are both files of the same study?"
            raise ValueError(message)
        return [row[name] for name in cells]


def read_table(path: Path, needed: Sequence[str], *, optional: Iterable[str] = ()) -> Table:
    """Read a csv file of unique names; the portal's TYPE row is skipped.

    Raises
    ------
    ValueError
        If a column is absent, a row is too short or too long, a name is empty or given twice,
        or the file is no readable text.
    """
    rows = _rows(path)
    header = [field.strip() for field in next(rows, (0, []))[1]]
    absent = [name for name in needed if name not in header]
    if absent or len(set(header)) < len(header):
        what = f"the header lacks {list_names(absent)}" if absent else "a column is named twice"
        message = f"{path.name!r}, line 1: {what}. It holds {list_names(header) or 'nothing'}."
        raise ValueError(message)
    place = {name: header.index(name) for name in (*needed, *optional) if name in header}
    first: dict[str, int] = {}
    kept = []
    for line, fields in rows:
        name = fields[place[needed[0]]]
        if not first and line == 2 and name == "TYPE":
            continue
        if not name or name in first:
            what = f"as line {first[name]} does" if name else "which is no name"
            message = f"{path.name!r}, line {line} names cell {name!r}, {what}."
            raise ValueError(message)
        first[name] = line
        kept.append(fields)
    if not first:
        message = f"{path.name!r} holds no row beside its header."
        raise ValueError(message)
    columns = {name: [fields[j] for fields in kept] for name, j in place.items()}
    return Table(path.name, columns, list(first.values()))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of every row of a csv file, gzipped or not, all as long."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    opened = gzip.open if is_gzip else open
    line, n = 0, 0
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            for fields in reader:
                line = reader.line_num
                if not fields:
                    continue
                n = n or len(fields)
                if len(fields) != n:
                    message = (
                        f"{path.name!r}, line {line} holds {len(fields)} fields, but the header "
                        f"{n}: is the file truncated?"
                    )
                    raise ValueError(message)
                yield line, fields
    except (EOFError, OSError, zlib.error) as error:
        message = f"{path.name!r}, after line {line}: it is truncated or corrupted ({error})."
        raise ValueError(message) from error
    except (UnicodeDecodeError, csv.Error) as error:
        message = f"{path.name!r}, after line {line}: it is no csv text in UTF-8 ({error})."
        raise ValueError(message) from error


def _to_numbers(
    texts: Sequence[str],
    file: str,
    lines: Sequence[int],
    what: Sequence[str],
    *,
    whole: bool,
    least: float,
) -> NDArray[np.float64]:
    """Return finite numbers of at least ``least``, whole ones if asked, of shape ``(n_texts,)``.

    ``lines`` and ``what`` say of each where and what it is, for the error.
    """
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = float(text)
        except ValueError:
            values[i] = np.nan
    wrong = ~np.isfinite(values) | (values < least)
    if whole:
        wrong |= values != np.round(values)
    if wrong.any():
        i = int(np.argmax(wrong))
        kind = ("whole " if whole else "") + "number"
        kind += f" of at least {least:g}" if np.isfinite(least) else ""
        message = f"{file!r}, line {lines[i]} holds {texts[i]!r} {what[i]}, which is no {kind}."
        raise ValueError(message)
    return values
