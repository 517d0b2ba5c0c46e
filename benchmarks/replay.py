"""Real screens replayed as campaigns, to see whether any criterion beats random trying.

Zhang et al. 2023, Fig. 6c and Extended Data Figs. 8 and 10, on two public screens: TAP-seq
(Schraivogel et al. 2020, CRISPRi in K562) and CROP-seq (Hill et al. 2018, knockouts in MCF10A).
The target is the mean under each perturbation in turn; its own perturbation is in the pool (the
paper's reading), or held out. After each round the recommended perturbation is scored by the
squared distance of the mean of all its cells to the target. See ``tl.replay_design``.

    python benchmarks/replay.py
    python benchmarks/replay.py --quick
    python benchmarks/replay.py --screens tapseq --save replay
"""

from __future__ import annotations

import argparse
import logging
import os
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt

CRITERIA = ("civ", "civ_ow", "cv", "maxv", "greedy", "random")


def tapseq(folder: Path | None) -> ad.AnnData:
    """Return the TAP-seq screen: genes seen in over 10 % of controls, and every gene targeted."""
    adata = npt.datasets.schraivogel_2020(folder / "schraivogel_tapseq" if folder else None)
    control = "non-targeting"
    counts = adata.X[(adata.obs["perturbation"] == control).to_numpy()]
    share = np.asarray((counts > 0).mean(axis=0)).ravel()
    targeted = set(adata.obs["perturbation"])
    panel = [g for g, s in zip(adata.var_names, share, strict=True) if s > 0.1 or g in targeted]
    npt.pp.perturbation_screen(adata, control=control, panel=panel, target_sum=1e4)
    return adata


def cropseq(folder: Path | None) -> ad.AnnData:
    """Return the CROP-seq screen: the targeted genes seen in over 10 % of controls."""
    path = (folder or Path()) / "hill2018_cropseq" / "hill2018_cropseq.h5ad"
    if not path.is_file():
        message = f"{path} is not there: name its folder with --data or NEXTPERT_DATA."
        raise SystemExit(message)
    adata = ad.read_h5ad(path)
    npt.pp.perturbation_screen(adata, depth_key="nUMI", target_sum=1e4)
    return adata


SCREENS = {"tapseq": tapseq, "cropseq": cropseq}


def with_error(table: pd.DataFrame, column: str, digits: int) -> pd.Series:
    """Return a column and its standard error as text."""
    pair = table[[column, f"{column}_sem"]].itertuples(index=False)
    return pd.Series([f"{m:.{digits}f} ± {s:.{digits}f}" for m, s in pair], index=table.index)


def report(stored: dict, seconds: float, n_rounds: int) -> None:
    """Print the tables of a replay."""
    table, comparison, overall = (stored[name] for name in ("table", "comparison", "overall"))
    last = table[table["round"] == table["round"].max()]
    for held_out in stored["params"]["held_out"]:
        where = "held out" if held_out else "in the pool"
        print(f"\nThe target's own perturbation {where}; all targets, each counted once:\n")
        rows = overall[overall["held_out"] == held_out].copy()
        for column in ("relative_last", "relative_difference"):
            rows[column] = with_error(rows, column, 3)
        print(rows.drop(columns=["held_out", *rows.filter(like="_sem")]).to_string(index=False))
        gaps = comparison[comparison["held_out"] == held_out].copy()
        stars = gaps["verdict"].map(
            {"better than random": " +", "worse than random": " -", "no difference seen": ""}
        )
        gaps["text"] = with_error(gaps, "relative_difference", 3) + stars
        print(f"\nDifference to random, mean over rounds 1 to {n_rounds}, paired, in shares of the")
        print("control cells' distance (+ better, - worse than random, Holm over targets, 0.05):\n")
        names = list(dict.fromkeys(gaps["criterion"]))
        wide = gaps.pivot_table("text", "target", "criterion", aggfunc="first", sort=False)[names]
        rows = stored["targets"][stored["targets"]["held_out"] == held_out].set_index("target")
        for column in ("control", "best"):
            wide.insert(0, f"{column} distance", rows[f"{column}_distance"].round(3))
        wide.insert(0, "best", rows["best"])
        ends = last[(last["held_out"] == held_out) & (last["criterion"] == "random")]
        wide["random, last"] = ends.set_index("target")["relative_mean"].round(3)
        print(wide.to_string())
    print(f"\n{stored['summary']}")
    campaigns = stored["runs"]["chosen"][..., 0].size
    steps = campaigns * n_rounds
    print(f"\n{campaigns} campaigns, {steps} rounds in {seconds:.1f} s", end="")
    print(f" ({1000 * seconds / steps:.2f} ms a round)")


def main() -> None:
    """Replay the screens asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=list(SCREENS))
    parser.add_argument("--criteria", nargs="+", default=[*CRITERIA, "no_model"])
    parser.add_argument("--held-out", default="both", choices=["no", "yes", "both"])
    parser.add_argument("--shift", default="knockout", choices=["knockout", "activation"])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="4 repeats of 3 rounds: a trial")
    parser.add_argument("--data", type=Path, default=os.environ.get("NEXTPERT_DATA"))
    parser.add_argument("--save", metavar="NAME", help="write NAME_<screen>.h5ad and .png")
    args = parser.parse_args()
    repeats, rounds = (4, 3) if args.quick else (args.repeats, args.rounds)
    # Which labels are left out is part of the books of pp.perturbation_screen.
    warnings.filterwarnings("ignore", category=UserWarning, module="nextpert|__main__")
    logging.getLogger("nextpert").setLevel(logging.ERROR)
    for name in args.screens:
        adata = SCREENS[name](Path(args.data) if args.data else None)
        npt.tl.learn_dag(adata)
        start = time.perf_counter()
        npt.tl.replay_design(
            adata, criteria=args.criteria, shift=args.shift,
            held_out={"no": False, "yes": True, "both": "both"}[args.held_out],
            n_repeats=repeats, n_rounds=rounds, n_jobs=args.workers,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        stored = adata.uns["replay"]
        targets = stored["targets"]["target"].nunique()
        n_control = int((adata.obs["perturbation"] == "control").sum())
        print(f"\n## {name}: {len(stored['genes'])} genes, {n_control} control cells, "
              f"{len(stored['environments'])} candidates, {targets} targets, "
              f"{len(stored['params']['criteria'])} criteria, {repeats} repeats, "
              f"{rounds} rounds of 10 cells, {args.workers} workers")  # fmt: skip
        report(stored, seconds, rounds)
        if args.save:
            npt.pl.replay(adata, save=f"{args.save}_{name}.png", show=False)
            adata.write_h5ad(f"{args.save}_{name}.h5ad")


if __name__ == "__main__":
    main()
