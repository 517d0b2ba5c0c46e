"""Build hook of hatchling: a wheel with compiled kernels, where the environment can compile them.

The isolated environment of ``pip install .`` has no numba: its wheel holds Python alone, fits every
system, and compiles on first use. ``build_kernels.py`` says what is compiled.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def platform_tag() -> str | None:
    """Return the tag of this system for wheels, or ``None`` if it gets no compiled kernels.

    Kernels link to no library, so that a tag names the oldest system on which numba runs.
    """
    machine = platform.machine().lower()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        return f"manylinux_2_17_{machine}"
    return {
        ("darwin", "arm64"): "macosx_11_0_arm64",
        ("win32", "amd64"): "win_amd64",
    }.get((sys.platform, machine))


class KernelsHook(BuildHookInterface):  # type: ignore[misc, type-arg]
    """Compile the kernels, and tag the wheel for its platform and version of Python."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add compiled kernels to a wheel, unless it is editable."""
        system = platform_tag()
        if self.target_name != "wheel" or version == "editable" or system is None:
            return
        self._work = tempfile.TemporaryDirectory()
        folder = Path(self._work.name)
        command = [sys.executable, str(Path(self.root, "build_kernels.py")), str(folder)]
        subprocess.run(command, check=True)
        if not any(folder.iterdir()):
            return
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        build_data["force_include"][str(folder)] = "nextpert/core/kernels"
        build_data["pure_python"] = False
        build_data["tag"] = f"{python}-{python}{sys.abiflags}-{system}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the folder of the kernels."""
        if hasattr(self, "_work"):
            self._work.cleanup()
