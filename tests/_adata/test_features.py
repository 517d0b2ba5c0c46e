"""Side information in every form: what is alike, what files hold, and what is refused."""

from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert._adata.features import load_features, read_features
from nextpert.core.fit.naming import Naming

PANEL = ["A", "B", "C"]


def read(features, names=("A", "B", "C", "D"), naming=None):
    return read_features(features, PANEL, SimpleNamespace(names=list(names), naming=naming))


def alike(features, *names):
    rows = read(features).of(names)
    return rows @ rows.T


def test_tables_of_numbers_are_standardised():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 4)) * [1, 10, 100, 0] + 7
    table = pd.DataFrame(values, index=list("ABCDEF"))
    z = (values[:, :3] - values[:, :3].mean(axis=0)) / values[:, :3].std(axis=0)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(alike(table, *"ABCDEF"), unit @ unit.T, atol=1e-6)
    table.iloc[0, 1] = np.nan  # unknown: as the mean
    z = (values[:, :3] - values[:, :3].mean(axis=0)) / values[:, :3].std(axis=0)
    away = values[:, 1] - values[1:, 1].mean()
    away[0] = 0.0
    z[:, 1] = away / np.sqrt((away[1:] ** 2).mean())
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    np.testing.assert_allclose(alike(table, *"ABCDEF"), unit @ unit.T, atol=1e-6)


def test_genes_of_the_same_sets_are_alike():
    sets = {
        "one": ["A", "B"],
        "two": ["A", "C", "E", "F"],
        "alone": ["D", "D"],
        "three": ["E", "F"],
    }
    found = alike(sets, "A", "B", "C", "D", "E")
    a, e = np.sqrt(1 / 2 + 1 / 4), np.sqrt(1 / 4 + 1 / 2)
    np.testing.assert_allclose(np.diag(found), [1, 1, 1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(found[0, 1], 0.5 / (a * np.sqrt(0.5)), atol=1e-6)
    np.testing.assert_allclose(found[0, 2], 0.25 / (a * 0.5), atol=1e-6)  # a larger set counts less
    np.testing.assert_allclose(found[0, 4], 0.25 / (a * e), atol=1e-6)
    assert found[1, 2] == 0
    assert not found[3].any()  # of a set of one gene nothing follows


def test_neighbours_in_a_network_are_alike():
    edges = pd.DataFrame(
        {"source": ["A", "B", "D"], "target": ["B", "C", "E"], "weight": [2, 2, -2]}
    )
    found = alike(edges, *"ABCDE")
    assert found[0, 1] > found[0, 2] > found[0, 3] == 0
    assert found[3, 4] < 0
    plain = alike(edges[["source", "target"]].set_axis(["Source", "Target"], axis=1), *"ABCDE")
    np.testing.assert_allclose(plain[:3, :3], found[:3, :3], atol=1e-6)
    graph = np.zeros((5, 5))
    graph[[0, 1, 3], [1, 2, 4]] = 1
    graph = graph + graph.T + np.eye(5)
    rows = graph / np.sqrt(graph.sum(axis=0))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(plain, rows @ rows.T, atol=1e-6)


def test_components_of_large_tables_are_the_largest(monkeypatch):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 300)), index=[f"N{k}" for k in range(40)])
    monkeypatch.setattr("nextpert._adata.features._RANK", 10)
    monkeypatch.setattr("nextpert._adata.features._WORK", 0)
    found = []
    for small in (3000, 20):
        monkeypatch.setattr("nextpert._adata.features._SMALL", small)
        rows = read(table, table.index).rows
        found.append(rows @ rows.T)
    np.testing.assert_allclose(*found, atol=1e-5)
    monkeypatch.setattr("nextpert._adata.features._WORK", 40 * 30**2)  # of few rows more are kept
    assert read(table, table.index).rows.shape == (40, 30)
    assert read(table, table.index[:20]).rows.shape == (40, 20)


def test_components_are_those_of_the_screen():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(900, 700))
    names = [f"N{k}" for k in range(900)]
    unit = (values - values.mean(axis=0)) / values.std(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    found = read(pd.DataFrame(values, index=names), names[:20])
    assert found.rows.shape == (900, 20)
    np.testing.assert_allclose(found.of(names[:20]) @ found.rows.T, unit[:20] @ unit.T, atol=1e-6)
    sets = {f"S{k}": list(rng.choice(names, 10, replace=False)) for k in range(2000)}
    one = np.array([[name in some for some in map(set, sets.values())] for name in names[:20]])
    one = one / np.linalg.norm(one, axis=1, keepdims=True)
    of_sets = read(sets, names[:20])
    assert of_sets.rows.shape == (len(of_sets.perturbations), 20)
    rows = of_sets.of(names[:20])
    np.testing.assert_allclose(rows @ rows.T, one @ one.T, atol=1e-6)


def other_screen(values, error=None, names="ABD", genes=("B", "X", "A")):
    out = ad.AnnData(np.asarray(values, float), pd.DataFrame(index=list(names)))
    out.var_names = genes
    if error is not None:
        out.layers["se"] = np.asarray(error, float)
    return out


def test_effects_of_another_screen_lie_on_the_panel():
    values = np.arange(1, 10.0).reshape(3, 3)
    values[1, 0] = np.nan
    found = read(other_screen(values))
    assert found.perturbations == ["A", "B", "D"]
    assert found.effects.tolist() == [[3, 1, 0], [6, 4, 0], [9, 7, 0]]  # unknown: the mean
    away = np.where(np.isnan(values), 0.0, values - np.nanmean(values, axis=0))
    unit = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(found.rows @ found.rows.T, unit @ unit.T, atol=1e-6)


def test_standard_errors_shrink_effects_of_another_screen():
    rng = np.random.default_rng(0)
    n, p = 40, 60
    names, genes = [f"N{k}" for k in range(n)], [f"G{k}" for k in range(p)]
    size = np.repeat([0.0, 1.0], n // 2)[:, None]
    truth = 0.3 + size * rng.normal(size=(n, p))
    error = rng.uniform(0.3, 1.0, size=(n, p))
    seen = truth + error * rng.normal(size=truth.shape)
    seen[0, 0] = np.nan
    labels = SimpleNamespace(names=names, naming=None)
    found = read_features(other_screen(seen, error, names, genes), genes, labels)
    raw, shrunk = (seen - truth)[1:], (found.effects - truth)[1:]
    assert (shrunk**2).sum() < 0.5 * (raw**2).sum()
    assert found.effects[0, 0] == pytest.approx(found.effects[1:, 0].mean())
    length = (found.rows**2).sum(axis=1)
    assert length[n // 2 :].min() > 0.5 > 0.3 > length[: n // 2].mean()
    exact = read_features(other_screen(seen, error * 1e-6, names, genes), genes, labels)
    np.testing.assert_allclose(exact.effects[1:], seen[1:], atol=1e-6)
    np.testing.assert_allclose((exact.rows**2).sum(axis=1), 1, atol=1e-5)
    vague = read_features(other_screen(seen, error * 1e4, names, genes), genes, labels)
    assert np.ptp(vague.effects[1:], axis=0).max() < 1e-3  # all are the mean


def test_what_was_observed_are_the_means_of_cells_if_there_are_any():
    shrunk, error = np.arange(1, 10.0).reshape(3, 3), np.full((3, 3), 0.5)
    by_errors = read(other_screen(shrunk, error))
    assert by_errors.observed.tolist() == [[3, 1, 0], [6, 4, 0], [9, 7, 0]]
    assert by_errors.precision.tolist() == 3 * [[4, 4, 0]]
    for given in (None, error):
        other = other_screen(shrunk, given)
        other.layers["raw_mean"] = 2 * shrunk
        other.layers["raw_mean"][0, 0] = np.nan
        other.layers["sd"], other.layers["data_weight"] = 2 * error, np.full((3, 3), 0.5)
        found = read(other)
        assert found.observed.tolist() == [[6, 0, 0], [12, 8, 0], [18, 14, 0]]
        assert found.precision.tolist() == [[0.5, 0, 0], *(2 * [[0.5, 0.5, 0]])]


def test_labels_are_spelled_as_the_screen_spells_them():
    table = pd.DataFrame(np.eye(3), index=["B+A", "C", "E"])
    found = read(table, ["A+B", "C", "D"], Naming())
    assert found.perturbations == ["A+B", "C", "E"]


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_files_hold_the_same(tmp_path):
    sets = {"one": ["A", "B"], "two": ["A", "C", "D"]}
    lines = [f"{name}\twww\t" + "\t".join(genes) for name, genes in sets.items()]
    (tmp_path / "sets.gmt").write_text("\n".join(lines) + "\n\n")
    assert load_features(tmp_path / "sets.gmt") == sets
    table = pd.DataFrame({"u": [1.0, 2.0, 4.0], "v": [0.5, 0.0, 1.0]}, index=list("ABC"))
    table.to_csv(tmp_path / "table.csv")
    edges = pd.DataFrame({"source": ["A", "B"], "target": ["B", "C"], "weight": [1.0, 2.0]})
    edges.to_csv(tmp_path / "edges.tsv", sep="\t", index=False)
    other = other_screen(np.eye(3), np.ones((3, 3)))
    other.write_h5ad(tmp_path / "other.h5ad")
    other.write_zarr(tmp_path / "other.zarr")
    for file, held in (
        ("sets.gmt", sets), ("table.csv", table), ("edges.tsv", edges),
        ("other.h5ad", other), ("other.zarr", other),
    ):  # fmt: skip
        given, wanted = read(str(tmp_path / file)), read(held)
        assert given.perturbations == wanted.perturbations
        np.testing.assert_array_equal(given.rows, wanted.rows)


TABLE = pd.DataFrame(np.eye(3), index=list("ABC"))
BAD = {
    "no file": ("nowhere.gmt", "'nowhere.gmt' does not exist"),
    "row twice": (TABLE.set_axis(list("ABA")), "rows more than once: give A once"),
    "infinite": (TABLE.replace(1.0, np.inf), "infinite"),
    "a family": (
        TABLE.assign(family="x"),
        "but those of family are not. The columns of an edge list are source, target and",
    ),
    "source twice": (
        pd.DataFrame([list("ABC")], columns=["source", "source", "target"]),
        "columns more than once: give source once",
    ),
    "no values": (TABLE * np.nan, "features holds no value"),
    "no X": (ad.AnnData(obs=TABLE[[]], var=TABLE[[]]), "features has no X"),
    "a text": ({"b": "ABC"}, r"features must be a DataFrame"),
    "small sets": ({"one": ["A"], "two": ["B"]}, "no set of two genes"),
    "numbers in lists": ({"A": [1.0, 2.0], "B": [1.0]}, r"give numbers as a DataFrame"),
    "an edge without weight": (
        pd.DataFrame({"source": ["A"], "target": ["B"], "weight": [np.nan]}),
        "edges with a NaN",
    ),
    "other genes": (
        other_screen(np.eye(3), genes=("X", "Y", "Z")),
        "at least one gene of the panel",
    ),
    "errors of 0": (other_screen(np.eye(3), np.eye(3)), "values of 0 or below"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_used_is_refused(bad):
    given, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        read(given)


def test_files_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "table.xlsx").write_text("x")
    with pytest.raises(ValueError, match="has an unsupported extension"):
        read(tmp_path / "table.xlsx")
    (tmp_path / "one.gmt").write_text("name\n")
    with pytest.raises(ValueError, match=r"one\.gmt' cannot be read as \.gmt"):
        read(tmp_path / "one.gmt")
    for name, held, message in (
        ("words.csv", b"a,b,c\nx,y,z\n", "must contain only real numbers, but those of b, c are"),
        ("family.csv", b"gene,family,score\nA,x,1\nB,y,2\n", "those of family are not"),
        ("percent.csv", b"gene,share\nA,5%\nB,6%\n", "those of share are not"),
        ("empty.csv", b"gene,share\n", "holds no value"),
        ("twice.gmt", b"s\t\tA\tB\ns\t\tA\tC\n", "sets more than once: give s once"),
    ):
        (tmp_path / name).write_bytes(held)
        with pytest.raises(ValueError, match=message):
            read(tmp_path / name)
    with pytest.raises(ValueError, match="does not exist"):
        read("x" * 300 + ".csv")


@pytest.mark.parametrize("missing", [np.nan, None, "", pd.NA], ids=repr)
def test_what_has_no_name_is_left_out_with_a_count(missing, caplog):
    values = np.arange(16.0).reshape(4, 4) ** 2
    other = other_screen(values, names=["A", "B", "C", ""], genes=list("ABCX"))
    for given in (
        pd.DataFrame(np.eye(4), pd.Index(["A", "B", "C", missing], dtype=object)),
        {"one": ["A", missing, "B"], "two": ["B", "C"]},
        pd.DataFrame({"source": ["A", "B", missing], "target": ["B", "C", "A"]}),
        other,
    ):
        caplog.clear()
        assert read(given).perturbations == list("ABC")
        assert "1 " in caplog.text
        assert "without a name" in caplog.text
