"""Plates to the goal, on real combinations: the share of goals reached, by plate and method."""

from __future__ import annotations

from pathlib import Path

import numpy as np

Curves = dict[str, dict[str, np.ndarray]]  # share found by each plate, by setting and method

# Okabe and Ito's colours, distinguished by marker and line besides.
STYLES = {
    "random": ("#999999", "o", ":"),
    "nearest sum": ("#E69F00", "s", "--"),
    "Thompson on sums": ("#CC79A7", "^", "--"),
    "BoTorch": ("#009E73", "D", "-."),
    "ours, Thompson": ("#56B4E9", "v", "-"),
    "ours, likely best": ("#0072B2", "P", "-"),
}


def draw(curves: Curves, path: str) -> None:
    """Draw one panel a setting and save them; the format follows the name of the file."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.6), layout="constrained", sharey=True)
        for ax, setting in zip(axes.flat, curves, strict=False):
            for method, (colour, marker, line) in STYLES.items():
                if method not in curves[setting]:
                    continue
                share = np.concatenate([[0.0], curves[setting][method]])
                ours = method.startswith("ours")
                ax.plot(
                    range(len(share)), share, color=colour, marker=marker, linestyle=line,
                    markersize=4.5, linewidth=2 if ours else 1.3, label=method, clip_on=False,
                )  # fmt: skip
            most = max(map(len, curves[setting].values()), default=0)
            ax.set_title(setting, loc="left", fontsize=9, fontweight="bold")
            ax.set(xlabel="plates of 8 measured", ylim=(0, 1), xticks=range(most + 1))
            ax.grid(color="0.9", linewidth=0.6)
            ax.set_axisbelow(True)
        for ax in axes[:, 0]:
            ax.set_ylabel("share of goals whose best is found")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=3, frameon=False,
            title="Plates to the goal, on 131 real combinations (Norman et al. 2019)",
        )  # fmt: skip
        figure.savefig(Path(path), dpi=200)
        plt.close(figure)
