"""The snapshot of the main calls: the same where nothing changed, and what changed is found."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import snapshot

pytestmark = pytest.mark.benchmarks

STEPS = ["combinations/effects", "paper/fig5"]


def test_a_snapshot_compares_with_itself_and_shows_a_change(tmp_path, capsys):
    before = str(tmp_path / "before.npz")
    assert snapshot.main(["--save", before, "--only", *STEPS]) == 0
    with np.load(before, allow_pickle=False) as file:
        arrays = dict(file)
    assert not [name for name in arrays if name.endswith("/error")]
    assert {"/".join(name.split("/")[:2]) for name in arrays} == set(STEPS)
    assert snapshot.main(["--compare", before, "--only", *STEPS]) == 0
    capsys.readouterr()
    arrays["combinations/effects/dag_blr/mean"][0, 0] += 1e-6
    arrays["combinations/effects/dag_blr/more"] = np.ones(1)
    np.savez(before, **arrays)
    assert snapshot.main(["--compare", before, "--only", "combinations/effects"]) == 1
    shown = capsys.readouterr().out
    assert "| combinations/effects/dag_blr/mean | 1.0e-06 |" in shown
    assert "| combinations/effects/dag_blr/more | nan | nan | ONLY BEFORE |" in shown
    assert "2 of " in shown


def test_rows_that_change_places_differ_in_their_order_alone():
    table = pd.DataFrame({"perturbation": ["B", "A", "C"], "gene": ["x"] * 3, "mean": [2.0, 1, 3]})
    found = [dict(snapshot.flat(t, "t")) for t in (table, table.iloc[[1, 0, 2]])]
    compared = snapshot.compare(*found, 1e-8)
    verdicts = {item: verdict for item, (_, _, verdict) in compared.items()}
    assert verdicts == {
        "t/order": "DIFFERS", "t/perturbation": "same", "t/gene": "same", "t/mean": "same",
    }  # fmt: skip
    assert compared["t/order"][0] == 2
