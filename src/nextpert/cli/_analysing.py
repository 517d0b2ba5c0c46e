"""The commands from counts to effects.

Each is a function whose signature and docstring define its options and its help, as in
``_commands.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nextpert.cli._options import (
    Jobs,
    JobsOrNone,
    Labels,
    Names,
    Results,
    Rng,
    Run,
    Screen,
    Shift,
    Whole,
    WholeOrNone,
    command,
)

LABELS, _RESULTS, _USUAL = Labels(), Results(), Run()


@command
def guides(
    screen: Screen,
    *,
    guides: str,
    results: Results = _RESULTS,
    threshold: float = 5.0,
    targets: str | None = None,
    control_guides: Names | None = None,
    control: str = "control",
    multiple: str = "combine",
    separator: str = "+",
    guide_separator: str | None = None,
    run: Run = _USUAL,
) -> None:
    """Label each cell with the targets of its guides.

    This step is needed if obs names guides, but not perturbations. It writes the columns
    'perturbation' and 'guides' of obs; pass --guide-key guides to `nextpert preprocess`. The table
    lists the guides, their targets and their numbers of cells.

    Example: `nextpert guides screen.h5ad --guides sgRNA --targets library.csv`

    Parameters
    ----------
    guides
        Column of obs with the guides of each cell, joined by the separator of guides; or key of
        obsm with the UMI counts, cells x guides.
    threshold
        Minimum UMI count for a guide to be called in a cell.
    targets
        A csv or tsv file with the target of every guide, such as Cell Ranger's feature reference or
        MAGeCK's library; or a column of obs. By default targets are read from the names of the
        guides.
    control_guides
        Names of control guides, or of their targets; @FILE with a name per line. By default every
        guide whose target has a common name for controls, such as NTC.
    control
        Label of cells whose guides are all control guides.
    multiple
        Label of cells with several guides: 'combine' joins their targets, 'multi' is 'multi'.
    separator
        Text between the targets of a label.
    guide_separator
        Text between the guides of a cell. By default ',', or ';' or '|' where these join guides
        that other cells have alone.
    """


@command
def preprocess(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    labels: Labels = LABELS,
    min_cells: Whole = 20,
    target_groups: Annotated[Names | None, Parameter(metavar="KEY [VALUE]")] = None,
    run: Run = _USUAL,
) -> None:
    """Select cells and genes, normalise counts and read the labels.

    This is the first step. It reads raw counts, or log-normalised expression, and a column of obs
    with the perturbation of each cell. It writes the selected cells and genes, log-normalised, and
    the roles of the columns. The table lists the perturbations, their numbers of cells, and why
    some were dropped.

    Example: `nextpert preprocess screen.h5ad --perturbation-key gene --control non-targeting`

    Parameters
    ----------
    min_cells
        Minimum number of cells per perturbation.
    target_groups
        Unlabelled cells to keep, as target states such as a cell type: those with VALUE in the
        column KEY of obs, or all groups of the column.
    """


@command
def learn(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    genes: Names | None = None,
    method: str = "gsp",
    environments: str = "control",
    dag: Path | None = None,
    n_runs: WholeOrNone = None,
    n_graphs: Whole = 1,
    before: Path | None = None,
    required: Path | None = None,
    forbidden: Path | None = None,
    preset: str | None = None,
    rng: Rng = 0,
    n_jobs: Jobs = 1,
    run: Run = _USUAL,
) -> None:
    """Learn the causal graph of the genes.

    It reads the output of `nextpert preprocess`, or any log-normalised screen, and writes the
    graph. By default the greedy sparsest permutation (GSP) learns it from control cells, as in
    Zhang et al. 2023, with the order found by BOSS as an additional start. We recommend the options
    of the example: BOSS learns from all cells, so that perturbed cells orient more edges, and 25
    bootstrap graphs show how certain each edge is. The table lists the edges.

    Example: `nextpert learn screen.preprocess.h5ad --method boss --environments all --n-graphs 25`

    Parameters
    ----------
    genes
        Genes of the graph: their names, or @FILE with a name per line. By default all.
    method
        The search: 'gsp', 'boss', 'causaldag', or 'given', which takes the graph of --dag.
    environments
        'control' learns from control cells; 'all' from all labelled cells, with --method boss.
    dag
        A graph of your own, for --method given: a csv file of edges (parent, child).
    n_runs
        Number of restarts. By default 100 for GSP and 10 for BOSS (3 above 100 genes).
    n_graphs
        Number of bootstrap graphs, for the frequency of each edge and for intervals. 1 for none.
    before
        Prior knowledge, a csv file (earlier, later): no path leads from the later gene to the
        earlier one.
    required
        Prior knowledge, a csv file (parent, child): edges that the graph must have.
    forbidden
        Prior knowledge, a csv file (parent, child): edges that the graph must not have.
    preset
        'zhang2023' for the settings of Zhang et al. 2023: GSP on control cells, 1,000 restarts.
    """


@command
def fit(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    perturbations: Names | None = None,
    shift: Shift = "knockout",
    shift_sd: float | str = "learned",
    features: Path | None = None,
    prior_scale: float | str = "evidence",
    prior_units: str | None = None,
    noise_var: float | None = None,
    intercept: bool = True,
    preset: str | None = None,
    n_jobs: JobsOrNone = None,
    run: Run = _USUAL,
) -> None:
    """Fit the model: weights of the graph and shifts of the perturbations.

    It reads the output of `nextpert learn` and writes the posterior over the weights of the graph
    and over the shift that each perturbation causes. The table lists the perturbations: target
    genes, shift, its source and the number of cells.

    Example: `nextpert fit screen.learn.h5ad`

    Parameters
    ----------
    perturbations
        Perturbations to use. By default all.
    shift_sd
        Standard deviation of the difference between actual shifts and --shift. 'learned' estimates
        it from the cells; 0 assumes that --shift is exact, as in Zhang et al. 2023.
    features
        Side information: a gmt file of gene sets; a csv or tsv file of numbers per perturbation or
        gene, or of edges; or an h5ad or zarr file of effects in another screen.
    prior_scale
        Scale of the prior on the weights. 'evidence' estimates it from the cells; Zhang et al. 2023
        use 1.
    prior_units
        'noise' measures weights in units of the noise of the genes, 'data' in units of the data,
        and 'evidence' in whichever fits the cells better. The default depends on --prior-scale.
    noise_var
        Noise variance of all genes, if known. By default it is inferred.
    intercept
        Fit an intercept per gene.
    preset
        'zhang2023' for the settings of Zhang et al. 2023: exact shifts, a prior scale of 1, and
        noise variances fixed as expected after the control cells.
    shift
        The shift of target genes: 'knockout' (minus their mean in control cells), 'activation'
        (plus 1 on the log scale), or a csv file, perturbations x genes.
    """


@command
def effects(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    candidates: Names | None = None,
    genes: Names | None = None,
    condition: str | None = None,
    level: float = 0.9,
    run: Run = _USUAL,
) -> None:
    """Estimate the effects of perturbations on genes, with intervals.

    It reads the output of `nextpert fit` and writes the effect of each perturbation on each gene:
    mean, credible interval, local false sign rate, and direct part. The table has a row per effect.

    Example: `nextpert effects screen.fit.h5ad --table effects.csv`

    Parameters
    ----------
    genes
        Genes to report: their names, or 'all'. By default those of the graph.
    condition
        Condition whose effects are reported: a value of the column of conditions. By default
        effects are averages over conditions.
    level
        Probability that the credible intervals cover, such as 0.9.
    candidates
        Perturbations to report, named as for `nextpert plan`. By default those of the fit.
    """
