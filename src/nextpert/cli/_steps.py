"""The steps of the pipeline: what each calls, reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert.cli._signature import arguments_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nextpert.cli._signature import Argument

# Said by the file, by the command, or of no use in one.
_LEFT_OUT = frozenset(
    {"copy", "key_added", "dag_key", "posterior_key", "show_progress", "as_anndata"}
)


@dataclass(frozen=True)
class Step:
    """A command that calls one function on a screen in a file.

    Parameters
    ----------
    name
        Of the command.
    function
        What it calls, such as ``"tl.learn_dag"``.
    does
        Its line in the list of commands.
    about
        What it reads and writes, and what comes before.
    example
        Options of an example.
    table
        What ``--table`` holds.
    defaults
        Where those of the command are others than those of the function; ``None`` is settled by
        the other options.
    left_out
        Arguments that become no options.
    """

    name: str
    function: str
    does: str
    about: str
    example: str
    table: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = _LEFT_OUT

    def arguments(self) -> list[Argument]:
        """Return the arguments that become options."""
        return [a for name, a in arguments_of(self.function).items() if name not in self.left_out]

    def files(self) -> Iterator[tuple[str, Any, Any, str]]:
        """Yield the options that name files: name, type, default, help."""
        yield "screen", Path, None, "The screen, h5ad or zarr."
        yield (
            "out",
            Path,
            None,
            f"Where to write, h5ad or zarr; or SCREEN.{self.name}.h5ad.",
        )
        yield "table", Path, None, f"A csv or parquet file: {self.table}."

    def doing(self) -> str:
        """Return what the command says while it works."""
        return self.does[0].upper() + self.does[1:].split(",")[0]

    def help(self) -> str:
        """Return the text above the options."""
        does = self.does[0].upper() + self.does[1:]
        return f"{does}.\n\n{self.about}\n\nExample: nextpert {self.name} {self.example}"


@dataclass(frozen=True)
class Report(Step):
    """The command that writes the page for the bench."""

    def files(self) -> Iterator[tuple[str, Any, Any, str]]:
        """Yield the options that name files: name, type, default, help."""
        yield "screen", Path, None, "A screen with results, h5ad or zarr."
        yield "also", list[Path], None, "More files of the same fit, whose results join the page."
        yield "out", Path, None, "The page; by default SCREEN.report.html."


@dataclass(frozen=True)
class Demo(Step):
    """The command that does all steps in one, on a simulated screen or one of your own."""

    picked: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def arguments(self) -> list[Argument]:
        """Return the few arguments of each function that become options."""
        return [arguments_of(function)[name] for function, names in self.picked for name in names]

    def files(self) -> Iterator[tuple[str, Any, Any, str]]:
        """Yield the options that name files: name, type, default, help."""
        yield "data", Path, None, "A screen of your own, h5ad or zarr; by default a simulated one."
        yield "out", Path, Path("nextpert_demo"), "Folder of the results."
        yield "figures", bool, True, "Draw figures."


STEPS = {
    step.name: step
    for step in (
        Step(
            "preprocess",
            "pp.perturbation_screen",
            "choose cells and genes, normalise, label",
            "The first step. Reads raw counts (or log-normalised expression) and a column of obs "
            "with the perturbation of every cell; writes the cells and genes kept, log-normalised, "
            "with the roles of columns, so that later steps need not be told.",
            "screen.h5ad --perturbation-key gene --control non-targeting",
            "the perturbations, their cells, and why some were dropped",
        ),
        Step(
            "learn",
            "tl.learn_dag",
            "learn the causal graph of the genes",
            "Reads a screen after `nextpert preprocess` (or log-normalised by other means); writes "
            "the graph. Unless told otherwise by BOSS from every cell, with 25 graphs of "
            "resampled cells.",
            "screen.preprocess.h5ad --n-jobs 4",
            "the arcs: parent, child, what settles the direction, frequency",
            {"method": "boss", "environments": None, "n_graphs": None},
        ),
        Step(
            "fit",
            "tl.fit_dag_blr",
            "fit the posterior over weights and shifts",
            "Reads a screen after `nextpert learn`; writes the posterior of the graph's weights "
            "and of what every perturbation shifts.",
            "screen.learn.h5ad",
            "the perturbations: targets, shift, its source, cells",
        ),
        Step(
            "effects",
            "tl.perturbation_effects",
            "effects of perturbations on genes, with intervals",
            "Reads a screen after `nextpert fit`; writes the effect of every perturbation on every "
            "gene: mean, interval, local false sign rate, and what of it is direct.",
            "screen.fit.h5ad --table effects.csv",
            "one row a perturbation and gene",
        ),
        Step(
            "design",
            "tl.design_interventions",
            "rank what to try next towards a wanted state",
            "Reads a screen after `nextpert fit`; writes the ranking of the candidates, seen or "
            "not, and the trace of the rounds.",
            "screen.fit.h5ad --target MYC --table ranking.csv",
            "the ranking, the best first",
        ),
        Step(
            "plan",
            "tl.plan_screen",
            "plan the next plate under a budget",
            "Reads a screen after `nextpert fit`; writes the plate: which perturbations, how many "
            "cells of each, controls, and why.",
            "screen.fit.h5ad --target MYC --n-perturbations 8 --n-cells 2000 --table plate.csv",
            "the plate, one row a well",
        ),
        Step(
            "cells",
            "tl.plan_cells",
            "how many cells, guides and replicates it takes",
            "Reads a screen after `nextpert fit`; writes how many cells of a perturbation find an "
            "effect on every gene and, with a wanted state, tell the nearest from the others, and "
            "whether to stop.",
            "screen.fit.h5ad --target MYC --effect 0.2 --table cells.csv",
            "one row a gene: power with the cells there are, and the cells needed",
        ),
        Step(
            "distances",
            "tl.target_distances",
            "how far the cells are from a wanted state",
            "Reads a screen after `nextpert preprocess` (or log-normalised by other means); writes "
            "the distance of every perturbation's cells, with intervals, without a model.",
            "screen.preprocess.h5ad --target MYC --table distances.csv",
            "one row a perturbation, the nearest first",
        ),
        Step(
            "replay",
            "tl.replay_design",
            "replay campaigns on the screen's own cells",
            "Reads a screen after `nextpert learn`; writes how many plates each way of choosing "
            "would have taken to find a state of this screen.",
            "screen.learn.h5ad --n-rounds 5 --table replay.csv",
            "one row a criterion: plates until the best is found, and comparisons",
        ),
        Step(
            "diagnose",
            "tl.diagnose",
            "say which parts of the fit to trust",
            "Reads a screen after `nextpert fit`; writes a verdict on cells, shrinkage, unseen "
            "perturbations, graph, guides and batches.",
            "screen.fit.h5ad",
            "one row a quantity: part, value, rule, whether it passed",
        ),
    )
}

REPORT = Report(
    "report",
    "_report.report",
    "write one page for the bench",
    "The last step. Reads a screen with results (effects, design, plan, diagnose: as many as were "
    "made, in one file or several); writes one HTML page: verdict, plate, ranking, effects, graph, "
    "checks.",
    "screen.plan.h5ad --also screen.effects.h5ad screen.design.h5ad",
    left_out=frozenset({"path", "command"}),
)
DEMO = Demo(
    "demo",
    "",
    "all steps on a simulated screen, or on your own",
    "By default on a simulated screen whose truth is known: the wanted state is the mean under a "
    "knockout that was never seen, and the true distance to it of every candidate is printed "
    "beside the predicted one; report.html tells all of it. A screen of your own is preprocessed "
    "first, unless it was; each step by itself has more options.",
    "--data screen.h5ad --target MYC --control non-targeting",
    "the ranking",
    {"n_graphs": 25},
    picked=(
        ("tl.design_interventions", ("target",)),
        (
            "pp.perturbation_screen",
            ("perturbation_key", "control", "panel", "gene_symbols", "guide_key", "combinations",
             "depth_key", "layer"),
        ),
        ("tl.learn_dag", ("n_runs", "n_graphs", "n_jobs")),
        (
            "tl.design_interventions",
            ("acquisition", "candidates", "target_is_candidate", "n_cells", "n_samples", "rng"),
        ),
    ),
)  # fmt: skip
ALL = STEPS | {step.name: step for step in (REPORT, DEMO)}
