"""The rows of the table: what is run, at which size, and compared with which peer."""

from __future__ import annotations

from typing import Any

from benchmarks._row import Row


def _civ(name: str, title: str, n_genes: int, n_parents: int | None, **more: Any) -> Row:
    peer = "" if n_genes > 200 else "dense, SLSQP"
    size = {"n_genes": n_genes, "n_parents": n_parents, "n_states": 5, "peer": bool(peer)}
    small = {**size, "n_genes": 6, "n_states": 1}
    return Row(f"civ-{name}", title, "_design:civ_step", size, small, peer, **more)


def _boss(name: str, title: str, n_genes: int, **more: Any) -> Row:
    chosen = {k: more.pop(k) for k in ("n_jobs", "shuffle") if k in more}
    size = {"n_genes": n_genes, "degree": 6.0, "n_cells": 5000, **chosen}
    small = {"n_genes": 5, "degree": 2.0, "n_cells": 200}
    if peer := {"boss": "BOSS", "grasp": "GRaSP"}.get(more.pop("peer", "")):
        size["peer"] = small["peer"] = peer
        more |= {"peer": f"causal-learn {peer}", "needs": "causal-learn", "module": "causallearn"}
    title = f"BOSS, {n_genes:,} genes, degree 6, 5,000 cells{title}"
    return Row(f"boss-{name}", title, "_graphs:search_boss", size, small, **more)


_IN_ORDER = ", columns in causal order (which spares the peer)"
ROWS: tuple[Row, ...] = (
    _civ("30", "CIV step, 30 genes complete", 30, None),
    _civ("100", "CIV step, 100 genes complete", 100, None),
    _civ("200", "CIV step, 200 genes, 3 parents each", 200, 3, peer_repeats=1),
    _civ("200-complete", "CIV step, 200 genes complete", 200, None, peer_repeats=1),
    _civ("1000", "CIV step, 1,000 genes, 5 parents each", 1000, 5),
    Row(
        "pool-5000", "pool of 5,000, 200 genes, 3 parents each", "_design:pool",
        {"n_genes": 200, "n_parents": 3, "n_candidates": 5000, "n_peer": 50},
        {"n_genes": 6, "n_parents": 2, "n_candidates": 20, "n_peer": 5}, "dense loop",
    ),
    Row(
        "gsp-36", "GSP, 36 genes, degree 8, 5,039 cells, 1,000 runs", "_graphs:search_gsp",
        {"n_genes": 36, "degree": 8.0, "n_cells": 5039, "n_runs": 1000},
        {"n_genes": 5, "degree": 2.0, "n_cells": 200, "n_runs": 3},
        "causaldag GSP", "causaldag", "graphical_model_learning", peer_repeats=3,
    ),
    _boss("100", _IN_ORDER, 100, peer="boss", shuffle=False, peer_repeats=3),
    _boss("100-grasp", _IN_ORDER, 100, peer="grasp", shuffle=False, peer_repeats=1, memory=False),
    _boss("400", "", 400, repeats=3),
    _boss("1000", ", 2 workers", 1000, n_jobs=2, repeats=1),
)  # fmt: skip
