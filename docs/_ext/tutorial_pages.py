"""Tutorials: the notebooks of ``tutorials/`` as they are committed, outputs and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# In the order of reading; others follow by name.
ORDER = (
    "quickstart",
    "plan_a_plate",
    "a_campaign_in_three_rounds",
    "combinations",
    "batches_and_guides",
    "side_information",
    "a_table_of_effects",
    "replay_a_screen",
    "screen_figures",
    "perturb_cite_seq",
    "synthetic_design",
)

HEAD = """# Tutorials

Each tutorial is a notebook that ends with a decision. The tests run them all, on real data where
available; the outputs shown here are those of the notebooks.

```{toctree}
:maxdepth: 1

"""


def copy(source: Path, target: Path) -> None:
    """Copy the notebooks that changed, and list them all."""
    target.mkdir(parents=True, exist_ok=True)
    paths = {path.stem: path for path in sorted(source.glob("*.ipynb"))}
    for path in target.glob("*.ipynb"):
        if path.stem not in paths:
            path.unlink()
    for path in paths.values():
        copied = target / path.name
        # A folder of the repository has no page; its README has one.
        text = path.read_text(encoding="utf-8").replace("/paper)", "/paper/README.md)")
        if not copied.exists() or copied.read_text(encoding="utf-8") != text:
            copied.write_text(text, encoding="utf-8")
    names = [name for name in ORDER if name in paths]
    names += [name for name in paths if name not in ORDER]
    text = HEAD + "\n".join(names) + "\n```\n"
    (target / "index.md").write_text(text, encoding="utf-8")
