"""All steps in one, on a simulated screen or one of your own."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

import nextpert
from nextpert import _adata
from nextpert._adata.target import as_target, listed
from nextpert.cli._output import (
    check_outputs,
    write_all,
    write_screen,
    write_table,
    write_text,
)
from nextpert.cli._read import read_screen, target_of, values_of
from nextpert.cli._results import describe_ranking, in_lines, show_table, summary_of, table_of
from nextpert.cli._run import HISTORY, call, note_command, settings_of, tell_json
from nextpert.cli._words import flag_of, stage
from nextpert.tl._design_interventions.tables import candidates_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.cli._options import Job

_MOST_PANELS = 12  # that a page holds
_FEWEST_JUDGED = 3  # perturbations that a diagnosis can be made of
_FILES = ("annotated.h5ad", "demo.toml", "effects.csv", "ranking.csv", "report.html", "trace.csv")
_FIGURES = ("cpca_density.png", "dag.png", "design.png")


def run_demo(job: Job) -> None:
    """Run all steps; ``job.written`` says once the results are there."""
    options, out, data = job.options, job.options["out"], job.options["data"]
    names = (*_FILES, *(_FIGURES if options["figures"] else ()))
    outputs = dict.fromkeys([out / name for name in names], "--out")
    check_outputs(outputs, data, overwrite=options["overwrite"])
    with stage(options, "Reading the screen"):
        adata, target, hidden = _read(job)
    _analyse(adata, job, target, hidden)
    note_command(adata, job)
    with stage(options, "Drawing and writing"):
        _write(adata, job, outputs)
        job.written = True
    goal = hidden and f"the mean under a knockout of {hidden}, which the screen does not contain"
    said, truth = describe_ranking(adata, goal), None
    if hidden is not None:
        truth = true_distances(adata)
        said += [_against_the_truth(adata, truth)]
    if "diagnosis" in adata.uns:
        said += [str(adata.uns["diagnosis"]["verdict"])]
    if options["json"]:
        tell_json(job, " ".join(said), summary_of("demo", adata), [*outputs])
        return
    if "diagnosis" in adata.uns:
        said[-1] = in_lines(adata, said[-1])
    if options["show"]:
        said += [show_table("design", adata, options["show"], out / "ranking.csv", truth)]
    said += [f"Written to {out}: {', '.join(sorted(names))}"]
    sys.stdout.write("\n".join(said) + "\n")


def _read(job: Job) -> tuple[AnnData, Any, str | None]:
    """Return the screen, the target state, and the unseen knockout behind it if simulated."""
    options, wanted, labels = job.options, job.arguments["target"], vars(job.arguments["labels"])
    if options["data"] is None:
        if wanted.given:
            message = "The simulated screen has its own target: give --data FILE.h5ad as well."
            raise ValueError(message)
        adata = nextpert.datasets.simulated_screen(rng=options["rng"])
        return adata, *unseen_target(adata)
    target = target_of(wanted)
    adata = read_screen(options["data"])
    if "preprocessing" not in adata.uns:
        call("pp.perturbation_screen", adata, values_of(labels), options)
    elif told := [flag_of(name) for name in labels if name in job.given]:
        message = f"{str(options['data'])!r} is preprocessed already: leave out {', '.join(told)}."
        raise ValueError(message)
    _check_target(adata, target, flag_of(wanted.given[0]), options["gene_symbols"])
    return adata, target, None


def _check_target(adata: AnnData, target: Any, option: str, gene_symbols: str | None) -> None:
    """Raise where the target is not of this screen, before the graph is learned."""
    roles, given = _adata.read_roles(adata), as_target(target)
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
    panel = _adata.measured_genes(adata, gene_symbols)
    for table in tables:
        if table is not None:
            _adata.panel_index(table, panel, option)


def _analyse(adata: AnnData, job: Job, target: Any, hidden: str | None) -> None:
    """Learn, fit, rank and judge; the graph as we recommend it."""
    options = job.options
    seed, symbols = {"rng": options["rng"]}, {"gene_symbols": options["gene_symbols"]}
    learn = {name: options[name] for name in ("n_runs", "n_graphs", "n_jobs")} | symbols | seed
    learn |= {"method": "boss", "environments": "all"}
    unseen = {"candidates": "genes"} if hidden is not None else {}
    design = {"target": target} | unseen | values_of(vars(job.arguments["ranking"]))
    with stage(options, "Learning the graph from all cells (the first run compiles code)"):
        call("tl.learn_dag", adata, learn, options)
    with stage(options, "Fitting the model and estimating effects"):
        call("tl.fit_dag_blr", adata, {}, options)
        call("tl.perturbation_effects", adata, {}, options)
    with stage(options, "Ranking the candidates"):
        call("tl.design_interventions", adata, design, options)
    fitted = _fitted(adata)
    if len(fitted) >= _FEWEST_JUDGED:
        with stage(options, "Judging which parts of the fit to trust"):
            call("tl.diagnose", adata, seed, options)
    if fitted:
        known = {"genes": adata.uns["dag"]["genes"], "groups": fitted} | symbols | seed
        call("tl.cpca", adata, known, options)


def _write(adata: AnnData, job: Job, outputs: dict[Path, str]) -> None:
    """Write tables, figures, the page, the screen and the settings."""
    commands = "\n".join(map(str, adata.uns[HISTORY]))
    writers: dict[str, Any] = {
        "annotated.h5ad": lambda path: write_screen(adata, path),
        "demo.toml": lambda path: write_text(settings_of(job, job.options["out"]), path),
        "effects.csv": lambda path: write_table(table_of("effects", adata), path),
        "ranking.csv": lambda path: write_table(adata.uns["design"]["ranking"], path),
        "report.html": lambda path: nextpert.report(adata, path, command=commands),
        "trace.csv": lambda path: write_table(adata.uns["design"]["trace"], path),
    }
    with _figures(adata) as drawn:
        made = {path: (writers | drawn)[path.name] for path in outputs}
        write_all(made, outputs, overwrite=job.options["overwrite"])


@contextmanager
def _figures(adata: AnnData) -> Iterator[dict[str, Any]]:
    """Yield what draws each figure, without a window."""
    import matplotlib.pyplot as plt

    from nextpert import pl

    design, fitted = adata.uns["design"], _fitted(adata)
    first = [str(gene) for gene in design["targets"]["names"][: design["targets"]["offsets"][1]]]
    ranked = [name for name in design["ranking"]["perturbation"] if name in fitted]
    groups = list(dict.fromkeys(ranked + fitted))[:_MOST_PANELS]
    before = plt.get_backend()
    plt.switch_backend("agg")
    try:
        yield {
            "dag.png": lambda path: pl.dag(adata, highlight=first, save=path, show=False),
            "design.png": lambda path: pl.design(adata, save=path, show=False),
            "cpca_density.png": lambda path: (
                groups and pl.cpca_density(adata, groups=groups, save=path, show=False)
            ),
        }
        plt.close("all")
    finally:
        plt.switch_backend(before)


def _fitted(adata: AnnData) -> list[str]:
    return [str(name) for name in adata.uns["dag_blr"]["environments"]["perturbation"]]


def _against_the_truth(adata: AnnData, truth: NDArray[np.float64]) -> str:
    """Return how the predicted distances compare with the true ones, known of simulated cells."""
    from scipy.stats import spearmanr

    ranking = candidates_of(adata.uns["design"]["ranking"])
    predicted = ranking["predicted_distance"]
    closest = int(truth.argmin())
    said = (
        f"In truth closest (the screen is simulated): {ranking['perturbation'].iloc[closest]}, "
        f"distance {truth[closest]:.3g}."
    )
    if len(truth) > 2:
        order = float(spearmanr(predicted, truth).statistic)
        within = int(
            ((ranking["predicted_low"] <= truth) & (truth <= ranking["predicted_high"])).sum()
        )
        said += (
            f" Across {len(truth)} candidates, predicted and true distances have a rank "
            f"correlation of {order:.2f}, and {within} true distances lie within their 90% "
            "intervals."
        )
    return said


def unseen_target(adata: AnnData) -> tuple[dict[str, float], str]:
    """Return the true mean under the strongest knockout that was not performed, and its name."""
    genes, mean, effects = _truth(adata)
    change = -effects * mean  # one column per knockout
    seen = set(adata.obs["perturbation"].astype(str))
    unseen = [i for i, gene in enumerate(genes) if gene not in seen]
    best = max(unseen, key=lambda i: float((change[:, i] ** 2).sum()))
    wanted = mean + change[:, best]
    return dict(zip(genes, wanted.tolist(), strict=True)), genes[best]


def true_distances(adata: AnnData) -> NDArray[np.float64]:
    """Return the true squared distance from the target of each row of the ranking.

    The shift of a candidate is taken as the ranking has it, and what it does downstream from the
    model that the screen was simulated with.
    """
    genes, mean, effects = _truth(adata)
    design = adata.uns["design"]
    place = [genes.index(str(gene)) for gene in design["genes"]]
    shifts = sp.csr_array(design["shifts"]).toarray()
    reached = mean[place] + shifts @ effects[np.ix_(place, place)].T
    return np.asarray(((reached - design["target_mean"]) ** 2).sum(axis=1))


def _truth(adata: AnnData) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return the genes, their control means, and the total effect of column on row."""
    truth = adata.uns["truth"]
    genes = [str(gene) for gene in truth["genes"]]
    effects = np.linalg.inv(np.eye(len(genes)) - truth["weights"].toarray())
    return genes, truth["control_mean"], effects
