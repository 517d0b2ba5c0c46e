"""Run all kernels of the installed package, and fail if numba compiles one."""

from __future__ import annotations

import sys
from pathlib import Path

from numba.core.event import install_recorder

sys.path.append(str(Path(__file__).parents[1]))
from build_kernels import run_kernels

with install_recorder("numba:compile") as events:
    run_kernels()
sys.exit(f"{len(events.buffer)} compilations" if events.buffer else 0)
