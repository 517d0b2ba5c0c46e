"""What each figure of simulated models compares, as printed, and what the paper says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.paper._settings import Setting

ACQUISITIONS = ("random", "greedy", "maxv", "cv", "civ", "civ_ow")
MONTE_CARLO = ("ei", "mi", "ucb")
NAMES = {
    "random": "random", "greedy": "greedy", "maxv": "MaxV", "cv": "CV", "civ": "CIV",
    "civ_ow": "CIV-OW", "ei": "EI-Int", "mi": "MI-Int", "ucb": "UCB-Int",
}  # fmt: skip
BASELINES = ("random", "greedy", "maxv", "cv")
# First less second: below 0, the first comes closer to the target.
PAIRS = (
    *(("civ", name) for name in (*BASELINES, *MONTE_CARLO)),
    *(("civ_ow", name) for name in BASELINES),
    ("civ_ow", "civ"),
)


@dataclass(frozen=True)
class Figure:
    """One figure: settings x priors x acquisitions x instances x runs."""

    key: str
    title: str
    claim: str
    settings: tuple[Setting, ...]
    chosen: str = ""  # what the caption leaves open
    acquisitions: tuple[str, ...] = ACQUISITIONS
    instances: int = 10
    runs: int = 20
    learned_runs: int = 5
    learned: tuple[str, ...] = ("random", "greedy", "civ")  # with the learned prior
    rounds: int = 50

    def quick(self) -> Figure:
        """Return a trial of the same shape: two small settings, two instances, two runs."""
        small = [
            replace(
                s,
                n_nodes=min(s.n_nodes, 6),
                n_targets=min(s.n_targets, 2),
                n_missing=min(s.n_missing, 1),
                n_extra=min(s.n_extra, 1),
                n_reversed=min(s.n_reversed, 1),
            )
            for s in self.settings[:: max(len(self.settings) - 1, 1)]
        ]
        return replace(
            self, settings=tuple(small), instances=2, runs=2, learned_runs=2, rounds=6
        )  # fmt: skip


SIZES, N_TARGETS, CHANGES = (10, 20, 30), (5, 10, 15, 20), (1, 2, 3)
BEST = "CIV and CIV-OW come closest to the target"
FIG5 = Figure(
    "fig5",
    "Fig. 5: 30-node DAG, 10 targets",
    f"{BEST}, and with fewer samples than random, greedy, MaxV and CV.",
    (Setting("complete, 30 nodes, 10 most downstream"),),
    chosen="The graph is complete and the targets are the most downstream nodes, as in ED 3.",
    learned=ACQUISITIONS,
)
ED1 = Figure(
    "ed1",
    "ED Fig. 1: complete graph, a random half of the nodes are targets, number of nodes p",
    f"{BEST} whatever the number of nodes.",
    tuple(Setting(f"p = {p}", p, n_targets=p // 2, where="random") for p in SIZES),
    chosen="The three values of p are in the paper's supplement: 10, 20 and 30 are our choice.",
)
ED2 = replace(
    ED1,
    key="ed2",
    title="ED Fig. 2: complete graph, the most downstream half of the nodes are targets, "
    "number of nodes p",
    settings=tuple(Setting(f"p = {p}", p, n_targets=p // 2) for p in SIZES),
)
ED3 = Figure(
    "ed3",
    "ED Fig. 3: complete graph of 30 nodes, number of most downstream targets",
    f"{BEST} whatever the number of targets.",
    tuple(Setting(f"{k} targets", n_targets=k) for k in N_TARGETS),
    chosen="The four numbers of targets are in the paper's supplement: 5, 10, 15 and 20 are our "
    "choice.",
)
ED4 = Figure(
    "ed4",
    "ED Fig. 4: 30 nodes, 15 most downstream targets, four graphs",
    f"{BEST} whatever the graph.",
    (
        Setting("complete", n_targets=15),
        *(
            Setting(f"Erdos-Renyi {d:g}", family="erdos_renyi", density=d, n_targets=15)
            for d in (0.8, 0.5)
        ),
        Setting("path", family="path", n_targets=15),
    ),
)
ED5 = Figure(
    "ed5",
    "ED Fig. 5: complete graph of 10 nodes, 5 most downstream targets, with EI-, MI-, UCB-Int",
    "CIV is as good as or better than EI-, MI- and UCB-Int, and needs less time per iteration.",
    (Setting("complete, 10 nodes, 5 most downstream", 10, n_targets=5),),
    acquisitions=ACQUISITIONS + MONTE_CARLO,
    learned=ACQUISITIONS + MONTE_CARLO,
)
ED6 = Figure(
    "ed6",
    "ED Fig. 6: misspecified graphs, Erdos-Renyi of 5 nodes and density 0.5, 3 targets, step 10",
    "With missing, extra or reversed edges, CIV and CIV-OW are still the best.",
    tuple(
        Setting(
            f"{n} {kind}" if n else "right graph", 5, "erdos_renyi", n_targets=3,
            changeable=max(CHANGES), **{f"n_{kind}": n},
        )  # type: ignore[arg-type]
        for kind in ("missing", "extra", "reversed")
        for n in ((0,) if kind == "missing" else ()) + CHANGES
    ),
    chosen="One to three edges are missing, extra or reversed; targets are the most "
    "downstream nodes. Graphs with fewer than three edges, or fewer than three pairs without "
    "an edge, are drawn again.",
    learned=ACQUISITIONS,
    runs=10,
    rounds=10,
)  # fmt: skip
FIGURES = {figure.key: figure for figure in (FIG5, ED4, ED1, ED2, ED3, ED5, ED6)}
