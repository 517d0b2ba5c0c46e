"""What each figure compares, and what the paper says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.paper._settings import Setting

ACQUISITIONS = ("random", "greedy", "maxv", "cv", "civ", "civ_ow")
MONTE_CARLO = ("ei", "mi", "ucb")
NAMES = {
    "random": "random", "greedy": "greedy", "maxv": "MaxV", "cv": "CV", "civ": "CIV",
    "civ_ow": "CIV-OW", "ei": "EI-Int", "mi": "MI-Int", "ucb": "UCB-Int",
}  # fmt: skip
# First less second: below 0, the first comes closer to the target.
PAIRS = (
    ("civ", "random"), ("civ", "greedy"), ("civ", "maxv"), ("civ", "cv"), ("civ_ow", "civ"),
    ("civ", "ei"), ("civ", "mi"), ("civ", "ucb"),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure: settings x priors x acquisitions x instances x runs."""

    key: str
    title: str
    claim: str
    settings: tuple[Setting, ...]
    acquisitions: tuple[str, ...] = ACQUISITIONS
    instances: int = 10
    runs: int = 5
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
        return replace(self, settings=tuple(small), instances=2, runs=2, rounds=6)


FAMILIES = {
    "erdos_renyi": "Erdos-Renyi", "barabasi_albert": "Barabasi-Albert", "path": "path",
    "line": "line", "out_star": "out-star", "in_star": "in-star", "tree": "tree",
    "rooted_tree": "rooted tree", "chordal": "chordal", "clique_tree": "clique tree",
}  # fmt: skip

FIG5 = Figure(
    "fig5",
    "Fig. 5: complete graph of 30 nodes, ideal shift on the 10 most downstream",
    "CIV and CIV-OW come closest to the target, and with fewer samples than random, greedy, MaxV "
    "and CV.",
    (Setting("complete, 30 nodes"),),
    runs=20,
)
ED1 = Figure(
    "ed1",
    "ED Fig. 1: size of the graph",
    "CIV and CIV-OW do best on graphs of other sizes too.",
    (
        Setting("5 nodes, 2 targets", 5, n_targets=2),
        Setting("10 nodes, 5 targets", 10, n_targets=5),
        Setting("20 nodes, 10 targets", 20, n_targets=10),
    ),
    runs=10,
)
ED2 = Figure(
    "ed2",
    "ED Fig. 2: number and place of the targets, complete graph of 30 nodes",
    "CIV and CIV-OW do best whatever the number of targets and their place.",
    (
        *(Setting(f"{k} most downstream", n_targets=k) for k in (2, 5, 20)),
        *(Setting(f"{k} at random", n_targets=k, where="random") for k in (1, 5, 10, 20)),
        Setting("all 30", n_targets=30),
    ),
)
ED3 = Figure(
    "ed3",
    "ED Fig. 3: families of graphs, 30 nodes, 10 targets",
    "CIV and CIV-OW do best or as well as the best on other families of graphs.",
    tuple(
        Setting(f"{name}, {place}", family=family, where=where)
        for where, place in (("downstream", "downstream"), ("random", "random targets"))
        for family, name in FAMILIES.items()
        # The last nodes of an out-star are leaves: no weight matters to them.
        if (family, where) != ("out_star", "downstream")
    ),
)
ED4 = Figure(
    "ed4",
    "ED Fig. 4: level of the noise, 30 nodes, 10 most downstream targets",
    "CIV and CIV-OW do best at other levels of noise too.",
    (
        *(Setting(f"complete, noise x {v:g}", noise=v) for v in (0.1, 0.3, 3.0, 10.0)),
        *(
            Setting(
                f"Erdos-Renyi, not standardised, noise {v:g}",
                family="erdos_renyi",
                standardise=False,
                noise=v,
            )
            for v in (0.1, 1.0, 10.0)
        ),
    ),
)
ED5 = Figure(
    "ed5",
    "ED Fig. 5: EI-, MI- and UCB-Int beside the others, complete graph of 10 nodes, 5 targets",
    "CIV is as good as or better than EI-, MI- and UCB-Int, and needs less time a round.",
    (Setting("complete, 10 nodes", 10, n_targets=5),),
    acquisitions=ACQUISITIONS + MONTE_CARLO,
    runs=10,
)
ED6 = Figure(
    "ed6",
    "ED Fig. 6: wrong graphs, Erdos-Renyi of 30 nodes, 10 most downstream targets",
    "With edges missing, in excess or reversed, CIV still does best; missing edges hurt most.",
    (
        Setting("right graph", family="erdos_renyi"),
        *(
            Setting(f"{n} edges {kind}", family="erdos_renyi", **{f"n_{kind}": n})  # type: ignore[arg-type]
            for kind in ("missing", "extra", "reversed")
            for n in (2, 5, 10, 20)
        ),
    ),
)
FIGURES = {figure.key: figure for figure in (FIG5, ED5, ED3, ED4, ED1, ED2, ED6)}
# Those over whose settings the rounds saved by the learned prior are averaged.
AVERAGED = ("fig5", "ed1", "ed2", "ed3", "ed4")


def is_dense(key: str, setting: str) -> bool:
    """Say whether the graphs of a setting are dense: complete or chordal."""
    return any(
        s.name == setting and s.family in ("complete", "chordal") for s in FIGURES[key].settings
    )
