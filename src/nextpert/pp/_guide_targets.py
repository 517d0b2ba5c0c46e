"""The target of every guide: from a table, a column, or its name; what was understood is shown."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from nextpert import _adata
from nextpert._adata.guide_names import MIN_EXPLAINED, Genes, read_names
from nextpert._adata.guides import TARGETING, guide_table
from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad

    from nextpert._adata.guide_names import Reading

logger = logging.getLogger(__name__)

# Columns of targets in tables of guides, in the order of preference, as :func:`_plain` spells them.
_TARGETS = (
    "targetgenename",
    "target",
    "targets",
    "targetgene",
    "gene",
    "genesymbol",
    "targetgenesymbol",
    "symbol",
    "genename",
    "geneid",
    "targetgeneid",
    "perturbation",
)
_CELL_RANGER = "target_gene_name"  # in the feature reference, and in what readers make of it
_SYMBOLS = ("gene_symbols", "gene_symbol", "symbol", "gene_name", "gene_names", "feature_name")
_SEQUENCE = re.compile(r"[ACGTNacgtn]{15,}")
_MAX_ABSENT_SHARE = 0.2  # of the targets, up to which unmeasured ones are worth a look
_SHOWN = 5  # names and rows in messages


class GuideInput(NamedTuple):
    """What the caller said: ``guides`` and ``targets``, the table of guides, further controls."""

    guides: Any
    targets: Any = None
    described: pd.DataFrame | None = None
    control_guides: Iterable[str] | None = None


def targets_of_guides(
    adata: ad.AnnData, names: Sequence[str], lists: pd.Series, inputs: GuideInput
) -> pd.DataFrame:
    """Return the table of guides: the target of each, and how it was decided.

    A table decides first, then a column of ``obs`` or ``var``, then the names of the guides.
    ``lists`` has the guides of every cell.
    """
    listed, how = _from_table(adata, names, lists, inputs)
    targets = {} if listed is None else dict(zip(listed.index, listed["target"], strict=True))
    decided = dict.fromkeys(targets, how)
    reading = None
    if undecided := [name for name in names if name not in targets]:
        if listed is not None and not isinstance(inputs.targets, Mapping):
            message = (
                f"Guides without a target: {len(undecided)} of {len(names)} guides are not in "
                f"{how}: {_adata.list_names(undecided, limit=_SHOWN)}. Add them to targets."
            )
            raise ValueError(message + _adata.closest(undecided[:3], targets))
        genes = Genes.of(gene_names(adata))
        reading = read_names(list(names), genes)
        reading.names = undecided
        reading.found = {name: reading.found[name] for name in undecided if name in reading.found}
        named = {name: reading.target_of(name) for name in undecided}
        unclear = set() if inputs.control_guides is None else set(inputs.control_guides)
        reading.names = [name for name in undecided if not unclear & {name, named[name]}]
        _require_clear(reading, inputs)
        targets |= named
        in_doubt = set(reading.doubtful)
        decided |= {
            x: f"name: {reading.scheme}" if x not in in_doubt else "doubtful" for x in named
        }
    table = guide_table(
        {name: targets[name] for name in names},
        decided,
        inputs.control_guides,
        inputs.described if listed is None else listed.drop(columns="target"),
    )
    if parted := [x for x in table["target"].unique() if is_parted(x)]:
        message = (
            f"Targets with a '+' that joins no two targets: {_adata.list_names(parted, limit=3)}. "
            f"A label A+B is read as a pair: pass targets with other names."
        )
        raise ValueError(message)
    return table


def is_parted(label: str, separator: str = "+") -> bool:
    """Return whether a separator in a label joins no two targets, such as the sign of a strand.

    Examples
    --------
    >>> from nextpert.pp._guide_targets import is_parted
    >>> [is_parted(label) for label in ("MYC+JUN", "MYC_+_123.23-P1", "IFNG+", "MYC")]
    [False, True, False, False]
    """
    parts = [part.strip() for part in label.split(separator)] if separator else [label]
    marks = "_-.:|;"
    is_joined = len(parts) > 1 and all(parts)
    return is_joined and any(part[0] in marks or part[-1] in marks for part in parts)


def gene_names(adata: ad.AnnData) -> list[str]:
    """Return all names of the measured genes: ids, and symbols in a column of ``var``."""
    names = [*map(str, adata.var_names)]
    screen: Any = adata.uns.get("screen", {})
    declared = str(screen.get("gene_symbols", "")) if hasattr(screen, "get") else ""
    for column in dict.fromkeys((declared, *_SYMBOLS)):
        if column in adata.var.columns:
            names += [str(name) for name in adata.var[column] if pd.notna(name)]
    return names


# -- tables and columns -------------------------------------------------------------------------


def _from_table(
    adata: ad.AnnData, names: Sequence[str], lists: pd.Series, inputs: GuideInput
) -> tuple[pd.DataFrame | None, str]:
    """Return the targets (``target``, by guide) with further columns, and where they are from."""
    targets = inputs.targets
    described = inputs.described
    if targets is None:
        if described is None or _CELL_RANGER not in described:
            return None, ""
        targets = _CELL_RANGER  # the column has no other meaning
    if isinstance(targets, Mapping):
        target_of = {str(name): target for name, target in targets.items()}
        series = pd.Series(
            {name: target_of[name] for name in names if name in target_of}, dtype=object
        )
        if series.empty and len(target_of):
            _raise_foreign("the mapping", target_of, names)
        return series.to_frame("target"), "mapping"
    if isinstance(targets, pd.DataFrame):
        return _look_up(targets, names, "the table"), "table"
    column = str(targets)
    if column in adata.obs.columns:
        return _by_cells(adata.obs[column], names, lists), f"column: obs[{column!r}]"
    for var in (described, adata.var):
        if var is not None and column in var.columns and set(names) <= set(map(str, var.index)):
            rows = var.set_axis(var.index.astype(str)).loc[list(names)]
            return rows.assign(target=rows[column].astype(object)), f"column: var[{column!r}]"
    return _look_up(_read_file(adata, column), names, column), f"table: {Path(column).name}"


def _read_file(adata: ad.AnnData, path: str) -> pd.DataFrame:
    """Return a csv or tsv file; a library of MAGeCK may have no line of headings."""
    if not Path(path).is_file():
        columns = [*map(str, adata.obs.columns)]
        message = (
            f"targets={path!r} is neither a file nor a column of adata.obs or var."
            f"{_adata.closest([path], columns)} adata.obs holds "
            f"{_adata.list_names(columns, limit=10) or 'no column'}."
        )
        raise ValueError(message)
    options: dict[str, Any] = {"dtype": str, "sep": None, "engine": "python", "comment": "#"}
    try:
        table = pd.read_csv(path, **options)
        if any(_SEQUENCE.fullmatch(str(name)) for name in table.columns):
            table = pd.read_csv(path, header=None, **options)
            table.columns = ["guide", "sequence", "gene", *map(str, table.columns[3:])][
                : table.shape[1]
            ]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        message = f"{path!r} cannot be read as a table: {error}. Pass a csv or tsv file."
        raise ValueError(message) from error
    return table


def _plain(column: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(column).lower())


def _look_up(table: pd.DataFrame, names: Sequence[str], source: str) -> pd.DataFrame:
    """Return the rows of a table of guides, by guide, with a column ``target``."""
    by_name: dict[str, Any] = {str(column): table[column] for column in table.columns}
    columns = {"": pd.Series(table.index, table.index)} | by_name
    texts = {name: column.astype(str).str.strip() for name, column in columns.items()}
    # The column with most of the guides names them: Cell Ranger knows a guide by id and name.
    n_found = {name: len(set(column) & set(names)) for name, column in texts.items()}
    guide = max(n_found, key=lambda name: n_found[name])
    if not n_found[guide]:
        _raise_foreign(
            source, next(iter(texts.values())) if table.empty else table.iloc[:, 0], names
        )
    other_columns = [name for name in by_name if name != guide]
    plain = {_plain(name): name for name in reversed(other_columns)}
    named = [plain[name] for name in _TARGETS if name in plain]
    if not named and len(other_columns) == 1:
        named = other_columns
    if not named:
        message = (
            f"No column of {source} names the targets: it holds {_adata.list_names(by_name)}. Name "
            f"the column 'target'."
        )
        raise ValueError(message)
    rows = table.assign(target=by_name[named[0]]).set_axis(texts[guide].to_numpy())
    rows = rows[rows.index.isin(names)].drop(columns=[guide, named[0]], errors="ignore")
    rows["target"] = by_name[named[0]][texts[guide].isin(names)].to_numpy()
    pairs = rows["target"].astype(str).groupby(level=0).nunique()
    if len(twice := pairs.index[pairs > 1]):
        message = (
            f"Guides with several targets in {source}: {_adata.list_names(twice, limit=_SHOWN)}. "
            f"Give each guide one row; the target of a pair is 'A+B'."
        )
        raise ValueError(message)
    return rows[~rows.index.duplicated()]


def _raise_foreign(source: str, source_names: Iterable[Any], names: Sequence[str]) -> None:
    message = (
        f"None of {len(names)} guides is in {source}: the guides are "
        f"{_adata.list_names(names, limit=3)}, and those of {source} are "
        f"{_adata.list_names(map(str, source_names), limit=3)}. Pass a table with the same names."
    )
    raise ValueError(message)


def _by_cells(column: pd.Series, names: Sequence[str], lists: pd.Series) -> pd.DataFrame:
    """Return the target of each guide from a column of ``obs``, by the cells with one guide."""
    cells = pd.DataFrame({"guide": lists.to_numpy(), "target": column.astype(object).to_numpy()})
    cells = cells[cells["guide"].isin(names) & cells["target"].notna()].drop_duplicates()
    cells["target"] = cells["target"].astype(str)
    if len(twice := cells["guide"][cells["guide"].duplicated()].unique()):
        guide = twice[0]
        guide_targets = cells.loc[cells["guide"] == guide, "target"]
        message = (
            f"Guides with several targets in adata.obs[{column.name!r}]: "
            f"{_adata.list_names(twice, limit=_SHOWN)} ({guide}: "
            f"{_adata.list_names(guide_targets)}). Correct the column, or pass a table as targets."
        )
        raise ValueError(message)
    return cells.set_index("guide")


# -- names --------------------------------------------------------------------------------------


def _require_clear(reading: Reading, inputs: GuideInput) -> None:
    """Raise if no scheme explains nearly all names, or labels share a gene; warn of others."""
    shared = reading.shared_genes()
    n = len(reading.names)
    explained = n - len(reading.doubtful)
    if not shared and explained >= MIN_EXPLAINED * n:
        if reading.doubtful:
            warn(
                f"The names of {len(reading.doubtful)} guides are in doubt, and are their own "
                f"targets: {_adata.list_names(reading.doubtful, limit=10)}. Pass their targets, "
                f"such as targets={{{reading.doubtful[0]!r}: 'control'}}."
            )
        return
    if shared:
        gene, labels = next(iter(shared.items()))
        why = (
            f"several labels share a gene: {_adata.list_names(labels, limit=_SHOWN)} share {gene}"
            f"{f', and so for {len(shared) - 1} other genes' if len(shared) > 1 else ''}"
        )
    elif explained:
        why = f"the pattern {reading.scheme} explains {explained} of {n} names"
    else:
        why = "no known pattern explains them"
    doubtful = _adata.list_names(reading.doubtful, limit=_SHOWN)
    rows = [*reading.doubtful[:_SHOWN], *[x for x in reading.names if x in reading.found]]
    table = pd.DataFrame(
        {
            "guide": rows[: 2 * _SHOWN],
            "target": [
                reading.target_of(x) if x in reading.found else "?" for x in rows[: 2 * _SHOWN]
            ],
        }
    )
    shown = repr(inputs.guides) if isinstance(inputs.guides, str) else "guides"
    first = (reading.doubtful or reading.names)[0]
    message = (
        f"The targets of the guides cannot be read from their names with certainty: {why}."
        f"{f' Not explained: {doubtful}.' if doubtful else ''} Understood so far:\n"
        f"{table.to_string(index=False)}\n"
        f"Pass the targets, from a table of the library or by name:\n"
        f'  nextpert.pp.assign_guides(adata, guides={shown}, targets="library.csv")\n'
        f"  nextpert.pp.assign_guides(adata, guides={shown}, targets={{{first!r}: 'GENE', ...}})"
    )
    raise ValueError(message)


def log_guides(table: pd.DataFrame, genes: Iterable[str], cells: str) -> None:
    """Log in five lines what was understood of the guides."""
    is_targeting = (table["kind"] == TARGETING).to_numpy()
    by_target = table[is_targeting].groupby("target", sort=False)["n_cells"].agg(["size", "sum"])
    how = table["decided_by"].value_counts()
    controls = table[~is_targeting]
    doubtful = table.index[table["decided_by"] == "doubtful"]
    measured = set(genes)
    absent = [x for x in by_target.index if not measured.issuperset(str(x).split("+"))]
    logger.info(
        "Guides: %d guides of %d targets; decided by %s.",
        len(table),
        len(by_target),
        _adata.list_names((f"{x} ({n})" for x, n in how.items()), limit=_SHOWN),
    )
    rows = by_target.itertuples()
    shown = (f"{target} ({n} guides, {n_cells} cells)" for target, n, n_cells in rows)
    logger.info("Targets: %s.", _adata.list_names(shown, limit=_SHOWN) or "none")
    logger.info(
        "Control guides: %d in %d cells, %s.",
        len(controls),
        controls["n_cells"].sum(),
        _adata.list_names(controls.index, limit=_SHOWN) or "none: pass control_guides",
    )
    logger.info(
        "In doubt: %s. Targets that are not measured: %s.",
        _adata.list_names(doubtful, limit=_SHOWN) or "none",
        _adata.list_names(absent, limit=_SHOWN) or "none",
    )
    logger.info("Cells: %s.", cells)
    is_by_name = table["decided_by"].str.startswith("name").any()
    if is_by_name and 0 < len(absent) <= _MAX_ABSENT_SHARE * len(by_target):
        logger.warning(
            "Targets that are no measured genes: %s. If they are controls, pass control_guides.",
            _adata.list_names(absent, limit=10),
        )
