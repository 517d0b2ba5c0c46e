"""All steps in one, on a simulated screen or one of your own."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert.cli._output import (
    Outputs,
    check_outputs,
    write_all,
    write_screen,
    write_table,
    write_text,
)
from nextpert.cli._read import read_screen, require_screen
from nextpert.cli._report import describe_ranking, show_ranking
from nextpert.cli._results import summary_of, table_of
from nextpert.cli._run import COMMANDS, call, note_command, stage, tell_json
from nextpert.cli._settings import settings
from nextpert.cli._signature import flag_of, target_options
from nextpert.cli._values import read_target, value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

    from nextpert.cli._app import Job

_MOST_PANELS = 12
_FEWEST_JUDGED = 3  # perturbations
FIGURES = ("cpca_density.png", "dag.png", "design.png")


def run_demo(job: Job) -> None:
    """Run all steps; ``job.written`` says once the results are there."""
    options = job.options
    out: Path = options["out"]
    data: Path | None = options["data"]
    if data is not None:
        require_screen(data)
    names = ["annotated.h5ad", "demo.toml", "effects.csv", "ranking.csv", "report.html"]
    names += ["trace.csv"]
    names += FIGURES if options["figures"] else ()
    outputs = Outputs("--out", tuple(out / name for name in names), options["overwrite"])
    check_outputs(outputs, data)
    with stage(options, "Reading the screen"):
        adata, target, hidden = _read(job)
    _analyse(adata, target, options, hidden)
    note_command(adata, job)
    with stage(options, "Drawing and writing"):
        written = _write(adata, outputs, options)
        job.written = True
    said = describe_ranking(adata, hidden)
    if "diagnosis" in adata.uns:
        said += [str(adata.uns["diagnosis"]["verdict"])]
    if options["json"]:
        tell_json("demo", options, " ".join(said), summary_of("design", adata), written)
        return
    if options["show"]:
        truth = hidden is not None
        said += ["", show_ranking(adata, options["show"], truth=truth, file="ranking.csv"), ""]
    said += [f"Written to {out}: {', '.join(sorted(path.name for path in written))}"]
    sys.stdout.write("\n".join(said) + "\n")


def _read(job: Job) -> tuple[AnnData, Any, str | None]:
    """Return the screen, the wanted state, and the unseen knockout behind it if simulated."""
    options = job.options
    if options["data"] is None:
        from nextpert.cli._simulated import unseen_target
        from nextpert.datasets import simulated_screen

        if target_options(options):
            message = "The simulated screen has its own target: give --data FILE.h5ad as well."
            raise ValueError(message)
        adata = simulated_screen(rng=options["rng"])
        return adata, *unseen_target(adata)
    target = read_target(options)
    adata = read_screen(options["data"])
    given = {
        name: value(name, options[name])
        for name in dict(job.step.picked)["pp.perturbation_screen"]  # type: ignore[attr-defined]
        if options[name] is not None
    }
    if "preprocessing" in adata.uns:
        _refuse_again(job, given)
    else:
        call("pp.perturbation_screen", adata, given, options)
    _check_target(adata, target, options)
    return adata, target, None


def _refuse_again(job: Job, given: dict[str, Any]) -> None:
    """Raise where options of preprocessing are given for a screen that has gone through it."""
    from nextpert.cli._app import given_by

    changed = given_by(job)
    told = [name for name in given if name in changed]
    if told:
        flags = ", ".join(map(flag_of, told))
        message = f"{str(job.options['data'])!r} is preprocessed already: leave out {flags}."
        raise ValueError(message)


def _check_target(adata: AnnData, target: Any, options: dict[str, Any]) -> None:
    """Raise where the target is not of this screen, before the graph is learned."""
    from nextpert import _adata
    from nextpert._adata.target import as_target, listed

    roles, given = _adata.read_roles(adata), as_target(target)
    (option,) = target_options(options)
    if target == roles.control:
        message = f"{option} {target} is the control state itself: nothing to reach."
        raise ValueError(message)
    tables = [given.signature, given.at_least, given.at_most, given.weights]
    for state in [*listed(given.state), *listed(given.away_from)]:
        if isinstance(state, str | tuple):
            key, value = (roles.perturbation_key, state) if isinstance(state, str) else state
            labels = (
                _adata.read_every_label(adata, roles, argument=option)
                if key == roles.perturbation_key
                else _adata.read_labels(adata, key, argument=option)
            )
            labels.require([value], option)
        else:
            tables.append(state)
    panel = _adata.measured_genes(adata, options["gene_symbols"])
    for table in tables:
        if table is not None:
            _adata.panel_index(table, panel, option)


def _analyse(adata: AnnData, target: Any, options: dict[str, Any], hidden: str | None) -> None:
    common = {"rng": options["rng"]}
    symbols = {"gene_symbols": options["gene_symbols"]}
    learn = {"method": "boss", "environments": "all"} | symbols | common
    learn |= {name: options[name] for name in ("n_runs", "n_graphs", "n_jobs")}
    candidates = options["candidates"]
    if candidates is None and hidden is not None:
        candidates = ["genes"]
    names = ("acquisition", "target_is_candidate", "n_cells", "n_samples")
    design = {name: options[name] for name in names} | common
    if candidates is not None:
        design["candidates"] = value("candidates", candidates)
    with stage(options, "Learning the graph from all cells (a first run compiles code)"):
        call("tl.learn_dag", adata, learn, options)
    with stage(options, "Fitting the posterior over its weights"):
        call("tl.fit_dag_blr", adata, {}, options)
        call("tl.perturbation_effects", adata, {}, options)
    with stage(options, "Ranking what to try next"):
        call("tl.design_interventions", adata, {"target": target} | design, options)
    fitted = _fitted(adata)
    if len(fitted) >= _FEWEST_JUDGED:
        with stage(options, "Judging how far to trust it"):
            call("tl.diagnose", adata, common, options)
    if fitted:
        known = {"genes": adata.uns["dag"]["genes"], "groups": fitted} | symbols | common
        call("tl.cpca", adata, known, options)


def _write(adata: AnnData, outputs: Outputs, options: dict[str, Any]) -> list[Path]:
    from nextpert import __version__, report

    text = settings("demo", options, __version__)
    commands = "\n".join(map(str, adata.uns[COMMANDS]))
    writers: dict[str, Callable[[Path], Any]] = {
        "annotated.h5ad": lambda path: write_screen(adata, path),
        "demo.toml": lambda path: write_text(text, path),
        "effects.csv": lambda path: write_table(table_of("effects", adata), path),
        "ranking.csv": lambda path: write_table(adata.uns["design"]["ranking"], path),
        "report.html": lambda path: report(adata, path, command=commands),
        "trace.csv": lambda path: write_table(adata.uns["design"]["trace"], path),
    }
    with _figures(adata) as drawn:
        write_all({path: (writers | drawn)[path.name] for path in outputs.paths}, [outputs])
    return list(outputs.paths)


@contextmanager
def _figures(adata: AnnData) -> Iterator[dict[str, Any]]:
    """Yield what draws each figure, without a window."""
    import matplotlib.pyplot as plt

    from nextpert import pl

    before = plt.get_backend()
    plt.switch_backend("agg")
    try:
        yield {
            "dag.png": lambda path: pl.dag(adata, highlight=_targets(adata), save=path, show=False),
            "design.png": lambda path: pl.design(adata, save=path, show=False),
            "cpca_density.png": lambda path: _draw_densities(adata, path),
        }
        plt.close("all")
    finally:
        plt.switch_backend(before)


def _fitted(adata: AnnData) -> list[str]:
    return [str(name) for name in adata.uns["dag_blr"]["environments"]["perturbation"]]


def _targets(adata: AnnData) -> list[str]:
    """Return the target genes of the first of the ranking."""
    targets = adata.uns["design"]["targets"]
    return [str(gene) for gene in targets["names"][: targets["offsets"][1]]]


def _draw_densities(adata: AnnData, path: Path) -> None:
    """Draw the first two contrastive components of the perturbations, the best of them first."""
    from nextpert import pl

    fitted = _fitted(adata)
    if not fitted:
        return
    ranked = [name for name in adata.uns["design"]["ranking"]["perturbation"] if name in fitted]
    groups = list(dict.fromkeys(ranked + fitted))[:_MOST_PANELS]
    pl.cpca_density(adata, groups=groups, save=path, show=False)
