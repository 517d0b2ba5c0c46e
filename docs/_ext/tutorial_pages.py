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

# Which of the figures of a tutorial is its picture, counted from 1: the first unless it is here.
PICTURES = {
    "quickstart": 6,
    "batches_and_guides": 2,
    "plan_a_plate": 2,
    "a_cell_type_as_target": 3,
    "a_campaign_in_three_rounds": 3,
    "replay_a_screen": 2,
    "a_genome_scale_screen": 2,
    "a_table_of_effects": 4,
    "a_drug_screen": 4,
    "a_table_of_bulk_rnaseq": 3,
    "perturb_cite_seq": 3,
    "the_paper_on_simulated_models": 3,
}
HEAD = """# Tutorials

Each notebook answers one question and ends with a decision. Start with the
[quickstart](quickstart.ipynb), then choose by question. To run a notebook, install from the clone:
`pip install . jupyterlab`. Ten of the fifteen notebooks run without files of your own; those on
TAP-seq download 6 MB. The four on Papalexi and Norman read `papalexi_thp1/papalexi_lowmoi.h5ad` or
`norman2019/norman_subset.h5ad` in the folder that the environment variable `NEXTPERT_DATA` names,
and state which columns the file needs; the one on MorPhiC reads two tables there. The folder
`tutorials/workflows` of the clone has Snakemake and SLURM workflows.

"""
CARD = """:::{{grid-item-card}} {title}
:link: {name}
:link-type: doc
:img-top: ../_static/tutorials/{name}.png
:img-alt: A figure of the tutorial {title}

{question}

*{facts}*
:::
"""
WIDTH, HEIGHT = 480, 270  # pixels of a picture


def copy(source: Path, target: Path, pictures: Path) -> None:
    """Copy the notebooks that changed, and make the page and pictures that lead to them.

    The groups and questions are those of the README beside the notebooks; tutorials that it does
    not list follow at the end.
    """
    target.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    paths = {path.stem: path for path in sorted(source.glob("*.ipynb"))}
    for path in [*target.glob("*.ipynb"), *pictures.glob("*.png")]:
        if path.stem not in paths:
            path.unlink()
    groups = listed_in((source / "README.md").read_text(encoding="utf-8"))
    grouped = {name for names in groups.values() for name in names}
    rest = {name: ("", "") for name in paths if name not in grouped}
    page = HEAD
    for group, names in [*groups.items(), ("More", rest)]:
        cards = []
        for name, (question, facts) in names.items():
            if name not in paths:
                continue
            notebook = json.loads(paths[name].read_text(encoding="utf-8"))
            title = re.search(r"^# (.*)", "".join(notebook["cells"][0]["source"]))[1]
            picture = thumbnail(figures(notebook), PICTURES.get(name, 1))
            kept = pictures / f"{name}.png"
            if not kept.exists() or kept.read_bytes() != picture:
                kept.write_bytes(picture)
            cards.append(CARD.format(name=name, title=title, question=question, facts=facts))
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


def listed_in(page: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Return question and facts of each tutorial that a page lists, by group, in their order."""
    groups: dict[str, dict[str, tuple[str, str]]] = {}
    rows = re.findall(
        r"^\| (?:\*\*(.+)\*\*|\[.+\]\((\w+)\.ipynb\)) \| ?(.*?) ?\| ?(.*?) ?\| ?(.*?) ?\|$",
        page, re.MULTILINE,
    )  # fmt: skip
    for group, name, question, data, minutes in rows:
        if group:
            names = groups.setdefault(group, {})
        else:
            names[name] = question, f"Data: {data}. Runs in {minutes} min."
    return groups


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
