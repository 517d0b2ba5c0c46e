"""Fig. 3: the output weights of CIV-OW, in closed form and by drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy.special import beta
from scipy.stats import beta as beta_law
from scipy.stats import kstest

from benchmarks._page import table as markdown
from benchmarks.paper._draw import STYLE, plt, save
from benchmarks.paper._files import read_csv, write_csv
from nextpert.core import Sphere

Array = np.ndarray
SIZES = (3, 4, 5, 10, 30)
KAPPA = 3.0  # of the bimodal von Mises-Fisher density that the paper uses at p = 3
CLAIM = (
    "The output weights of CIV-OW favour shifts with rare outcomes, near the ideal shift b, and "
    "more strongly in higher dimensions. At p = 3, they are uniform, and a bimodal von "
    "Mises-Fisher density replaces them."
)


def density(k: Array, p: int) -> Array:
    """Return the density on [0, 4] of ``|a - a*|^2`` for a uniform on the unit sphere."""
    half = (p - 1) / 2
    return ((k / 4) * (1 - k / 4)) ** ((p - 3) / 2) / (4 * beta(half, half))


def weight(k: Array, p: int) -> Array:
    """Return dnu(a), relative to uniform, at a squared distance k; p = 3: von Mises-Fisher."""
    if p == 3:
        return KAPPA * np.cosh(KAPPA * (1 - k / 2)) / np.sinh(KAPPA)
    return 1 / (4 * density(k, p))


def uniform_shifts(n: int, p: int, rng: np.random.Generator) -> Array:
    """Draw shifts uniform on the sphere."""
    a = rng.standard_normal((n, p))
    return a / np.linalg.norm(a, axis=1, keepdims=True)


def weighted_shifts(ideal: Array, n: int, rng: np.random.Generator, kappa: float | None) -> Array:
    """Draw shifts under the output weights: ``t = a'a*`` flat, the rest uniform around it."""
    u = rng.random(n)
    if kappa is None:
        t = 2 * u - 1
    else:  # by inversion; both modes are as likely
        t = np.log(np.exp(-kappa) + u * (np.exp(kappa) - np.exp(-kappa))) / kappa
        t *= rng.choice([-1.0, 1.0], n)
    rest = rng.standard_normal((n, len(ideal)))
    rest -= np.outer(rest @ ideal, ideal)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    return t[:, None] * ideal + np.sqrt(1 - t**2)[:, None] * rest


def check(p: int, n: int, kappa: float | None = None) -> dict[str, object]:
    """Compare closed forms with draws: the density, and ``E(a_i - a*_i)^2`` of every node."""
    rng = np.random.default_rng([p, 0 if kappa is None else 1])
    ideal = uniform_shifts(1, p, rng)[0]
    plain, drawn = uniform_shifts(n, p, rng), weighted_shifts(ideal, n, rng, kappa)
    k = ((plain - ideal) ** 2).sum(axis=1)
    square = (drawn - ideal) ** 2
    exact = Sphere(1.0).output_weighted_square(ideal, kappa)
    error = square.std(axis=0, ddof=1) / np.sqrt(n)
    law = beta_law((p - 1) / 2, (p - 1) / 2, scale=4)
    tau = float(((drawn @ ideal) ** 2).mean())
    return {
        "p": p,
        "weights": "output density" if kappa is None else f"von Mises-Fisher, kappa {kappa:g}",
        "tau_uniform": 1 / p,
        "tau": tau,
        "near_uniform": float((np.abs(plain @ ideal) > 0.5).mean()),
        "near": float((np.abs(drawn @ ideal) > 0.5).mean()),
        "ks": float(kstest(k, law.cdf).pvalue),
        "largest_z": float(np.abs((square.mean(axis=0) - exact) / error).max()),
    }


def run(folder: Path, *, quick: bool) -> None:
    """Write the densities and the checks."""
    n = 2_000 if quick else 100_000
    k = np.linspace(0, 2, 81)[1:]
    curves = [pd.DataFrame({"p": p, "k": k, "weight": weight(k, p)}) for p in SIZES]
    write_csv(pd.concat(curves), folder, "fig3")
    rows = [check(p, n) for p in SIZES] + [check(3, n, KAPPA)]
    write_csv(pd.DataFrame(rows), folder, "fig3-check")


def table(folder: Path) -> str:
    """Return the checks in markdown."""
    checks = read_csv(folder, "fig3-check")
    rows = [
        [
            str(row.p), str(row.weights), f"{row.tau_uniform:.3f}", f"{row.tau:.3f}",
            f"{100 * row.near_uniform:.1f}%", f"{100 * row.near:.1f}%",
            f"{row.ks:.2f}", f"{row.largest_z:.1f}",
        ]
        for row in checks.itertuples()
    ]  # fmt: skip
    header = [
        "p", "weights", "E t², uniform", "E t², weighted", "within 60° of ±b, uniform",
        "weighted", "density compared with draws (KS, p)", "largest absolute z of E(a - b)²",
    ]  # fmt: skip
    return markdown(header, rows)


def draw(folder: Path) -> None:
    """Draw the weights over the squared distance on the half sphere, and on the sphere, p = 3."""
    curves = read_csv(folder, "fig3")
    colours = ("#8A8A8A", "#56B4E9", "#009E73", "#0072B2", "#D55E00")
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(7.4, 3.2), layout="constrained")
        ax = figure.add_subplot(1, 2, 1)
        for (p, part), colour in zip(curves.groupby("p"), colours, strict=True):
            name = "p = 3, von Mises-Fisher" if p == 3 else f"p = {p}"
            line = "--" if p == 3 else "-"
            ax.plot(part["k"], part["weight"], color=colour, linestyle=line, label=name)
        ax.set(yscale="log", ylim=(0.2, 1e3), ylabel="output weight dν(a), relative to uniform")
        ax.set_xlabel("squared distance to b, |a - b|²")
        ax.grid(color="0.92", linewidth=0.6)
        ax.legend(frameon=False)
        sphere: Any = figure.add_subplot(1, 2, 2, projection="3d")
        polar, around = np.meshgrid(np.linspace(0, np.pi, 91), np.linspace(0, 2 * np.pi, 121))
        b = np.array([0.75, -0.2, 0.63])
        b /= np.linalg.norm(b)
        a = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around),
                      np.cos(polar)])  # fmt: skip
        values = weight(2 - 2 * np.tensordot(b, a, 1), 3)
        shade = mpl.colors.Normalize(0, values.max())
        sphere.plot_surface(*a, facecolors=plt.cm.viridis(shade(values)), rstride=1, cstride=1,
                            shade=False)  # fmt: skip
        sphere.text(*(1.05 * b), "b", color="#D55E00", fontsize=12, fontweight="bold", zorder=9)
        sphere.set_title("p = 3, von Mises-Fisher", loc="left", fontsize=8)
        sphere.set_box_aspect((1, 1, 1), zoom=1.6)
        sphere.set_axis_off()
        figure.colorbar(
            mpl.cm.ScalarMappable(shade, "viridis"), ax=sphere, shrink=0.6, label="dν(a)"
        )
        save(figure, folder, "fig3")
