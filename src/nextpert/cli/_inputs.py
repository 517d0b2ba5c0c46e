"""Everything the command is given, read and checked before the graph is learned."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.cli import _read as read

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from anndata import AnnData

    from nextpert._adata import LabelTable

_MANY_GENES = 300


@dataclass(frozen=True)
class Inputs:
    """The screen, and what the options name.

    Parameters
    ----------
    adata
        The screen, log-normalised.
    genes
        The panel; ``None`` for that of a given graph, or every gene.
    target
        The wanted state as :func:`nextpert.tl.design_interventions` takes it.
    hidden
        The unseen knockout behind the target of the simulated screen.
    tables
        What the csv files hold, and the candidates, by the name of their option.
    """

    adata: AnnData
    genes: list[str] | None
    target: Any
    hidden: str | None
    tables: dict[str, Any]


def read_inputs(options: argparse.Namespace) -> Inputs:
    """Return all inputs.

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If a file cannot be read, or an option names what the screen does not hold.
    """
    tables = {
        "dag": read.read_pairs(options.dag, "--dag"),
        "before": read.read_pairs(options.before, "--before"),
        "required": read.read_pairs(options.required, "--required"),
        "forbidden": read.read_pairs(options.forbidden, "--forbidden"),
        "tiers": read.read_numbers(options.tiers, "--tiers"),
        "shift": read.read_shift(options.shift, "--shift"),
        "candidate_shift": read.read_shift(options.candidate_shift, "--candidate-shift"),
        "prior_effects": None
        if options.prior_effects is None
        else read.read_screen(options.prior_effects),
        "prior_network": read.read_network(options.prior_network, "--prior-network"),
        "candidates": read.read_candidates(options.candidates),
    }
    target: Any
    hidden = None
    if options.file is None:
        from nextpert.cli._simulated import unseen_target
        from nextpert.datasets import simulated_screen

        adata = simulated_screen(rng=options.seed)
        target, hidden = unseen_target(adata)
        if options.candidates is None:
            tables["candidates"] = "genes"
    else:
        target = read.read_target(options)
        adata = read.read_screen(options.file)
    adata = _normalised(adata, options)
    genes = _choose_panel(adata, options)
    if options.file is not None:
        _check_names(adata, options, genes, target, tables)
    return Inputs(adata, genes, target, hidden, tables)


def _choose_panel(adata: AnnData, options: argparse.Namespace) -> list[str] | None:
    """Return the panel (``None``: that of a given graph, or all), and check the labels."""
    from nextpert import _adata

    labels = _adata.read_labels(adata, options.perturbation_key)
    _adata.require_control(labels, options.control)
    names, columns = _adata.resolve_panel(adata, options.genes, gene_symbols=options.gene_symbols)
    if not options.min_fraction:
        if options.genes is None and options.method != "given" and adata.n_vars > _MANY_GENES:
            message = (
                f"The panel holds all {adata.n_vars} genes: learning its graph may take long. "
                "Name fewer with --genes or --min-fraction."
            )
            warnings.warn(message, UserWarning, stacklevel=2)
        return None if options.genes is None else names
    cells = np.flatnonzero(labels.groups([options.control]) == 0)
    seen = _adata.seen_share(adata, columns, cells, options.layer)
    kept = [name for name, share in zip(names, seen, strict=True) if share > options.min_fraction]
    if len(kept) < 2:
        message = (
            f"Only {len(kept)} of {len(names)} genes are seen in more than "
            f"{options.min_fraction:.3g} of the control cells: lower --min-fraction."
        )
        raise ValueError(message)
    return kept


def _normalised(adata: AnnData, options: argparse.Namespace) -> AnnData:
    """Return the screen, with ``--log-normalise`` as ``pp.perturbation_screen`` normalises it."""
    from nextpert._adata import require_layer
    from nextpert.pp._steps import expression

    require_layer(adata, options.layer)
    everything = np.arange(adata.n_obs)
    matrix = adata.X if options.layer is None else adata.layers[options.layer]
    where = "X" if options.layer is None else f"The layer {options.layer!r}"
    counts = expression.whole(matrix)
    if not options.log_normalise:
        if counts and options.file is not None:
            message = f"{where} holds whole numbers only: if they are counts, pass --log-normalise."
            warnings.warn(message, UserWarning, stacklevel=2)
            # The functions say so too, in every step.
            warnings.filterwarnings("ignore", r".* holds whole numbers only.*perturbation_screen")
        return adata
    if not counts:
        message = (
            f"{where} holds no raw counts (values below 0 or not whole): leave out --log-normalise "
            "for data that are normalised already."
        )
        raise ValueError(message)
    if options.depth_key is None:
        depth = expression.total_counts(adata, everything, options.layer)
    else:
        depth = expression.read_depth(adata, options.depth_key)
    if not (depth > 0).any():
        message = f"{where} holds no counts at all: name another with --layer, or --depth-key."
        raise ValueError(message)
    if not (depth > 0).all():
        message = f"{(depth == 0).sum()} cells without any counts are left out."
        warnings.warn(message, UserWarning, stacklevel=2)
        adata, depth = adata[depth > 0].copy(), depth[depth > 0]
        matrix = adata.X if options.layer is None else adata.layers[options.layer]
    values = expression.log_normalise(matrix, "counts", depth, float(np.median(depth)))
    adata.layers.setdefault("counts", matrix)
    if options.layer is None:
        adata.X = values
    else:
        adata.layers[options.layer] = values
    return adata


def _check_names(
    adata: AnnData,
    options: argparse.Namespace,
    genes: list[str] | None,
    target: Any,
    tables: dict[str, Any],
) -> None:
    """Raise where a target, perturbation, candidate or shift names what is not there."""
    from nextpert._adata import read_labels
    from nextpert._adata.shifts import read_table

    labels = read_labels(adata, options.perturbation_key)
    panel = _panel(adata, genes, tables["dag"], options.gene_symbols)
    _check_target(adata, options, labels, panel, target)
    labels.require(options.perturbations or [], "--perturbations")
    rows: dict[str, set[str]] = {}
    for name in ("shift", "candidate_shift", "candidates"):
        if hasattr(tables[name], "items"):
            try:
                rows[name] = set(read_table(tables[name], panel).names)
            except ValueError as error:
                message = f"--{name.replace('_', '-')}: {error}"
                raise ValueError(message) from error
    if isinstance(tables["candidates"], list):
        known = rows.get("shift", set()) | rows.get("candidate_shift", set())
        given = [c for c in tables["candidates"] if c not in known]
        _check_candidates(given, options, panel, options.perturbations or labels.names)
    _check_rounds(adata, options, panel)


def _panel(
    adata: AnnData, genes: list[str] | None, dag: Any, gene_symbols: str | None
) -> list[str]:
    from nextpert._adata import measured_genes

    measured = measured_genes(adata, gene_symbols)
    if genes is not None or not dag:
        return measured if genes is None else genes
    ends = {gene for arc in dag for gene in arc}
    return [gene for gene in measured if gene in ends]


def _check_target(
    adata: AnnData, options: argparse.Namespace, labels: LabelTable, panel: list[str], target: Any
) -> None:
    from nextpert._adata import panel_index, read_labels

    if isinstance(target, str):
        labels.require([target], "--target")
        if target == options.control:
            message = f"--target {target} is the control state itself: nothing to reach."
            raise ValueError(message)
    elif isinstance(target, tuple):
        groups = read_labels(adata, target[0], argument="--target-group")
        groups.require([target[1]], "--target-group")
    else:
        option = "--target-file" if options.target_file is not None else "--target-mean"
        panel_index(target, panel, option)


def _check_candidates(
    names: Sequence[str],
    options: argparse.Namespace,
    panel: Sequence[str],
    used: Sequence[str],
) -> None:
    from nextpert._adata import parse_label
    from nextpert._adata.environments import unknown_genes
    from nextpert._adata.labels import NO_PERTURBATION
    from nextpert._adata.members import members_of

    by = {"separator": options.separator, "control": options.control}
    # Where shifts are learned, cells tell of labels outside the panel, alone or in combinations.
    told: set[str] = set()
    if options.shift_sd == "learned":
        told = {m for x in used if x not in NO_PERTURBATION for m in members_of(x, panel, **by)}
    for name in names:
        members = set(members_of(name, panel, **by))
        if members and members - set(panel) <= told:
            continue
        inside, outside = parse_label(
            name, set(panel), separator=options.separator, control=options.control
        )
        if outside or not inside:
            message = f"--candidates: {unknown_genes(name, outside or [name], list(panel))}"
            raise ValueError(message)


def _check_rounds(adata: AnnData, options: argparse.Namespace, panel: list[str]) -> None:
    from nextpert.tl._design_interventions.tables import read_trace

    try:
        read_trace(adata, "design", panel)
    except ValueError as error:
        message = (
            f"{str(options.file)!r} holds earlier rounds that these cannot be added to, or "
            f"something else in uns['design']: name the genes of those rounds with --genes, or "
            f"begin with a file without that entry. ({error})"
        )
        raise ValueError(message) from error
