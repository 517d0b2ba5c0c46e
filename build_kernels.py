"""Compile the core's loops for a wheel: ``build_kernels.py FOLDER`` fills the folder.

They are compiled by running each once on a few cells, for a processor that is named below instead
of the one that builds. ``hatch_build.py`` calls this file when a wheel is built;
``nextpert.core._compile`` says what is written, and loads it.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
# LLVM's name of the processor, and its features. x86-64-v3 are nearly all processors since 2015.
X86_64_V3 = (
    "x86-64-v3",
    "+avx,+avx2,+bmi,+bmi2,+cx16,+f16c,+fma,+fxsr,+lzcnt,+mmx,+movbe,+popcnt,+sahf,+sse,+sse2,"
    "+sse3,+sse4.1,+sse4.2,+ssse3,+xsave",
)
ARM64 = ("generic", "")
PROCESSORS = {"x86_64": X86_64_V3, "amd64": X86_64_V3, "arm64": ARM64, "aarch64": ARM64}


def reason_against() -> str | None:
    """Return why no kernels can be compiled in this environment, or ``None`` if they can."""
    processor = PROCESSORS.get(platform.machine().lower())
    if processor is None:
        return f"none are planned for {platform.machine()}"
    try:
        from nextpert.core._compile import has_features
    except ModuleNotFoundError as error:
        if str(error.name).startswith("nextpert"):
            raise
        return f"the environment of the build lacks {error.name}"
    if not has_features(processor[1]):
        return f"this processor cannot run code for {processor[0]}"
    return None


def find_package(folder: Path) -> None:
    """Make the source importable, also where it is not installed: with a name and a version."""
    about = folder / "nextpert-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nextpert\nVersion: 0\n")
    sys.path[:0] = [str(ROOT / "src"), str(folder)]


def run_kernels() -> None:
    """Run every kernel once with the types of arguments that users give it."""
    import numpy as np
    import scipy.sparse as sp

    from nextpert.core import (
        Civ,
        Dag,
        DagBlr,
        ExpectedImprovementInt,
        Moments,
        MutualInformationInt,
        ScreenMoments,
        Sphere,
        boss,
        gsp,
        pool_guides,
    )
    from nextpert.core.model.hierarchical import fit_hierarchical
    from nextpert.core.model.sampler import Chain
    from nextpert.core.model.within_cells import coexpression
    from nextpert.core.screen.departures import Guides, GuideSpread, combine_guides

    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 4))
    x[:, 1:] += x[:, :1]
    moments = Moments.from_array(sp.csr_array(x))  # sparse_scatter
    boss(moments, rng=0)
    gsp(moments, rng=0)
    screen = ScreenMoments.from_array(x, np.arange(240) % 6, 6)
    group = np.arange(6) // 2  # two guides per perturbation
    cells = pool_guides(screen, group, 3)
    fit_hierarchical(cells, chain=Chain(1, 2), rng=0).effects.summary()
    factors = coexpression(cells)
    guides = Guides.of(screen, group, cells.mean, cells.variance_ratio, factors)
    spread = GuideSpread.usual(factors.factors.shape[1])
    combine_guides(guides, np.full(6, 0.5), spread, np.ones(3, bool))

    target, one_cell = np.ones(4), Moments.from_array(x[:1])
    for n_edges in (2, 6):  # an incomplete graph, and a complete one, whose nodes share a factor
        edges = [(i, j) for j in range(4) for i in range(j)][:n_edges]
        blr = DagBlr(Dag.from_edges(4, edges), prior_scale=1.0).update(moments)
        blr.mean()  # computes the blocks that a single cell updates
        after = blr.update(one_cell)
        after.to_dict()  # unfolds the factor
        civ = Civ(after, target)
        civ.value_and_grad(target)
        civ.values(x[:2])
        Sphere(1.0).minimise(civ, rng=0)
        for kind in (ExpectedImprovementInt, MutualInformationInt):
            options: dict[str, Any] = {"n_samples": 2, "rng": 0}
            kind(after, target, **options).value_and_grad(target)


def main(folder: Path) -> None:
    """Compile, and write the kernels to a folder; say why if it is impossible."""
    with tempfile.TemporaryDirectory() as work:
        # numba reads its settings when it is imported.
        name, features = PROCESSORS.get(platform.machine().lower(), ARM64)
        os.environ |= {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
        os.environ |= {"NUMBA_CACHE_DIR": str(Path(work, "cache")), "NUMBA_BOUNDSCHECK": "0"}
        find_package(Path(work))
        reason = reason_against()
        if reason is not None:
            sys.stderr.write(f"The wheel has no compiled kernels: {reason}.\n")
            return
        from nextpert.core._compile import write_kernels

        run_kernels()
        write_kernels(folder, features)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
