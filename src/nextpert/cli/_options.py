"""Options of the command, one group a function of ``nextpert.tl``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from nextpert.cli._types import jobs, level, positive, scale, share, shift, shift_sd, whole

_DEMO = """\
Run the main job: learn the graph, fit the posterior, rank what to try next. By default on a
simulated screen whose truth is known: the wanted state is the mean under a knockout that was
never seen, and the true distance to it of every candidate is printed beside the predicted one."""
# Those of tl.design_interventions, whose import takes a second.
ACQUISITIONS = (
    "probability", "ei", "thompson", "civ", "civ_ow", "greedy", "cv", "maxv",
    "target_mean_variance", "random",
)  # fmt: skip
# Options of one method alone, and their defaults.
_ONLY: dict[str, dict[str, Any]] = {
    "gsp": {"alpha": 1e-3},
    "boss": {"penalty": 2.0, "targets_first": False, "prior_network": None},
}
_N_GRAPHS = 25
_DESIGN = """\
Rank the perturbations to try next for a screen in an h5ad file. A list of names may be kept in a
text file, one a line, and given as @FILE."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message with where to look, and leave with code 2."""
        self.exit(2, f"nextpert: error: {message} (see {self.prog} --help)\n")


def build_parser(version: str) -> Parser:
    """Return the parser of the command."""
    parser = Parser(prog="nextpert", description="Which perturbation to try next.")
    parser.add_argument("--version", action="version", version=f"nextpert {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | design")
    formatter = argparse.ArgumentDefaultsHelpFormatter
    demo = commands.add_parser(
        "demo",
        help="run the main job on a simulated screen, or on a screen of your own",
        description=_DEMO,
        formatter_class=formatter,
        fromfile_prefix_chars="@",
    )
    demo.add_argument("--data", dest="file", type=Path, metavar="FILE.h5ad", help="a real screen")
    _add_options(demo, out="nextpert_demo")
    design = commands.add_parser(
        "design",
        help="rank the perturbations to try next for a screen, with every option",
        description=_DESIGN,
        formatter_class=formatter,
        fromfile_prefix_chars="@",
    )
    design.add_argument("file", type=Path, metavar="FILE.h5ad", help="the screen")
    _add_options(design, out="nextpert_design")
    return parser


def _add_options(parser: argparse.ArgumentParser, *, out: str) -> None:
    _add_target(parser)
    _add_data(parser)
    _add_graph(parser)
    _add_posterior(parser)
    _add_ranking(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, default=Path(out), help="folder of the results")
    group.add_argument(
        "--show", type=whole(0), default=15, metavar="N", help="rows of the table printed"
    )
    group.add_argument("--no-figures", action="store_true", help="write no figures")
    group.add_argument("--quiet", action="store_true", help="no progress")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    group.add_argument("--seed", type=whole(0), default=0, help="seed of everything random")


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the wanted state (one of these)")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--target", metavar="NAME", help="the mean under this perturbation")
    one.add_argument(
        "--target-group",
        nargs=2,
        metavar=("KEY", "VALUE"),
        help="the mean of the cells whose column KEY of obs is VALUE",
    )
    one.add_argument(
        "--target-mean",
        nargs="+",
        metavar="GENE=MEAN",
        help="wanted means of genes (log-normalised); the others keep their control mean",
    )
    one.add_argument(
        "--target-file", type=Path, metavar="FILE.csv", help="the same, with columns gene, mean"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the screen")
    group.add_argument("--perturbation-key", default="perturbation", help="column of obs")
    group.add_argument("--control", default="control", help="label of unperturbed cells")
    group.add_argument("--layer", help="layer to read instead of X")
    group.add_argument(
        "--log-normalise",
        action="store_true",
        help="X (or the layer) holds raw counts: scale cells to their median total, take ln(1 + x)",
    )
    group.add_argument(
        "--depth-key",
        metavar="KEY",
        help="column of obs with the cells' total counts over all genes, for --log-normalise of a "
        "panel; by default the sums over the genes of the file",
    )
    group.add_argument("--genes", nargs="+", metavar="GENE", help="the panel; by default all genes")
    group.add_argument(
        "--gene-symbols",
        metavar="KEY",
        help="column of var with the names of genes that labels use, where var_names holds ids",
    )
    group.add_argument(
        "--min-fraction",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="leave out genes seen in no more than this share of the control cells",
    )


def _add_graph(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the graph (tl.learn_dag)")
    group.add_argument(
        "--method",
        choices=("boss", "gsp", "causaldag", "given"),
        default="boss",
        help="how to get it: best-order score search, greedy sparsest permutation (ours, or "
        "causaldag's, where it is installed), or --dag",
    )
    group.add_argument(
        "--dag", type=Path, metavar="FILE.csv", help="arcs of your own: columns parent, child"
    )
    group.add_argument(
        "--alpha", type=level, default=_ONLY["gsp"]["alpha"], help="gsp: level of the tests"
    )
    group.add_argument(
        "--penalty",
        type=positive,
        default=_ONLY["boss"]["penalty"],
        help="boss: factor on that of the BIC",
    )
    group.add_argument(
        "--n-runs",
        type=whole(1),
        help="restarts; by default 10 of boss (3 above 100 genes), 100 of gsp",
    )
    group.add_argument(
        "--environments",
        choices=("control", "all"),
        help="cells to learn from; by default all with boss, control cells with gsp",
    )
    group.add_argument(
        "--targets-first",
        action="store_true",
        help="boss: the targets of all labels stand before all other genes",
    )
    group.add_argument(
        "--n-graphs",
        type=whole(1),
        default=_N_GRAPHS,
        help="graphs of resampled cells, for the frequency of every arc and for intervals of "
        "distances that know of it; 1 for none",
    )
    text = "keeps finished graphs, taken up again by the same command after an interruption"
    group.add_argument("--checkpoint", type=Path, metavar="FILE", help=text)
    group.add_argument(
        "--prior-network",
        type=Path,
        metavar="FILE.csv",
        help="boss: arcs known elsewhere: columns source, target and, if there is one, weight",
    )
    group.add_argument("--n-jobs", type=jobs, default=1, help="threads")
    for name, columns in (
        ("before", "earlier, later"),
        ("tiers", "gene, tier (a number)"),
        ("required", "parent, child"),
        ("forbidden", "parent, child"),
    ):
        group.add_argument(
            f"--{name}", type=Path, metavar="FILE.csv", help=f"prior knowledge: columns {columns}"
        )


def _add_posterior(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the posterior (tl.fit_dag_blr)")
    group.add_argument(
        "--perturbations", nargs="+", metavar="NAME", help="those to fit; default all"
    )
    group.add_argument(
        "--shift",
        type=shift,
        default="knockout",
        metavar="knockout|activation|FILE.csv",
        help="what a perturbation is expected to do; a table has perturbations as rows",
    )
    group.add_argument(
        "--shift-sd",
        type=shift_sd,
        default="learned",
        metavar="learned|0",
        help="how far shifts are to be believed: learned, or 0 for exact ones as in the paper",
    )
    group.add_argument(
        "--prior-effects",
        type=Path,
        metavar="FILE.h5ad",
        help="effects in another screen, perturbations x genes",
    )
    group.add_argument("--guide-key", metavar="COLUMN", help="column with the guide of every cell")
    group.add_argument("--separator", default="+", help="what joins the targets in a label")
    group.add_argument(
        "--prior-scale", type=scale, default="evidence", metavar="evidence|NUMBER", help="learn it"
    )
    group.add_argument(
        "--prior-units",
        choices=("data", "noise", "evidence"),
        help="what weights are measured in by the prior",
    )  # fmt: skip
    group.add_argument("--noise-var", type=positive, help="known noise variance of all genes")
    group.add_argument("--no-intercept", action="store_true", help="for data centred by controls")


def _add_ranking(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the ranking (tl.design_interventions)")
    group.add_argument(
        "--acquisition", choices=ACQUISITIONS, default=ACQUISITIONS[0], help="criterion"
    )
    group.add_argument(
        "--candidates",
        nargs="+",
        metavar="NAME",
        help='"fitted" (all perturbations fitted), "genes" (those and a knockout of every gene of '
        "the panel), names, or a FILE.csv of shifts",
    )
    group.add_argument(
        "--candidate-shift",
        type=shift,
        metavar="knockout|activation|FILE.csv",
        help="shift of the candidates; by default as fitted",
    )
    group.add_argument(
        "--n-cells", type=whole(1), default=100, help="cells planned for the next one"
    )
    group.add_argument("--n-samples", type=whole(2), default=400, help="posterior draws")
    group.add_argument(
        "--no-noise-aware",
        action="store_true",
        help="look ahead as the paper does, all planned cells at their mean",
    )


def parse(version: str, argv: list[str] | None) -> argparse.Namespace:
    """Parse the arguments, and check those that depend on each other."""
    parser = build_parser(version)
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    targets = ("target", "target_group", "target_mean", "target_file")
    named = any(getattr(options, name) is not None for name in targets)
    if options.file is not None and not named:
        parser.error("name the wanted state, such as with --target NAME")
    if options.file is None and named:
        parser.error("the simulated screen has its own target: give --data FILE.h5ad as well")
    if options.depth_key is not None and not options.log_normalise:
        parser.error("--depth-key is for raw counts: give --log-normalise as well")
    _check_method(parser, options)
    return options


def _check_method(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if (options.method == "given") != (options.dag is not None):
        parser.error("--method given and --dag FILE.csv belong together: give both or neither")
    if options.environments is None:
        options.environments = "all" if options.method == "boss" else "control"
    if options.method == "given":
        options.n_graphs = 1
    for method, defaults in _ONLY.items():
        for name, default in defaults.items():
            uses = {"causaldag": "gsp"}.get(options.method, options.method) == method
            if not uses and getattr(options, name) != default:
                option = name.replace("_", "-")
                parser.error(f"--{option} is for --method {method}, not {options.method}")
