"""The rows of the table: what is run at which size, against whom, and what is to be reached."""

from __future__ import annotations

from typing import Any

from benchmarks._row import Goal, Row


def _civ(name: str, title: str, n_genes: int, n_parents: int | None, **options: Any) -> Row:
    more = {k: options.pop(k) for k in ("peer",) if k in options}
    size = {"n_genes": n_genes, "n_parents": n_parents, "n_states": 5}
    small = {"n_genes": 6, "n_parents": n_parents, "n_states": 1}
    has_peer = more.get("peer", True)
    return Row(
        f"civ-{name}", title, "_design:civ_step", size | more, small | more,
        peer="dense, SLSQP" if has_peer else "", **options,
    )  # fmt: skip


def _boss(name: str, n_genes: int, **options: Any) -> Row:
    chosen = {k: options.pop(k) for k in ("peer", "n_jobs", "least_f1", "shuffle") if k in options}
    size = {"n_genes": n_genes, "degree": 6.0, "n_cells": 5000}
    shared = {k: v for k, v in chosen.items() if k == "peer"}
    title = f"BOSS, {n_genes:,} genes, degree 6, 5,000 cells"
    if chosen.get("n_jobs", 1) > 1:
        title += f", {chosen['n_jobs']} workers"
    if not chosen.get("shuffle", True):
        title += ", columns in causal order (which spares the peer)"
    if "peer" in chosen:
        label = {"boss": "BOSS", "grasp": "GRaSP"}[chosen["peer"]]
        options |= {
            "peer": f"causal-learn {label}", "needs": "causal-learn", "module": "causallearn"
        }  # fmt: skip
    small = {"n_genes": 5, "degree": 2.0, "n_cells": 200}
    return Row(
        f"boss-{name}", title, "_graphs:search_boss", size | chosen, small | shared, **options
    )


_FILE = {"n_cells": 1_000_000, "n_genes": 2000, "n_panel": 36, "density": 0.05}
_SMALL_FILE = {"n_cells": 300, "n_genes": 20, "n_panel": 4, "density": 0.3}
_POOL = {"n_genes": 200, "n_parents": 3, "n_candidates": 5000, "n_peer": 50}
_SMALL_POOL = {"n_genes": 6, "n_parents": 2, "n_candidates": 20, "n_peer": 5}

ROWS: tuple[Row, ...] = (
    _civ("30", "CIV step, 30 genes complete", 30, None, goal=Goal(faster=30, also="no worse")),
    _civ("100", "CIV step, 100 genes complete", 100, None, goal=Goal(faster=100, also="no worse")),
    _civ(
        "200", "CIV step, 200 genes, 3 parents each", 200, 3, peer_repeats=1,
        goal=Goal(faster=5000, also="no worse"),
    ),
    _civ(
        "1000", "CIV step, 1,000 genes, 5 parents each", 1000, 5, peer=False,
        goal=Goal(seconds=0.05, megabytes=500),
    ),
    Row(
        "pool-5000", "pool of 5,000, 200 genes, 3 parents each", "_design:pool", _POOL,
        _SMALL_POOL, peer="dense loop", goal=Goal(seconds=0.05),
    ),
    Row(
        "gsp-36", "GSP, 36 genes, degree 8, 5,039 cells, 1,000 runs", "_graphs:search_gsp",
        {"n_genes": 36, "degree": 8.0, "n_cells": 5039, "n_runs": 1000},
        {"n_genes": 5, "degree": 2.0, "n_cells": 200, "n_runs": 3},
        peer="causaldag GSP", needs="causaldag", module="graphical_model_learning",
        peer_repeats=3, goal=Goal(faster=50, also="no more edges"),
    ),
    _boss(
        "100", 100, peer="boss", shuffle=False, peer_repeats=3,
        goal=Goal(faster=40, also="F1 no lower"),
    ),
    _boss(
        "100-grasp", 100, peer="grasp", shuffle=False, peer_repeats=1, memory=False,
        goal=Goal(also="F1 no lower"),
    ),
    _boss("400", 400, least_f1=0.97, repeats=3, goal=Goal(seconds=15, also="F1 ≥ 0.97")),
    _boss(
        "1000", 1000, n_jobs=2, least_f1=0.95, repeats=1,
        goal=Goal(seconds=180, also="F1 ≥ 0.95"),
    ),
    Row(
        "moments-file", "moments of 1,000,000 x 36 of a sparse h5ad of 2,000 genes",
        "_moments:from_file", _FILE, _SMALL_FILE, peer="one read of the file", file=True,
        goal=Goal(faster=0.5, megabytes=500),
    ),
    Row(
        "moments-gzip", "the same, the file compressed (gzip)", "_moments:from_file",
        _FILE | {"compression": "gzip"}, _SMALL_FILE | {"compression": "gzip"},
        peer="one read of the file", repeats=3, file=True, goal=Goal(faster=0.5, megabytes=500),
    ),
    Row(
        "moments-memory", "moments of 1,000,000 x 36, dense in memory", "_moments:from_memory",
        {"n_cells": 1_000_000, "n_genes": 36}, {"n_cells": 50, "n_genes": 4}, peer="X.T @ X",
    ),
    Row(
        "campaigns", "campaigns of 50 rounds, 30 genes, 6 acquisitions, 10 x 20 runs, 2 workers",
        "_whole:campaigns",
        {"n_genes": 30, "n_rounds": 50, "n_instances": 10, "n_runs": 20, "n_jobs": 2},
        {"n_genes": 5, "n_rounds": 2, "n_instances": 1, "n_runs": 1, "n_jobs": 1},
        repeats=1, memory=False, goal=Goal(seconds=60),
    ),
    Row(
        "first-use", "first use: compiling learn, fit and design", "_whole:first_use",
        {"whole": True}, {"whole": False}, repeats=3, memory=False,
        goal=Goal(seconds=10),
    ),
)  # fmt: skip
