"""The portal's files: where they lie, and what they say of the cells. Errors name file and line."""

from __future__ import annotations

import csv
import gzip
import logging
import re
import zlib
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
    from collections.abc import Iterator, Sequence

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
    paths = _expression_files(root, subset)
    raw, scaled = "raw_CITE_expression.csv", "Protein_expression.csv"
    kind = wanted.protein if isinstance(wanted.protein, str) else "clr"
    if wanted.protein is True and not _find(root, raw) and _find(root, scaled):
        kind = "study"
    protein = None
    if wanted.protein:
        name = scaled if kind == "study" else raw
        protein = _need(root, name, ", or pass `protein=False`")
    metadata = Table(
        _need(root, "RNA_metadata.csv"), "NAME", "condition", "MOI", "sgRNA", "UMI_count"
    )
    assigned = Table(_need(root, "all_sgRNA_assignments.txt"), "Cell", "sgRNAs")
    obs, guides = _cells(metadata, assigned, verify=wanted.verify)
    files = [ExpressionFile(path) for path in paths]
    kept = wanted.cells(obs["condition"])
    kept &= _held(
        files, metadata.file, obs.index, is_whole=subset is None or len(files) == len(SUBSETS)
    )
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
        umap = Table(path, "NAME", "X", "Y")
        order = np.array(umap.align(list(obs.index), "the metadata"))
        xy = np.column_stack([umap.numbers(name) for name in ("X", "Y")])
        obsm["X_umap"] = xy[order[kept]].astype(np.float32)
    if protein is not None:
        obsm["protein"] = _read_protein(protein, kind, obs.index).reindex(obs.index[kept])
    names = np.array([path.name for path in paths], dtype=object)
    facts = {"source": "portal", "files": names, "protein": kind if protein else "none"}
    study = Study(obs, guides, kept, list(wanted.genes or ()), obsm, facts)
    return study, read_expression(files, study, wanted)


def _expression_files(root: Path, subset: str | Sequence[str] | None) -> list[Path]:
    """Return the one full file if it is there, and else the subset files, or those named."""
    full = _find(root, "RNA_expression.csv") if subset is None else None
    if full is not None:
        return [full]
    listed = [subset] if isinstance(subset, str) else SUBSETS if subset is None else subset
    names = [str(name) for name in listed]
    unknown = [name for name in names if name not in SUBSETS]
    if unknown or not names or len(set(names)) < len(names):
        message = (
            f"subset must name some of {list_names(SUBSETS)}, each once, but is {names}."
            f"{closest(unknown, SUBSETS)}"
        )
        raise ValueError(message)
    found = {name: _find(root, f"RNA_expression_subset{name}.csv") for name in names}
    absent = [name for name, path in found.items() if path is None]
    if absent:
        lacks = (
            "holds neither RNA_expression.csv.gz nor all six" if subset is None else "lacks some"
        )
        message = (
            f"The folder {root.name!r} {lacks} RNA_expression_subset*.csv.gz (missing: "
            f"{list_names(absent)}): download them from the portal (SCP1064), or name the subsets "
            "there are with `subset`."
        )
        raise FileNotFoundError(message)
    return [path for path in found.values() if path is not None]


def _need(root: Path, name: str, instead: str = "") -> Path:
    found = _find(root, name)
    if found is None:
        message = (
            f"The folder {root.name!r} lacks '{name}' and '{name}.gz': download it from the "
            f"portal (SCP1064){instead}."
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
    conditions = metadata.column("condition")
    if "" in conditions:
        raise metadata.error(conditions.index(""), "gives no condition")
    protocol = "library_preparation_protocol"
    no_protocol = [""] * len(conditions)
    obs = pd.DataFrame(
        {
            "condition": conditions,
            "MOI": metadata.numbers("MOI", whole=True, least=0).astype(np.int64),
            "sgRNA": pd.Categorical(metadata.column("sgRNA")),
            "UMI_count": metadata.numbers("UMI_count", least=1e-9),
            protocol: pd.Categorical(
                metadata.column(protocol) if protocol in metadata.header else no_protocol
            ),
        },
        index=pd.Index(metadata.names),
    )
    order = assigned.align(metadata.names, metadata.file)
    called = []
    for i, text in enumerate(assigned.column("sgRNAs")):
        names = [name.strip() for name in text.split(",")] if text.strip() else []
        if "" in names or len(set(names)) < len(names):
            raise assigned.error(i, f"holds {text!r}, which is no list of guides")
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
    found = Table(path)
    if len(found.header) < 2 or found.header[0] not in ("", "Protein"):
        message = f"{path.name!r}, line 1 does not begin with Protein and names of cells."
        raise ValueError(message)
    names = [f"for cell {name!r}" for name in found.header[1:]]
    rows = [
        found.to_numbers(row[1:], [i] * len(names), names, whole=kind != "study",
                         least=-np.inf if kind == "study" else 0)
        for i, row in enumerate(found.rows)
    ]  # fmt: skip
    suffix = " protein" if all(name.endswith(" protein") for name in found.names) else ""
    antibodies = [name.removesuffix(suffix) for name in found.names]
    table = pd.DataFrame(dict(zip(antibodies, rows, strict=True)), index=found.header[1:])
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


class Table:
    """A csv file of text, gzipped or not, without the portal's TYPE row.

    Parameters
    ----------
    path
        The file.
    needed
        Columns that it must have; the first, or that of the file, names every row.

    Raises
    ------
    ValueError
        If a column is absent, a row is too short or too long, a name is empty or given twice,
        or the file is no readable text.

    Attributes
    ----------
    file, header, rows, names
        Name of the file, its columns, and the fields and the name of every row.
    """

    def __init__(self, path: Path, *needed: str) -> None:
        self.file = path.name
        self.rows: list[list[str]] = []
        self._lines: dict[str, int] = {}
        line = 0
        with path.open("rb") as file:
            opened = gzip.open if file.read(2) == b"\x1f\x8b" else open
        try:
            with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
                reader = csv.reader(text, strict=True)
                fields = next((fields for fields in reader if fields), [""])
                self.header = [field.strip() for field in fields]
                self._check_header(needed)
                key = self.header.index(needed[0]) if needed else 0
                for fields in reader:
                    line = reader.line_num
                    if fields and not (line == 2 and fields[key : key + 1] == ["TYPE"]):
                        self._add(fields, key, line)
        except (EOFError, OSError, zlib.error) as error:
            message = f"{self.file!r}, after line {line}: it is truncated or corrupted ({error})."
            raise ValueError(message) from error
        except (UnicodeDecodeError, csv.Error) as error:
            message = f"{self.file!r}, after line {line}: it is no csv text in UTF-8 ({error})."
            raise ValueError(message) from error
        if not self.rows:
            message = f"{self.file!r} holds no row beside its header."
            raise ValueError(message)
        self.names = list(self._lines)

    def _check_header(self, needed: Sequence[str]) -> None:
        absent = [name for name in needed if name not in self.header]
        if absent:
            message = (
                f"{self.file!r}, line 1: the header lacks {list_names(absent)}. It holds "
                f"{list_names(self.header)}."
            )
            raise ValueError(message)
        if len(set(self.header)) < len(self.header):
            twice = pd.Index(self.header)
            message = f"{self.file!r}, line 1 names {twice[twice.duplicated()][0]!r} twice."
            raise ValueError(message)

    def _add(self, fields: list[str], key: int, line: int) -> None:
        if len(fields) != len(self.header):
            what = f"{len(fields)} fields, but the header {len(self.header)}"
            message = f"{self.file!r}, line {line} holds {what}: is the file truncated?"
            raise ValueError(message)
        name = fields[key]
        if not name or name in self._lines:
            what = f"as line {self._lines[name]} does" if name else "which is no name"
            message = f"{self.file!r}, line {line} names {name!r}, {what}."
            raise ValueError(message)
        self._lines[name] = line
        self.rows.append(fields)

    def error(self, i: int, what: str) -> ValueError:
        """Return an error about a row."""
        return ValueError(f"{self.file!r}, line {self._lines[self.names[i]]} {what}.")

    def column(self, name: str) -> list[str]:
        """Return the fields of a column."""
        j = self.header.index(name)
        return [fields[j] for fields in self.rows]

    def numbers(
        self, column: str, *, whole: bool = False, least: float = -np.inf
    ) -> NDArray[np.float64]:
        """Return a column as finite numbers of at least ``least``; ``whole`` ones if asked."""
        what = [f"as {column}"] * len(self.rows)
        rows = range(len(self.rows))
        return self.to_numbers(self.column(column), rows, what, whole=whole, least=least)

    def to_numbers(
        self,
        texts: Sequence[str],
        rows: Sequence[int],
        what: Sequence[str],
        *,
        whole: bool,
        least: float,
    ) -> NDArray[np.float64]:
        """Return finite numbers of at least ``least``, whole ones if asked, ``(n_texts,)``.

        ``rows`` and ``what`` say of each where and what it is, for the error.
        """
        values = np.empty(len(texts))
        for i, text in enumerate(texts):
            try:
                values[i] = float(text)
            except ValueError:
                values[i] = np.nan
        wrong = ~np.isfinite(values) | (values < least) | (whole & (values != np.round(values)))
        if wrong.any():
            i = int(np.argmax(wrong))
            kind = ("whole " if whole else "") + "number"
            kind += f" of at least {least:g}" if np.isfinite(least) else ""
            raise self.error(rows[i], f"holds {texts[i]!r} {what[i]}, which is no {kind}")
        return values

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
        other = [name for name in self.names if name not in known]
        parts = []
        if other:
            shown = list_names(other, limit=3)
            parts.append(
                f"line {self._lines[other[0]]} and others name cells not in {whose}: {shown}"
            )
        if absent:
            parts.append(f"cells of {whose} are missing: {list_names(absent, limit=3)}")
        if parts:
            message = f"{self.file!r}: {'; '.join(parts)}. Are both files of the same study?"
            raise ValueError(message)
        return [row[name] for name in cells]
