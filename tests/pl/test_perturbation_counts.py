import matplotlib.pyplot as plt
import numpy as np
import pytest

from nextpert.pl import perturbation_counts
from tests._screens import screen_of


def _screen(counts):
    labels = [label for label, n in counts.items() for _ in range(n)]
    return screen_of(np.zeros((len(labels), 2)), labels, ["A", "NKX2+5"])


@pytest.fixture
def screen():
    return _screen(
        {"control": 50, "A": 9, "B": 12, "NKX2+5": 3, "A+B": 4, "B+C": 7, "A+B+C": 1, "": 5,
         "multi": 6, "A+control": 2}
    )  # fmt: skip


def test_bars_by_number_of_targets_ranked(screen):
    ax = perturbation_counts(screen, show=False)
    names = [text.get_text() for text in ax.get_xticklabels()]
    # A gene's own name is not split, and a control beside a target is none.
    assert names == ["B", "A", "NKX2+5", "B+C", "A+B", "A+B+C"]
    assert [bar.get_height() for bar in ax.patches] == [12, 11, 3, 7, 4, 1]
    assert [text.get_text() for text in ax.texts] == ["12", "11", "3", "7", "4", "1"]
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert len(set(colours[:3])) == len(set(colours[3:5])) == 1
    assert len(set(colours)) == 3
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [
        "1 target: 3 perturbations", "2 targets: 2 perturbations", "3 targets: 1 perturbation"
    ]  # fmt: skip
    # The cells without a target are left out, with those of several.
    assert ax.get_title() == "6 perturbations, 38 cells\n50 cells control, 11 cells left out"
    ax = perturbation_counts(screen, min_cells=7, show=False)
    assert [line.get_ydata()[0] for line in ax.lines] == [7]
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend[0] == "1 target: 3 perturbations,\n2 with 7 cells or more"
    assert legend[1].endswith("1 with 7 cells or more")


def test_many_perturbations_are_curves():
    rng = np.random.default_rng(0)
    counts = {"control": 9} | {f"G{i}": int(n) for i, n in enumerate(rng.integers(5, 90, 100))}
    counts |= {f"G{i}+G{i + 1}+G{i + 2}+G{i + 3}+G{i + 4}": 1 for i in range(20)}
    ax = perturbation_counts(_screen(counts), show=False)
    assert not ax.patches
    single, several = ax.lines
    ranked = sorted((n for label, n in counts.items() if label[0] == "G"), reverse=True)
    assert single.get_xdata().tolist() == list(range(1, 101))
    assert single.get_ydata().tolist() == ranked[:100]
    assert several.get_ydata().tolist() == [1] * 20
    assert several.get_label() == "4 or more targets: 20 perturbations"
    assert ax.get_yscale() == "log"


def test_errors(screen):
    with pytest.raises(ValueError, match="min_cells"):
        perturbation_counts(screen, min_cells=0)
    with pytest.raises(ValueError, match="No perturbed cells"):
        perturbation_counts(_screen({"control": 3}))
    assert not plt.get_fignums()
