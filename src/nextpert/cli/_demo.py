"""All steps in one, on a simulated screen or one of your own."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import nextpert
from nextpert import _adata, tl
from nextpert._adata.arguments import in_mappings
from nextpert._files import write_adata
from nextpert.cli._options import Labels, TargetState, flag_of, stage
from nextpert.cli._read import arguments_of, read_screen
from nextpert.cli._run import (
    call,
    deliver,
    note_command,
    require_free,
    rows_in_text,
    settings_file,
    summary_of,
    table_of,
    write_page,
    write_table,
)
from nextpert.study.ranking import candidates_of

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.cli._options import Job
    from nextpert.cli._run import Writers

_MIN_PERTURBATIONS = 4  # perturbations that a diagnosis needs
_LABELS, _TARGETS = ([field.name for field in fields(group)] for group in (Labels, TargetState))


def run_demo(job: Job) -> None:
    """Run all steps; ``job.written`` is set once the results are written."""
    options, out, data = job.options, job.options["out"], job.options["data"]
    adata: AnnData
    writers: Writers = {
        out / "annotated.h5ad": lambda path: write_adata(adata, path, {}),
        out / "effects.csv": lambda path: write_table(table_of("effects", adata), path),
        out / "ranking.csv": lambda path: write_table(table_of("design", adata), path),
        out / "report.html": lambda path: write_page(adata, path),
        **settings_file(job, out),
    }
    require_free(writers, data, overwrite=options["overwrite"])
    chosen = {name: value for name, value in job.given.items() if name not in _LABELS}
    if data is None:
        if named := [flag_of(name) for name in _TARGETS if name in chosen]:
            message = (
                f"The simulated screen has its own target: leave out {named[0]}, or pass a screen "
                f"with --data FILE.h5ad."
            )
            raise ValueError(message)
        adata = nextpert.datasets.simulated_screen(rng=options["rng"])
        target, hidden = unseen_target(adata)
        design = arguments_of(tl.design_interventions, {"target": hidden, **chosen})
        design = {"candidates": "genes", **design, "target": target}
    else:
        design = arguments_of(tl.design_interventions, chosen)
        with stage(options, "Reading the screen"):
            adata = _preprocessed(data, job)
        # Other kinds of targets are checked by the ranking.
        if isinstance(design["target"], str):
            labels = _adata.read_every_label(adata, _adata.read_roles(adata))
            labels.require([design["target"]], "target")
    words = _analyse(adata, job, design)
    note_command(adata, job)
    if data is None:
        goal = f"Target: the mean under a knockout of {hidden}, which the screen does not contain."
        words = [goal, *words, _against_the_truth(adata)]
    if "diagnosis" in adata.uns:
        words.append(str(adata.uns["diagnosis"]["verdict"]))
    rows = rows_in_text("design", adata, options["show"], f"in {out / 'ranking.csv'}")
    deliver(job, writers, "\n".join(words), summary_of("demo", adata), rows)


def _preprocessed(data: Path, job: Job) -> AnnData:
    """Return the screen, preprocessed with the options given unless it was preprocessed before."""
    adata = read_screen(data)
    label_options = [name for name in _LABELS if name in job.given]
    if "preprocessing" not in adata.uns:
        function = nextpert.pp.perturbation_screen
        call(job, function, adata, **arguments_of(function, job.given))
    elif label_options:
        message = f"{str(data)!r} is already preprocessed: leave out {flag_of(label_options[0])}."
        raise ValueError(message)
    return adata


def _analyse(adata: AnnData, job: Job, design: dict[str, Any]) -> list[str]:
    """Learn the graph as recommended, fit, rank and diagnose; return what the ranking logged."""
    options = job.options
    learn = {name: options[name] for name in ("n_runs", "n_graphs", "n_jobs", "rng")}
    learn |= {"method": "boss", "environments": "all"}
    with stage(options, "Learning the graph from all cells (the first run compiles code)"):
        call(job, tl.learn_dag, adata, **in_mappings(tl.learn_dag, learn))
    with stage(options, "Fitting the model and estimating effects"):
        call(job, tl.fit_dag_blr, adata)
        call(job, tl.perturbation_effects, adata)
    with stage(options, "Ranking the candidates"):
        logged = call(job, tl.design_interventions, adata, **design)
    if len(adata.uns["dag_blr"]["environments"]) >= _MIN_PERTURBATIONS:
        with stage(options, "Testing which parts of the fit are reliable"):
            call(job, tl.diagnose, adata, rng=options["rng"])
    return logged


def _against_the_truth(adata: AnnData) -> str:
    """Return how the predicted distances compare with the true distances of the simulation."""
    design, (mean, effects) = adata.uns["design"], _truth(adata)
    reached = mean + design["shifts"].toarray() @ effects.T
    distance = ((reached - design["target_mean"]) ** 2).sum(axis=1)
    ranking = candidates_of(design["ranking"])
    order = ranking["predicted_distance"].corr(pd.Series(distance, ranking.index), "spearman")
    n_within = ranking["predicted_low"].le(distance) & ranking["predicted_high"].ge(distance)
    return (
        f"The screen is simulated, so the true distances are known. The candidate that is truly "
        f"closest is {ranking['perturbation'].iloc[distance.argmin()]}. Predicted and true "
        f"distances of {len(ranking)} candidates have a rank correlation of {order:.2f}, and "
        f"{n_within.sum()} true distances lie within their 90% intervals."
    )


def unseen_target(adata: AnnData) -> tuple[dict[str, float], str]:
    """Return the true mean under the strongest knockout that was not performed, and its name."""
    mean, effects = _truth(adata)
    change = -effects * mean  # one column per knockout
    change[:, adata.var_names.isin(adata.obs["perturbation"])] = 0.0
    best = int((change**2).sum(axis=0).argmax())
    reached = (mean + change[:, best]).tolist()
    return dict(zip(adata.var_names, reached, strict=True)), str(adata.var_names[best])


def _truth(adata: AnnData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the means of genes in control cells, and the total effects (row of column)."""
    truth = adata.uns["truth"]
    return truth["control_mean"], np.linalg.inv(np.eye(adata.n_vars) - truth["weights"].toarray())
