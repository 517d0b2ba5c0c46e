"""The steps of the command: read, learn, fit, rank, draw, write."""

from __future__ import annotations

import logging
import os
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.cli import _read as read
from nextpert.cli._report import print_report, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from anndata import AnnData

logger = logging.getLogger(__name__)

_MANY_GENES = 300
_MOST_PANELS = 12


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    target: Any
    with _step(options, "Reading the screen"):
        if options.file is None:
            from nextpert.datasets import simulated_screen

            adata = simulated_screen(rng=options.seed)
            target, hidden = _unseen_target(adata)
            options.candidates = options.candidates or ["genes"]
        else:
            adata, hidden = read.read_screen(options.file), None
            target = read.read_target(options)
        genes = _prepare(adata, options)
    _analyse(adata, options, genes, target)
    with _step(options, "Drawing and writing"):
        written = _write(adata, options)
    print_report(adata, options, written, hidden)


def _analyse(
    adata: AnnData, options: argparse.Namespace, genes: list[str] | None, target: Any
) -> None:
    from nextpert import tl

    labels = {"perturbation_key": options.perturbation_key, "control": options.control}
    common = {**labels, "layer": options.layer}
    with _step(options, "Learning the graph from control cells (a first run compiles code)"):
        tl.learn_dag(
            adata,
            genes=genes,
            method=options.method,
            dag=read.read_pairs(options.dag),
            alpha=options.alpha,
            depth=options.depth,
            score=options.score,
            penalty=options.penalty,
            n_runs=options.n_runs,
            n_bootstraps=options.n_bootstraps,
            before=read.read_pairs(options.before),
            tiers=read.read_numbers(options.tiers),
            required=read.read_pairs(options.required),
            forbidden=read.read_pairs(options.forbidden),
            backend=options.backend,
            rng=options.seed,
            n_jobs=options.n_jobs,
            show_progress=not options.quiet,
            **common,
        )
    with _step(options, "Fitting the posterior over its weights"):
        tl.fit_dag_blr(
            adata,
            perturbations=options.perturbations,
            shift=read.read_shift(options.shift),
            separator=options.separator,
            prior_scale=options.prior_scale,
            prior_units=options.prior_units,
            noise_var=options.noise_var,
            intercept=not options.no_intercept,
            **common,
        )
    with _step(options, "Ranking what to try next"):
        tl.design_interventions(
            adata,
            target,
            acquisition=options.acquisition,
            candidates=read.read_candidates(options.candidates),
            shift=read.read_shift(options.candidate_shift),
            n_cells=options.n_cells,
            n_samples=options.n_samples,
            noise_aware=not options.no_noise_aware,
            rng=options.seed,
        )


def _unseen_target(adata: AnnData) -> tuple[dict[str, float], str]:
    """Return the true mean under the strongest knockout that was not performed, and its name."""
    truth = adata.uns["truth"]
    mean, genes = truth["control_mean"], [str(gene) for gene in truth["genes"]]
    effects = np.linalg.inv(np.eye(len(genes)) - truth["weights"].toarray())
    change = -effects * mean  # one column a knockout
    seen = set(adata.obs["perturbation"].astype(str))
    unseen = [i for i, gene in enumerate(genes) if gene not in seen]
    best = max(unseen, key=lambda i: float((change[:, i] ** 2).sum()))
    wanted = mean + change[:, best]
    return dict(zip(genes, wanted.tolist(), strict=True)), genes[best]


def _prepare(adata: AnnData, options: argparse.Namespace) -> list[str] | None:
    """Normalise if asked to, and return the panel (``None``: that of a given graph, or all)."""
    from nextpert import _adata

    labels = _adata.read_labels(adata, options.perturbation_key)
    _adata.require_control(labels, options.control)
    _adata.require_layer(adata, options.layer)
    _normalise(adata, options)
    if options.genes is None and not options.min_fraction:
        if options.method != "given" and adata.n_vars > _MANY_GENES:
            message = (
                f"The panel holds all {adata.n_vars} genes: learning its graph may take long. "
                "Name fewer with --genes or --min-fraction."
            )
            warnings.warn(message, UserWarning, stacklevel=2)
        return None
    names, columns = _adata.resolve_panel(adata, options.genes)
    cells = np.flatnonzero(labels.groups([options.control]) == 0)
    seen = _adata.seen_share(adata, columns, cells, options.layer)
    kept = [name for name, share in zip(names, seen, strict=True) if share > options.min_fraction]
    if len(kept) < 2:
        message = (
            f"Only {len(kept)} of {len(names)} genes are seen in more than "
            f"{options.min_fraction:.3g} of the control cells: lower --min-fraction."
        )
        raise ValueError(message)
    return kept if options.min_fraction else names


def _normalise(adata: AnnData, options: argparse.Namespace) -> None:
    matrix = adata.X if options.layer is None else adata.layers[options.layer]
    values = matrix.data if hasattr(matrix, "nnz") else np.asarray(matrix).ravel()
    counts = bool((values >= 0).all() and (values == np.floor(values)).all())
    where = "X" if options.layer is None else f"The layer {options.layer!r}"
    if not options.log_normalise:
        if counts and options.file is not None:
            message = f"{where} holds whole numbers only: if they are counts, pass --log-normalise."
            warnings.warn(message, UserWarning, stacklevel=2)
        return
    if not counts:
        message = (
            f"{where} holds no raw counts (values below 0 or not whole): leave out --log-normalise "
            "for data that are normalised already."
        )
        raise ValueError(message)
    import scanpy as sc

    if "counts" not in adata.layers:
        adata.layers["counts"] = matrix.copy()
    as_floats = matrix.astype(np.float32)
    if options.layer is None:
        adata.X = as_floats
    else:
        adata.layers[options.layer] = as_floats
    sc.pp.normalize_total(adata, layer=options.layer)
    sc.pp.log1p(adata, layer=options.layer)


def _write(adata: AnnData, options: argparse.Namespace) -> list[str]:
    """Write all results to a hidden folder first, then move them into place one by one."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".nextpert_", dir=out) as temporary:
        folder = Path(temporary)
        if not options.no_figures:
            _draw(adata, options, folder)
        design = adata.uns["design"]
        design["ranking"].to_csv(folder / "ranking.csv", index=False)
        design["trace"].to_csv(folder / "trace.csv", index=False)
        adata.write_h5ad(folder / "annotated.h5ad", compression="gzip")
        names = sorted(path.name for path in folder.iterdir())
        for name in names:
            os.replace(folder / name, out / name)
    return names


def _draw(adata: AnnData, options: argparse.Namespace, folder: Path) -> None:
    import matplotlib.pyplot as plt

    from nextpert import pl, tl

    before = plt.get_backend()
    plt.switch_backend("agg")  # no window, and none needed
    try:
        ranking = adata.uns["design"]["ranking"]
        chosen = [gene for gene in str(ranking["target_genes"].iloc[0]).split(", ") if gene]
        pl.dag(adata, highlight=chosen, save=folder / "dag.png", show=False)
        pl.design(adata, save=folder / "design.png", show=False)
        fitted = [str(name) for name in adata.uns["dag_blr"]["environments"]["perturbation"]]
        if fitted:
            tl.cpca(
                adata,
                genes=adata.uns["dag"]["genes"],
                groups=fitted,
                perturbation_key=options.perturbation_key,
                control=options.control,
                layer=options.layer,
                rng=options.seed,
            )
            ranked = [name for name in ranking["perturbation"] if name in fitted]
            groups = list(dict.fromkeys(ranked + fitted))[:_MOST_PANELS]
            pl.cpca_density(adata, groups=groups, save=folder / "cpca_density.png", show=False)
        plt.close("all")
    finally:
        plt.switch_backend(before)


@contextmanager
def _step(options: argparse.Namespace, what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    started = time.perf_counter()
    if not options.quiet:
        say(f"{what} ...")
    yield
    if not options.quiet:
        say(f"{what}: done in {time.perf_counter() - started:.1f} s")
