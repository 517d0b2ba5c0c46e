"""The commands. Each is a function whose signature and docstring define its options and its help.

The name, kind and default of an option are those of the parameter of the Python function that the
command calls; the tests compare them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nextpert.cli._analysing import LABELS  # and registers its commands, which come first
from nextpert.cli._options import (
    FILES,
    STEPS,
    Columns,
    Job,
    Jobs,
    Labels,
    Names,
    Pool,
    Ranking,
    Results,
    Rng,
    Run,
    Screen,
    Show,
    Stopping,
    TargetState,
    Whole,
    WholeOrNone,
    app,
    command,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS, _LABELS = Columns(), LABELS
_POOL, _RANKING = Pool(), Ranking()
_STOPPING = Stopping()
_TARGET, _RESULTS, _USUAL = TargetState(), Results(), Run()
COMMANDS = (*STEPS, "report", "demo")


def parse(argv: Sequence[str]) -> Job | None:
    """Return the job of the arguments; ``None`` if help or the version was printed."""
    try:
        job = app(list(argv))
    except SystemExit:  # rich exits if the reader of the help has closed it, as with "| head"
        return None
    return job if isinstance(job, Job) else None


@command
def design(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    target: TargetState = _TARGET,
    ranking: Ranking = _RANKING,
    noise_aware: bool = True,
    preset: str | None = None,
    stopping: Stopping = _STOPPING,
    run: Run = _USUAL,
) -> None:
    """Rank candidate perturbations for the next experiment, given a target state.

    It reads the output of `nextpert fit`. It writes the ranking of tested and untested candidates,
    and a record of the choice in this and each earlier round. The table lists the candidates, best
    first.

    Example: `nextpert design screen.fit.h5ad --target MYC --table ranking.csv`

    Parameters
    ----------
    noise_aware
        Let the acquisition function account for the noise of the next experiment.
    preset
        'zhang2023' for the settings of Zhang et al. 2023: 'civ' for 10 cells at their expected
        mean.
    """


@command
def plan(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    target: TargetState = _TARGET,
    n_perturbations: Whole = 8,
    n_cells: Whole = 2000,
    strategy: str = "advised",
    pool: Pool = _POOL,
    max_combination: Whole = 1,
    include: Names | None = None,
    exclude: Names | None = None,
    pending: Annotated[Names | None, Parameter(metavar="NAME[=CELLS]...")] = None,
    costs: Annotated[Names | None, Parameter(metavar="NAME=PRICE...")] = None,
    min_cells: Whole = 20,
    stopping: Stopping = _STOPPING,
    order: Annotated[Path | None, Parameter(group=FILES)] = None,
    allow_stale: bool = False,
    rng: Rng = 0,
    run: Run = _USUAL,
) -> None:
    """Plan the next round within a budget, or advise to stop.

    It reads the output of `nextpert diagnose` or `nextpert fit` and writes the plan that follows
    the advice: which perturbations, how many cells of each, the controls, and the reason for each
    choice. The table has a row per perturbation, and none if the advice is to stop. After
    `diagnose`, guides whose cells do not agree with others are not ordered again.

    Example: `nextpert plan screen.diagnose.h5ad --target MYC --order order.xlsx`

    Parameters
    ----------
    n_perturbations
        Maximum number of perturbations in the next round.
    n_cells
        Maximum number of cells, controls included.
    strategy
        'advised' plans what is advised. All others fill the plan, whatever is advised: 'exploit'
        looks for the perturbation nearest to the target, 'explore' reduces uncertainty, and 'both'
        first exploits and then explores. An acquisition of `nextpert design` is also allowed.
    max_combination
        2 adds pairs of the candidates that are predicted to be nearest to the target.
    include
        Candidates that must be in the plan.
    exclude
        Perturbations or target genes to exclude, alone and in combinations.
    pending
        Perturbations in progress, which are treated as if they were measured.
    costs
        Budget and prices, as budget=5000 cell=0.5 perturbation=300. In place of a price,
        perturbation=FILE.csv gives that of each one, in two columns.
    min_cells
        Minimum number of cells per perturbation. If --n-cells is too small, the plan has fewer
        perturbations.
    order
        A csv or xlsx file to which the guides or compounds to order are written.
    allow_stale
        Write the order even if the cells have changed since they were fitted.
    """


@command
def loading(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    lanes: WholeOrNone = None,
    moi: float = 0.3,
    kept: float = 0.8,
    recovery: float = 0.606,
    droplets: float = 57000.0,
    lane_cells: float = 10000.0,
    reads: float = 25000.0,
    construct: float = 0.0,
    cell: float = 0.0,
    lane: float = 0.0,
    million_reads: float = 0.0,
    budget: float | None = None,
    run: Run = _USUAL,
) -> None:
    """Compute the cells to load, lanes, reads and cost of a plan.

    It reads the output of `nextpert plan`. The table has a row for each step from the planned cells
    to the reads.

    Example: `nextpert loading screen.plan.h5ad --lanes 4 --lane 1500 --million-reads 3`

    Parameters
    ----------
    lanes
        Number of lanes that are available, for which the number of planned cells is computed.
    moi
        Multiplicity of infection, the mean constructs per cell before selection.
    kept
        Share of single cells whose construct is detected and that pass filters.
    recovery
        Share of the loaded cells that is captured.
    droplets
        Droplets per lane.
    lane_cells
        Maximum number of captured cells per lane.
    reads
        Reads per droplet with cells.
    construct
        Price of a construct.
    cell
        Price of a droplet with cells.
    lane
        Price of a lane.
    million_reads
        Price of a million reads.
    budget
        What the experiment may cost, for which the number of planned cells is computed.
    """


@command
def cells(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    target: TargetState = _TARGET,
    effect: float = 0.2,
    power: float = 0.8,
    share: float | None = None,
    sd: float | None = None,
    rule: str = "lfsr",
    n_guides: WholeOrNone = None,
    budget: float | None = None,
    construct: float | None = None,
    cell: float | None = None,
    million_reads: float | None = None,
    reads: float = 25000.0,
    n_perturbations: WholeOrNone = None,
    stopping: Stopping = _STOPPING,
    pool: Pool = _POOL,
    rng: Rng = 0,
    run: Run = _USUAL,
) -> None:
    """Compute how many cells, guides and reads are needed, and whether to stop.

    It reads the output of `nextpert fit` and writes the number of cells per perturbation that is
    needed to detect an effect on each gene. With a target, it also writes the number of cells
    needed to distinguish the nearest perturbation from the others, and whether further experiments
    are worthwhile. The table has a row per gene: the power with the current number of cells, and
    the number of cells needed. Without a fit, it reads the control cells in the output of
    `nextpert preprocess` and plans a first screen within `--budget`.

    Example: `nextpert cells screen.fit.h5ad --target MYC --effect 0.2 --table cells.csv`

    Parameters
    ----------
    effect
        Size of the effect to detect, in units of log-normalised expression.
    power
        Required probability of detecting the effect.
    share
        Share of effects that are not zero. By default it is learned from the fit, or that of four
        published screens.
    sd
        SD of the effects that are not zero, relative to that of a gene between cells; with --share.
    rule
        Rule of detection: lfsr (local false sign rate below 0.05) or fdr (false discovery rate of
        5%).
    n_guides
        Number of guides per perturbation. By default the median of the screen.
    budget
        What a screen may cost: usable cells, controls included, or the sum of prices if they are
        given.
    construct
        Price of a construct.
    cell
        Price of a usable cell.
    million_reads
        Price of a million reads.
    reads
        Present number of reads per cell.
    n_perturbations
        Maximum number of perturbations of a screen.
    """


@command
def distances(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    columns: Columns = _COLUMNS,
    target: TargetState = _TARGET,
    genes: Names | None = None,
    perturbations: Names | None = None,
    confidence: float = 0.9,
    run: Run = _USUAL,
) -> None:
    """Measure how far the cells of each perturbation are from a target state.

    It reads the output of `nextpert preprocess`, or any log-normalised screen, and writes the
    distance of the cells of each perturbation to the target, with intervals. It uses no model. As
    in `nextpert design`, genes that the target or the perturbation targets do not count. The table
    has a row per perturbation, the nearest first.

    Example: `nextpert distances screen.preprocess.h5ad --target MYC --table distances.csv`

    Parameters
    ----------
    genes
        Genes to use. By default all.
    perturbations
        Perturbations whose distances are computed. By default all.
    confidence
        Confidence level of the intervals.
    """


@command
def replay(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    targets: Names | None = None,
    strategies: Names = ("exploit", "random", "thompson_means", "round_robin_means"),
    held_out: bool = False,
    n_rounds: Whole = 10,
    n_perturbations: Whole = 4,
    n_cells: Whole = 10,
    n_repeats: Whole = 20,
    rng: Rng = 0,
    n_jobs: Jobs = 1,
    run: Run = _USUAL,
) -> None:
    """Replay campaigns on the cells of the screen, to compare strategies.

    It reads the output of `nextpert fit`. Each target is the state that a perturbation of this
    screen produces. It writes how many rounds each strategy would have needed to reach a target, on
    average over targets. The table has a row per strategy.

    Example: `nextpert replay screen.fit.h5ad --n-rounds 5 --table replay.csv`

    Parameters
    ----------
    targets
        Perturbations whose states are the targets. By default every perturbation at least three
        standard errors from the control cells.
    strategies
        Strategies or acquisitions of `nextpert plan`, with the prefix 'exact_' for a model with
        known shifts; or 'round_robin_means' and 'thompson_means', which need no model.
    held_out
        Exclude the perturbation of the target from the candidates.
    n_rounds
        Number of rounds.
    n_perturbations
        Number of perturbations per round.
    n_cells
        Number of cells per perturbation and round.
    n_repeats
        Number of repeats, at least 2.
    """


@command
def diagnose(
    screen: Screen,
    *,
    results: Results = _RESULTS,
    n_jobs: Jobs = 1,
    rng: Rng = 0,
    run: Run = _USUAL,
) -> None:
    """Test which parts of the fit are reliable.

    It reads the output of `nextpert fit` and writes a verdict on each part of the analysis, such
    as effects, predictions of perturbations without cells, the graph, guides and batches. The table
    has a row per quantity: part, value, rule, and whether it passed.

    Example: `nextpert diagnose screen.fit.h5ad`
    """


@command
def report(
    screen: Screen,
    *,
    also: Annotated[Names | None, Parameter(group=FILES)] = None,
    out: Annotated[Path | None, Parameter(group=FILES)] = None,
    title: str | None = None,
    run: Run = _USUAL,
) -> None:
    """Write one HTML page with all results.

    This is the last step. It reads the results of `effects`, `design`, `plan`, `diagnose` and other
    commands, from one or several files of the same fit. It writes a page for the lab with the
    verdict, the plan for the next round, the ranking, the effects, the graph and the diagnostics.

    Example: `nextpert report screen.plan.h5ad --also screen.effects.h5ad screen.design.h5ad`

    Parameters
    ----------
    also
        Other files of the same fit, whose results are added to the page.
    out
        File to which the page is written. By default SCREEN.report.html.
    title
        Title of the page. By default the target.
    """


@command
def demo(
    *,
    data: Annotated[Path | None, Parameter(group=FILES)] = None,
    out: Annotated[Path, Parameter(group=FILES)] = Path("nextpert_demo"),
    target: TargetState = _TARGET,
    labels: Labels = _LABELS,
    n_runs: WholeOrNone = None,
    n_graphs: Whole = 25,
    ranking: Ranking = _RANKING,
    n_jobs: Jobs = 1,
    show: Show = 15,
    run: Run = _USUAL,
) -> None:
    """Run all steps on a simulated screen, or on your own.

    By default the screen is simulated, and the target state is the mean under a knockout that the
    screen does not contain. A screen of your own is preprocessed first, unless it has been before.
    The graph is learned as we recommend (`nextpert learn --method boss --environments all
    --n-graphs 25`). The command of each step has more options: see `nextpert STEP --help`.

    Example: `nextpert demo --data screen.h5ad --target MYC --control non-targeting`

    Parameters
    ----------
    data
        A screen of your own, h5ad or zarr.
    out
        Folder to which the results are written.
    n_runs
        Number of restarts of the search for the graph. By default 10 (3 above 100 genes).
    n_graphs
        Number of bootstrap graphs.
    show
        Number of rows of the table to print.
    """
