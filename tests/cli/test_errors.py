"""Bad usage and bad input of the command: one line, exit code 2, and nothing written.

What the functions refuse themselves is tested with them.
"""

from __future__ import annotations

import anndata as ad
import pytest

import nextpert as npt
from nextpert.cli import main
from nextpert.cli._options import HINT
from tests._screens import small_cells

TEXTS = {
    "three.csv": "a,b,c\nx,y,z\n",
    "prices.csv": "perturbation,price\nMYC,4\n",
    "twice.csv": "perturbation,price\nMYC,4\nMYC,5\n",
    "words.csv": "p,MYC\nMYC,low\n",
    "names.txt": "MYC\nNOPE\n",
    "broken.toml": "state = MYC\n",
    "key.toml": 'state = "MYC"\nwieghts = ["MYC"]\n',
}
DEMO = "demo --data screen.h5ad --out out/below --combinations keep"
LEARN, PLAN, DESIGN = "learn screen.h5ad", "plan fitted.h5ad --target MYC", "design fitted.h5ad"
# The command line, and what the one line must hold.
CASES = [
    # screens
    ("preprocess absent.h5ad", "no file 'absent.h5ad'"),
    ("preprocess cut.h5ad", "'cut.h5ad' cannot be read as h5ad or zarr"),
    ("demo --target MYC", "leave out --target, or pass a screen with --data"),
    # one target state, in one of its forms
    (DEMO, "--target NAME", "given: none"),
    (f"{DEMO} --target MYC --target-group a b", "given: --target, --target-group"),
    (f"{DEMO} --target MYCC", "target not found", "MYCC", "matches: MYC"),
    (f"{DESIGN} --target-mean MYC", "--target-mean MYC: ", "NAME=VALUE"),
    (f"{DESIGN} --target-file three.csv", "--target-file three.csv: ", "two columns, but has 3"),
    (f"{DESIGN} --target-file broken.toml", "--target-file broken.toml: Invalid value"),
    (f"{DESIGN} --target-file key.toml", "--target-file key.toml: ", "'wieghts'"),
    # other files and values
    ("demo --data ready.h5ad --target MYC --panel MYC", "leave out --panel"),
    ("preprocess screen.h5ad --panel @absent.txt", "--panel @absent.txt: ", "No such file"),
    (f"{LEARN} --genes @names.txt", "NOPE", "leave these genes out"),
    (f"{LEARN} --before three.csv", "--before three.csv: ", "two columns, but has 3"),
    ("fit fitted.h5ad --out new.h5ad --shift words.csv", "--shift words.csv: ", "'low'"),
    ("fit fitted.h5ad --out new.h5ad --features absent.h5ad", "features: 'absent.h5ad'"),
    (f"{PLAN} --costs 900", "--costs 900: ", "NAME=VALUE"),
    (f"{PLAN} --costs budget=much", "--costs budget=much: ", "'much'"),
    (f"{PLAN} --costs budget=9 budget=8", "budget is given more than once"),
    (f"{PLAN} --costs perturbation=6 perturbation=prices.csv", "perturbation is given more than"),
    (f"{PLAN} --costs budget=9 perturbation=absent.csv", "absent.csv: ", "No such file"),
    (f"{PLAN} --costs budget=9 perturbation=twice.csv", "a name is given more than once"),
    (f"{PLAN} --costs budget=9 perturbation=three.csv", "two columns, but has 3"),
    (f"{PLAN} --costs budget=9 perturbation=words.csv", "'low'"),
    (f"{PLAN} --costs cell=1", "costs needs a budget"),
    (f"{PLAN} --costs budget=9 cells=1", "unknown keys: cells"),
    (f"{PLAN} --costs budget=nan", "costs['budget'] must be"),
    (f"{PLAN} --costs budget=900 cell=-1", "costs['cell'] must be"),
    (f"{PLAN} --costs budget=900 perturbation=prices.csv", "costs['perturbation']", "no cost of"),
    (f"{PLAN} --costs budget=9 perturbation=10", "pays for no perturbation"),
    (f"{PLAN} --pending MYC=few", "--pending MYC=few: ", "'few'"),
    # what is refused by the functions, under the names of Python
    (f"{LEARN} --n-runs 0", "search_options['n_runs'] must be"),
    *(
        (
            f"report ranked.h5ad --also {other}.h5ad",
            f"--also {other}.h5ad differs from the screen in its cells, genes or fit",
        )
        for other in ("fewer", "renamed", "refitted")
    ),
    # places of the results
    (f"{LEARN} --out {'x' * 300}.h5ad", "Cannot write to 'xxx", "(File name too long)"),
    (f"{LEARN} --out loop.h5ad", "Cannot write to 'loop.h5ad' (Too many levels of symbolic links)"),
    (f"{LEARN} --out screen.h5ad", "is the screen itself", "--out"),
    (f"{LEARN} --table x.txt", "--table must end in .csv"),
]
PYTHON = (
    "min_cells",
    "pp.",
    "tl.",
    "n_runs",
    "target_mean",
    "var_names",
)  # of errors with names of Python
USAGE = [
    ("dessign", "(see nextpert --help)"),
    ("design", "--screen requires an argument. (see nextpert design --help)"),
    ("design x.h5ad --nope 1", "--nope"),
    ("learn x.h5ad --genes", "--genes"),
    ("learn x.h5ad --n-runs many", "--n-runs"),
    ("learn x.h5ad --config absent.toml", "absent.toml"),
    ("preprocess x.h5ad --min-cells 2.5", "--min-cells"),
]


@pytest.fixture(scope="module")
def folder(_fitted, tmp_path_factory):
    """Files that many cases need."""
    folder = tmp_path_factory.mktemp("errors")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    (folder / "loop.h5ad").symlink_to("loop.h5ad")
    small_cells().write_h5ad(folder / "screen.h5ad")
    ready = small_cells()
    ready.uns["preprocessing"] = {"params": {}}
    ready.write_h5ad(folder / "ready.h5ad")
    (folder / "fitted.h5ad").write_bytes(_fitted.read_bytes())
    adata = ad.read_h5ad(folder / "fitted.h5ad")
    npt.tl.target_distances(adata, "MYC")
    adata.write_h5ad(folder / "ranked.h5ad")
    adata[:-1].copy().write_h5ad(folder / "fewer.h5ad")
    renamed = adata.copy()
    renamed.var_names = [f"{name}a" for name in adata.var_names]
    renamed.write_h5ad(folder / "renamed.h5ad")
    adata.uns["dag_blr"]["digest"] = "another fit"
    adata.write_h5ad(folder / "refitted.h5ad")
    (folder / "cut.h5ad").write_bytes(_fitted.read_bytes()[:3000])
    return folder


def _never(*args, **options):
    raise AssertionError


@pytest.mark.filterwarnings("ignore:.*hardly express")
@pytest.mark.parametrize("case", [*CASES, *USAGE], ids=lambda case: case[0][-50:])
def test_an_error_takes_one_line_and_writes_nothing(case, folder, capsys, monkeypatch):
    words, *expected = case
    monkeypatch.chdir(folder)
    if words.startswith("demo"):  # found before the graph is learned
        monkeypatch.setattr("nextpert.tl.learn_dag", _never, raising=False)
    before = sorted(folder.rglob("*"))
    assert main([*words.split(), "--quiet"]) == 2
    printed = capsys.readouterr()
    (line,) = (line for line in printed.err.splitlines() if line.startswith("nextpert: error: "))
    assert all(word in line for word in expected), line
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert sorted(folder.rglob("*")) == before
    is_of_python = case in CASES and any(word in line for word in PYTHON)
    assert (printed.err.splitlines()[-1] == f"nextpert: {HINT}") == is_of_python
