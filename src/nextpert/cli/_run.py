"""The steps of the command: read, learn, fit, rank, draw, write."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nextpert.cli._inputs import read_inputs
from nextpert.cli._output import check_out, write_results
from nextpert.cli._read import require_file
from nextpert.cli._report import print_report, say
from nextpert.cli._warm import compiling_ahead

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData

    from nextpert.cli._inputs import Inputs

_MOST_PANELS = 12


def run(options: argparse.Namespace) -> None:
    """Run the command; ``options.written`` says once the results are there."""
    if options.file is not None:
        require_file(options.file)
    check_out(options)
    with _step(options, "Reading the screen"):
        inputs = read_inputs(options)
    with compiling_ahead():
        _analyse(inputs, options)
    with _step(options, "Drawing and writing"):
        adata = inputs.adata
        written = write_results(adata, options, lambda folder: _draw(adata, options, folder))
        options.written = True
    print_report(adata, options, written, inputs.hidden)


def _prior(tables: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is known of the graph before any cell is seen."""
    kinds = ("before", "tiers", "required", "forbidden")
    return {kind: tables[kind] for kind in kinds if tables[kind] is not None} or None


def _analyse(inputs: Inputs, options: argparse.Namespace) -> None:
    from nextpert import tl

    adata, tables = inputs.adata, inputs.tables
    labels = {"perturbation_key": options.perturbation_key, "control": options.control}
    common = {**labels, "layer": options.layer}
    which = "control" if options.environments == "control" else "all"
    with _step(options, f"Learning the graph from {which} cells (a first run compiles code)"):
        tl.learn_dag(
            adata,
            genes=inputs.genes,
            gene_symbols=options.gene_symbols,
            method=options.method,
            dag=tables["dag"],
            alpha=options.alpha,
            penalty=options.penalty,
            n_runs=options.n_runs,
            n_graphs=options.n_graphs,
            checkpoint=options.checkpoint,
            environments=options.environments,
            prior=_prior(tables),
            prior_network=tables["prior_network"],
            targets_first=options.targets_first,
            rng=options.seed,
            n_jobs=options.n_jobs,
            show_progress=not options.quiet,
            **common,
        )
    with _step(options, "Fitting the posterior over its weights"):
        tl.fit_dag_blr(
            adata,
            perturbations=options.perturbations,
            shift=tables["shift"],
            shift_sd=options.shift_sd,
            guide_key=options.guide_key,
            prior_effects=tables["prior_effects"],
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
            inputs.target,
            acquisition=options.acquisition,
            candidates=tables["candidates"],
            shift=tables["candidate_shift"],
            n_cells=options.n_cells,
            n_samples=options.n_samples,
            noise_aware=not options.no_noise_aware,
            rng=options.seed,
        )


def _draw(adata: AnnData, options: argparse.Namespace, folder: Path) -> None:
    import matplotlib.pyplot as plt

    from nextpert import pl, tl
    from nextpert._adata import read_lists
    from nextpert.tl._design_interventions.tables import candidates_of

    before = plt.get_backend()
    plt.switch_backend("agg")  # no window, and none needed
    try:
        design = adata.uns["design"]
        ranking = candidates_of(design["ranking"])
        where = "adata.uns['design']['targets']"
        chosen = read_lists(design["targets"], len(ranking), where)[0]
        pl.dag(adata, highlight=chosen, save=folder / "dag.png", show=False)
        pl.design(adata, save=folder / "design.png", show=False)
        fitted = [str(name) for name in adata.uns["dag_blr"]["environments"]["perturbation"]]
        if fitted:
            tl.cpca(
                adata,
                genes=adata.uns["dag"]["genes"],
                gene_symbols=options.gene_symbols,
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
