"""Tutorials: the notebooks of ``tutorials/`` as they are committed, outputs and all."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from pathlib import Path

# Groups in the order of reading. Of each tutorial the question that it answers, in one line, and
# which of its figures is the picture, counted from 1. Tutorials without a line follow at the end.
GROUPS: dict[str, dict[str, tuple[str, int]]] = {
    "Start": {
        "quickstart": (
            "Which perturbation should I test next, and can I trust the answer? From counts to the "
            "decision, on a real screen.",
            6,
        ),
    },
    "Your screen": {
        "screen_figures": (
            "Are there enough cells, and do guides work? The figures to look at before any model.",
            1,
        ),
        "batches_and_guides": (
            "Do batches or failing guides look like effects, and do they change the decision?",
            2,
        ),
    },
    "Plan the next round": {
        "plan_a_plate": (
            "Which perturbations go on the next plate, with how many cells, within my budget?",
            2,
        ),
        "combinations": (
            "Which pair of perturbations should I make next, and is a single one as good?",
            1,
        ),
        "a_campaign_in_three_rounds": (
            "How do I get from counts to an order, run several rounds, and when do I stop?",
            3,
        ),
        "replay_a_screen": (
            "Would a model have found the best perturbation in fewer plates than raw means?",
            2,
        ),
    },
    "Special data": {
        "a_genome_scale_screen": (
            "How do I get from a public screen of thousands of perturbations to an order, without "
            "reading all of it into memory?",
            2,
        ),
        "a_table_of_effects": (
            "Can I plan from a published table of effects, without its cells? What is lost?",
            4,
        ),
        "side_information": (
            "Do an earlier screen or gene sets tell which untested perturbation to try?",
            1,
        ),
    },
    "The paper": {
        "perturb_cite_seq": (
            "How do I run the paper's analysis of Perturb-CITE-seq, from its files to Fig. 6?",
            3,
        ),
        "the_paper_on_simulated_models": (
            "Which acquisition finds the target state soonest, where the truth is known?",
            3,
        ),
    },
}
HEAD = """# Tutorials

Each tutorial is a notebook that answers one question and ends with a decision. The tests run them
all, on real data where available; the outputs shown here are those of the notebooks.

"""
CARD = """:::{{grid-item-card}} {title}
:link: {name}
:link-type: doc
:img-top: ../_static/tutorials/{name}.png
:img-alt: A figure of this tutorial

{question}
:::
"""
WIDTH, HEIGHT = 480, 270  # pixels of a picture


def copy(source: Path, target: Path, pictures: Path) -> None:
    """Copy the notebooks that changed, and make the page and pictures that lead to them."""
    target.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    paths = {path.stem: path for path in sorted(source.glob("*.ipynb"))}
    for path in [*target.glob("*.ipynb"), *pictures.glob("*.png")]:
        if path.stem not in paths:
            path.unlink()
    grouped = {name for names in GROUPS.values() for name in names}
    rest = {name: ("", 1) for name in paths if name not in grouped}
    page = HEAD
    for group, names in [*GROUPS.items(), ("More", rest)]:
        cards = []
        for name, (question, figure) in names.items():
            if name not in paths:
                continue
            notebook = json.loads(paths[name].read_text(encoding="utf-8"))
            title = re.search(r"^# (.*)", "".join(notebook["cells"][0]["source"]))[1]
            picture = thumbnail(figures(notebook), figure)
            kept = pictures / f"{name}.png"
            if not kept.exists() or kept.read_bytes() != picture:
                kept.write_bytes(picture)
            cards.append(CARD.format(name=name, title=title, question=question))
        if cards:
            grid = "\n".join(["::::{grid} 1 1 2 2", ":gutter: 3", "", *cards, "::::", ""])
            listed = "\n".join(name for name in names if name in paths)
            page += f"## {group}\n\n{grid}\n"
            page += f"```{{toctree}}\n:hidden:\n:caption: {group}\n\n{listed}\n```\n\n"
    for path in paths.values():
        copied = target / path.name
        # A folder of the repository has no page, its README has one; pages are not in docs/ here.
        text = path.read_text(encoding="utf-8").replace("/paper)", "/paper/README.md)")
        text = text.replace("](../docs/", "](../")
        if not copied.exists() or copied.read_text(encoding="utf-8") != text:
            copied.write_text(text, encoding="utf-8")
    index = target / "index.md"
    if not index.exists() or index.read_text(encoding="utf-8") != page:
        index.write_text(page, encoding="utf-8")


def figures(notebook: dict[str, Any]) -> list[str]:
    """Return the figures of a notebook, as they are stored."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    data = [output.get("data", {}).get("image/png") for output in outputs]
    return ["".join(picture) for picture in data if picture]


def thumbnail(pictures: list[str], number: int) -> bytes:
    """Return one of the figures of a notebook, small, on white."""
    made = Image.new("RGB", (WIDTH, HEIGHT), "white")
    if pictures:
        stored = pictures[min(number, len(pictures)) - 1]
        figure = Image.open(io.BytesIO(base64.b64decode(stored))).convert("RGB")
        figure = figure.crop(ImageOps.invert(figure).getbbox())
        figure.thumbnail((WIDTH - 16, HEIGHT - 16), Image.Resampling.LANCZOS)
        made.paste(figure, ((WIDTH - figure.width) // 2, (HEIGHT - figure.height) // 2))
    written = io.BytesIO()
    made.quantize(64).save(written, "png", optimize=True)
    return written.getvalue()
