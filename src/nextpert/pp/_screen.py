"""Select, normalise and label the cells and genes of a screen, and record each step."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata import join, strings
from nextpert._adata.panel import MODULE_OF, PANELS
from nextpert._adata.roles import KEY, screen_record
from nextpert._adata.scale import read_scale
from nextpert._adata.screen import read_environments
from nextpert._adata.stored import with_format
from nextpert._warn import warn
from nextpert.pp._expression import normalise, read_matrix
from nextpert.study.target import Target, genes_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

LABELS, CONTROL = "perturbation", "control"
TARGET = "target"  # role of unlabelled cells whose mean is a target state
BOOKS = "preprocessing"  # in uns
COMBINATIONS = ("drop", "keep")
_LARGE = 1000  # genes, above which a graph and a diagnosis take minutes
_SEEN = 0.1  # share of the control cells in which a gene of the panel is seen


@dataclass(frozen=True)
class Choices:
    """Options by which :func:`nextpert.pp.perturbation_screen` chooses cells and genes.

    ``keeps_outside`` says whether cells with targets outside the panel are kept, and ``values``
    what the matrix contains if not counts: ``"log_tpm"``, or ``"none"`` for values that do not
    change. ``target_sum`` is the total counts to which cells are scaled, by default the median.
    """

    panel: str | Iterable[str] | Target | None
    min_cells: int
    combinations: str
    layer: str | None
    keeps_outside: bool = True
    values: str = "none"
    target_sum: float | None = None
    depth_key: str | None = None

    @property
    def takes_seen(self) -> bool:
        """Whether the panel consists of the genes that are seen, and those of a target."""
        return self.panel is None or isinstance(self.panel, Target)

    def params(self, roles: Roles) -> dict[str, Any]:
        """Return the choices as they are stored."""
        panel = self.panel if isinstance(self.panel, str) else "list"
        default_panel = "genes seen" if self.panel is None else "genes seen, and those of a target"
        chosen: dict[str, Any] = {
            "panel": default_panel if self.takes_seen else panel,
            "min_cells": int(self.min_cells),
            "combinations": self.combinations,
            "separator": roles.separator,
            "layer": self.layer,
            "gene_symbols": roles.gene_symbols,
        }
        return {name: value for name, value in chosen.items() if value is not None}


class CellTargets(NamedTuple):
    """The targets and the role of every cell.

    ``codes`` is the row of each cell in the table, shape ``(n_cells,)``. The table has a row for
    each distinct label or list of guides, with ``name``, ``targets`` and ``role`` (``"control"``,
    ``"perturbed"``, ``"unassigned"`` or ``"target"``).
    """

    codes: NDArray[np.int64]
    table: pd.DataFrame

    def have(self, role: str) -> NDArray[np.bool_]:
        """Return which cells have a role."""
        return (self.table["role"] == role).to_numpy()[self.codes]

    def have_several(self) -> NDArray[np.bool_]:
        """Return which cells have several perturbations that are not known, such as doublets."""
        names = self.table["name"].astype(str).str.lower()
        return names.str.startswith(("multi", "doublet", "ambiguous")).to_numpy()[self.codes]


class Panel(NamedTuple):
    """The genes of the analysis.

    ``reasons`` says why a target is not among them, and ``constant`` lists the genes left out
    because they do not vary among the control cells. ``absent`` lists the genes of a target that
    are not measured.
    """

    genes: list[str]
    columns: NDArray[np.int64]
    reasons: dict[str, str]
    constant: list[str]
    absent: list[str]


class Bookkeeping:
    """Which of ``n`` cells are still kept (``kept``), and one row per step."""

    def __init__(self, n: int) -> None:
        self.kept: NDArray[np.bool_] = np.ones(n, dtype=bool)
        self._rows: list[tuple[str, int, int, str]] = []
        self.keep("all cells", self.kept, "")

    def keep(
        self, step: str, keep: NDArray[np.bool_], why: str, names: NDArray[Any] | None = None
    ) -> None:
        """Keep only these cells; ``why`` is the reason, and ``names`` (of cells) are counted."""
        is_dropped = self.kept & ~keep
        self.kept = self.kept & keep
        n_kept, n_dropped = int(self.kept.sum()), int(is_dropped.sum())
        why = why + (tally(names[is_dropped]) if names is not None else "") if n_dropped else ""
        self._rows.append((step, n_kept, n_dropped, why))
        logger.info("%s: %d cells kept, %d dropped. %s", step, n_kept, n_dropped, why)

    def table(self) -> pd.DataFrame:
        """Return one row per step: ``step``, ``n_cells_kept``, ``n_cells_dropped``, ``why``."""
        columns = ["step", "n_cells_kept", "n_cells_dropped", "why"]
        table = pd.DataFrame(self._rows, columns=columns)
        table.index = pd.Index(np.arange(len(table)))
        return table.assign(step=strings(table["step"]), why=strings(table["why"]))


def tally(names: Any) -> str:
    """Return how often each name occurs, the most frequent first: ``"multi 2255, NA 662"``."""
    counts = pd.Series(names, dtype=object).value_counts(sort=True)
    return _adata.list_names((f"{name} {count}" for name, count in counts.items()), limit=6)


def prepare(
    adata: ad.AnnData,
    carried: CellTargets,
    book: Bookkeeping,
    choices: Choices,
    roles: Roles,
) -> tuple[ad.AnnData, list[str]]:
    """Choose cells and genes, normalise and label them; ``adata`` does not change.

    Return the new screen, with the record of the steps in ``uns``, and the warnings.
    """
    read = np.flatnonzero(book.kept)
    matrix = read_matrix(adata, read, choices.values, choices.depth_key, choices.layer)
    if matrix.kind == "counts" and matrix.depth is not None:
        book.keep("depth", matrix.depth > 0, "no counts")
    _require_controls(carried, book)
    controls = np.flatnonzero(book.kept & carried.have("control"))
    measured = _adata.measured_genes(adata, roles.gene_symbols)
    groups = np.flatnonzero(book.kept & carried.have(TARGET))
    panel = _choose_panel(adata, controls, groups, choices, roles)
    # The knockout of a gene without counts is a state, although it is no gene of the panel.
    possible_targets = panel.genes + (panel.constant if choices.panel is not None else [])
    named = _name_targets(carried, possible_targets, choices, roles.separator)
    n_found = np.bincount(carried.codes[book.kept], minlength=len(carried.table))
    _drop_by_targets(carried, named, book, choices)
    n_kept = np.bincount(carried.codes[book.kept], minlength=len(carried.table))
    table = _perturbation_table(named, n_found, n_kept, panel.reasons)
    cells = np.flatnonzero(book.kept)
    new = join.take(adata, cells, panel.columns)
    target_sum = normalise(new, panel.genes, matrix, cells, choices.layer, choices.target_sum)
    codes = carried.codes[cells]
    labels = named["label"].where(carried.table["role"] != TARGET)
    new.obs[LABELS] = pd.Categorical(labels.to_numpy(object)[codes])
    new.obs["n_targets"] = named["n_targets"].to_numpy()[codes]
    _describe_genes(new, panel.genes, choices.panel)
    books: dict[str, Any] = {
        "steps": book.table(),
        "perturbations": table,
        "n_control_cells": int((new.obs[LABELS] == CONTROL).sum()),
        "params": choices.params(roles) | {"values": matrix.kind},
    }
    if target_sum is not None:
        books["params"]["target_sum"] = target_sum
    targets = dict(zip(named["label"], named["targets"], strict=True))
    messages = _messages(table, targets, frozenset(measured), choices)
    if choices.takes_seen and len(panel.genes) > _LARGE:
        messages.append(
            f"The panel has {len(panel.genes):,} genes, those seen in {100 * _SEEN:g}% of the "
            f"control cells, so that later steps take minutes: pass fewer genes as panel to be "
            f"faster."
        )
    if panel.absent:
        messages.append(
            f"{len(panel.absent)} genes of the target are not measured, and are left out of the "
            f"panel: {_adata.list_names(panel.absent, limit=30)}."
            f"{_adata.closest(panel.absent, measured)}{_adata.id_hint(panel.absent, measured)}"
        )
    if panel.constant and choices.panel is not None:  # genes that were asked for
        messages.append(
            f"Genes of the panel that are constant among the {len(controls)} control cells are "
            f"left out: {_adata.list_names(panel.constant, limit=30)}. The cells of their "
            f"perturbations are kept, and can be a target; known shifts (shift_sd=0) leave these "
            f"perturbations out of the candidates."
        )
    scale = matrix.scale
    if matrix.kind != "none":
        scale = read_scale(new, np.arange(new.n_vars), np.arange(new.n_obs), None)
    roles = replace(roles, perturbation_key=LABELS, control=CONTROL, layer=None)
    if roles.columns[1:]:
        read_environments(new, roles)  # raises
    new.uns[KEY] = with_format(screen_record(roles, scale.stored(checked=True)))
    new.uns[BOOKS] = books
    return new, messages


def finish(
    adata: ad.AnnData, new: ad.AnnData, warnings: list[str], *, copy: bool
) -> ad.AnnData | None:
    """Warn, and put the new screen in the place of ``adata``, or return it."""
    for message in warnings:
        warn(message)
    if copy:
        return new
    join.replace(adata, new)
    return None


def _require_controls(carried: CellTargets, book: Bookkeeping) -> None:
    if not (book.kept & carried.have("control")).any():
        steps = book.table()
        at = steps.loc[steps["n_cells_dropped"] > 0, "step"]
        dropped = f" These steps dropped cells: {_adata.list_names(at)}." if len(at) else ""
        message = f"No control cells remain: check control and the filters.{dropped}"
        raise ValueError(message)


def _names_of(panel: str | Iterable[str] | Target | None) -> list[str] | None:
    """Return the names of the genes of a panel, or ``None`` for every gene that is seen."""
    if panel is None or isinstance(panel, Target):
        return None
    if not isinstance(panel, str):
        return [str(name) for name in _adata.in_order(panel)]
    if panel not in PANELS:
        message = f"panel must be a list of genes, or {' or '.join(PANELS)}, but is {panel!r}."
        raise ValueError(message)
    return list(PANELS[panel])


def _choose_panel(
    adata: ad.AnnData,
    controls: NDArray[np.int64],
    groups: NDArray[np.int64],
    choices: Choices,
    roles: Roles,
) -> Panel:
    """Return those genes of the panel that are seen in, and vary among, the control cells.

    Genes that are seen in cells of target ``groups``, or named by a target, are among them.
    """
    named = genes_of(choices.panel) if isinstance(choices.panel, Target) else []
    names = _names_of(choices.panel)
    genes, columns = _adata.resolve_panel(adata, names, gene_symbols=roles.gene_symbols)
    fraction_seen, constant = _adata.seen_and_constant(adata, columns, controls, choices.layer)
    if len(groups):
        fraction_in_groups, _ = _adata.seen_and_constant(adata, columns, groups, choices.layer)
        fraction_seen = np.maximum(fraction_seen, fraction_in_groups)
    measured = _adata.measured_genes(adata, roles.gene_symbols)
    reasons = dict.fromkeys(measured, "outside the panel")
    keep = np.ones(len(genes), dtype=bool)
    if names is None:
        keep = (fraction_seen >= _SEEN) | np.isin(genes, named)
        for gene, fraction in zip(genes, fraction_seen.tolist(), strict=True):
            reasons[gene] = f"outside the panel: seen in {fraction:.1%} of control cells"
    # A gene that does not vary has no noise to compare an effect with, and no place in a graph.
    gene_array = np.array(genes, dtype=object)
    constant_genes = gene_array[keep & constant].tolist()
    reasons |= dict.fromkeys(constant_genes, "outside the panel: constant among control cells")
    keep &= ~constant
    if not keep.any():
        message = (
            f"No gene of the panel varies among the {len(controls)} control cells: pass other "
            f"genes as panel."
        )
        raise ValueError(message)
    logger.info("%d genes kept, %d not", keep.sum(), adata.n_vars - keep.sum())
    measured_set = set(measured)
    absent = [gene for gene in named if gene not in measured_set]
    constant_genes = [gene for gene in constant_genes if gene in named] if named else constant_genes
    return Panel(gene_array[keep].tolist(), columns[keep], reasons, constant_genes, absent)


def _name_targets(
    carried: CellTargets,
    panel: Collection[str],
    choices: Choices,
    separator: str,
) -> pd.DataFrame:
    """Return the label, the targets and their number for each row of ``carried.table``.

    ``usable`` says whether cells with these targets are kept.
    """
    genes = set(panel)
    rows = []
    for targets, role in zip(carried.table["targets"], carried.table["role"], strict=True):
        is_perturbed = role == "perturbed"
        sorted_targets = sorted(targets) if is_perturbed else []
        label = (
            separator.join(sorted_targets) if is_perturbed else "" if role == TARGET else CONTROL
        )
        rows.append(
            (
                label,
                sorted_targets,
                len(sorted_targets),
                choices.keeps_outside or genes.issuperset(sorted_targets),
            )
        )
    return pd.DataFrame(rows, columns=["label", "targets", "n_targets", "usable"])


def _drop_by_targets(
    carried: CellTargets, named: pd.DataFrame, book: Bookkeeping, choices: Choices
) -> None:
    n_targets, labels, usable = (
        named[name].to_numpy(kind)[carried.codes]
        for name, kind in (("n_targets", int), ("label", object), ("usable", bool))
    )
    if choices.combinations == "drop":
        names = np.array([f"{n} targets" for n in named["n_targets"]], dtype=object)[carried.codes]
        book.keep("combinations", n_targets <= 1, "more than one target: ", names)
    book.keep("panel", usable, "targets outside the panel or not measured: ", labels)
    number, names = pd.factorize(labels)
    n_cells = np.bincount(number[book.kept], minlength=len(names))
    enough = ((n_cells >= choices.min_cells) | np.isin(names, (CONTROL, "")))[number]
    book.keep("min_cells", enough, f"fewer than {choices.min_cells} cells: ", labels)


def _perturbation_table(
    named: pd.DataFrame,
    n_found: NDArray[np.int64],
    n_kept: NDArray[np.int64],
    reasons: dict[str, str],
) -> pd.DataFrame:
    """Return one row per perturbation: its targets, its cells, and why it is left out.

    Combinations that are left out are not listed, because there may be tens of thousands.
    ``n_found`` and ``n_kept`` are the cells of each row of ``named``, before and after these steps.
    """
    n_targets = named["n_targets"].to_numpy()
    listed = (n_targets > 0) & (n_found > 0) & ((n_targets == 1) | (n_kept > 0))
    why = [
        "too few cells" if usable or not targets else reasons.get(targets[0], "not measured")
        for usable, targets in zip(named["usable"], named["targets"], strict=True)
    ]
    entries = pd.DataFrame(
        {
            "perturbation": named["label"],
            "target_genes": named["targets"].map(", ".join),
            "n_cells": n_kept,
            "n_cells_found": n_found,
            "reason": why,
        }
    )
    by_label = entries[listed].groupby("perturbation")
    numbers = ["n_cells", "n_cells_found"]
    table = by_label.first().assign(**by_label[numbers].sum()).reset_index()
    table.insert(4, "kept", table["n_cells"] > 0)
    table.loc[table["kept"], "reason"] = ""
    for name in ("perturbation", "target_genes", "reason"):
        table[name] = strings(table[name])
    return table.astype(dict.fromkeys(numbers, np.int64)).set_axis(np.arange(len(table)))


def _describe_genes(new: ad.AnnData, genes: list[str], panel: Any) -> None:
    """Describe the genes in ``var``."""
    controls = new.X[(new.obs[LABELS] == CONTROL).to_numpy()]
    n = controls.shape[0]
    mean = np.asarray(controls.mean(axis=0, dtype=np.float64)).ravel()
    squares = controls.multiply(controls) if sp.issparse(controls) else controls * controls
    square = np.asarray(squares.mean(axis=0, dtype=np.float64)).ravel()
    sd = np.sqrt(np.maximum(square - mean**2, 0) * n / max(n - 1, 1))
    new.var["control_mean"] = mean
    new.var["control_sd"] = sd
    new.var["seen_in_control"] = np.asarray((controls != 0).sum(axis=0)).ravel() / n
    if isinstance(panel, str):
        new.var["module"] = pd.Categorical([MODULE_OF.get(gene) for gene in genes])


def _messages(
    table: pd.DataFrame,
    targets: dict[str, list[str]],
    measured: frozenset[str],
    choices: Choices,
) -> list[str]:
    """Return the warnings about a screen, and log what is less important."""
    out = []
    included, dropped = table[table["kept"]], table[~table["kept"]]
    if absent := dropped.loc[dropped["reason"] == "not measured", "perturbation"].to_list():
        message = (
            f"Perturbations left out because their targets are not measured: "
            f"{_adata.list_names(absent, limit=30)}.{_adata.closest(absent, measured)} "
            f"If adata.var_names has another name for a gene, use it in the labels."
            f"{_adata.guide_hint(absent, measured)}{_adata.id_hint(absent, measured)}"
        )
        # With a panel, genes may have been left out on purpose when the file was read.
        if choices.takes_seen:
            out.append(message)
        else:
            logger.warning(message)
    named = table.loc[table["reason"] != "not measured", "perturbation"]
    unmeasured = [name for name in named if not measured & set(targets[name])]
    hint = _adata.guide_hint(unmeasured, measured) + _adata.id_hint(unmeasured, measured)
    # Without a hint at a wrong name, they are assumed to be intended.
    if unmeasured and hint:
        out.append(
            f"Perturbations whose targets are not among the measured genes: "
            f"{_adata.list_names(unmeasured, limit=10)}.{hint}"
        )
    if included.empty:
        out.append(
            "No perturbed cells are left: see adata.uns['preprocessing']['steps'] for the steps "
            "that dropped them."
        )
    return out
