"""False alarms and misses of the test whether features come from the cells of the screen.

Screens with correlated errors of genes are simulated; effects belong to four modules, and four of
ten perturbations have none. A feature set is named if it leaves less sampling variance unpredicted
than the true effects would (``nextpert.core.model.shared_errors``).

    python -m benchmarks.shared_errors          # a minute
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks._page import options, save, show, table
from nextpert.core.model.shared_errors import shared_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SIZES = ((15, 20, 40, 0.3), (30, 50, 40, 0.3), (30, 50, 40, 1.0), (100, 100, 40, 0.3))
SAME = ("effects", "shrunk effects", "10 components", "half of the cells")
OTHER = ("other cells", "true effects", "noise", "gene sets")


def draw(rng: np.random.Generator, n: int, p: int, cells: int, size: float) -> dict[str, Array]:
    """Return observed effects, their variances and correlation, and features of every kind."""
    factors = rng.normal(size=(p, 3))
    scale = 1 / np.sqrt(0.3 * (factors**2).sum(axis=1) + 1)
    correlation = (0.3 * factors @ factors.T + np.eye(p)) * np.outer(scale, scale)
    root = np.linalg.cholesky(correlation)
    modules, module = rng.normal(size=(4, p)), rng.integers(4, size=n)
    effects = 0.7 * modules[module] * rng.exponential(size=(n, 1)) + 0.4 * rng.normal(size=(n, p))
    effects *= size * (rng.random((n, 1)) < 0.6)
    n_cells = np.maximum(rng.poisson(cells, (n, 1)), 4)
    a, b, c, d = (rng.normal(size=(n, p)) @ root.T / np.sqrt(n_cells / 2) for _ in range(4))
    control, control_of_other = (rng.normal(size=p) @ root.T / np.sqrt(5 * cells) for _ in "ab")
    observed = effects + (a + b) / 2 + control
    variance = np.ones((n, p)) / n_cells
    u, s, _ = np.linalg.svd(observed - observed.mean(axis=0), full_matrices=False)
    weight = np.maximum(1 - variance / (observed**2).mean(axis=1, keepdims=True), 0.05)
    return {
        "observed": observed, "variance": variance, "correlation": correlation,
        "effects": observed, "shrunk effects": weight * observed, "10 components": (u * s)[:, :10],
        "half of the cells": effects + a + control,
        "other cells": effects + (c + d) / 2 + control_of_other, "true effects": effects,
        "noise": rng.normal(size=(n, p)), "gene sets": (rng.random((n, 40)) < 0.2).astype(float),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Simulate the screens and print the table."""
    parser = options("shared_errors", __doc__)
    parser.add_argument("--n", type=int, default=100, help="screens of every size")
    args = parser.parse_args(arguments)
    rows = {}
    for n, p, cells, size in SIZES:
        found = {(kind, named): 0 for kind in (*SAME, *OTHER) for named in (True, False)}
        for i in range(args.n):
            screen = draw(np.random.default_rng([n, p, i]), n, p, cells, size)
            base = [screen[name] for name in ("observed", "variance", "correlation")]
            for kind, named in found:
                x = screen[kind]
                columns = np.arange(p) if named and x.shape[1] == p else np.full(p, -1)
                found[kind, named] += shared_errors(base[0], base[1], base[2], x, columns).found
        for (kind, named), count in found.items():
            name = f"{kind}{'' if named else ', other names of genes'}"
            rows.setdefault(name, []).append(f"{count / args.n:.0%}")
    head = [f"{n} x {p}, {cells} cells, SD {size}" for n, p, cells, size in SIZES]
    save("shared_errors", [show(table(("share that is named", *head), rows))], args.save)


if __name__ == "__main__":
    main()
