"""The parts that all figures share."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from nextpert.pl._figure import finish, panels_of


def test_a_grid_has_the_size_of_its_panels_and_what_is_beside_them():
    axes, n_columns = panels_of(4, 2, (3.0, 2.0), (1.0, 0.5))
    assert (len(axes), n_columns) == (4, 2)
    np.testing.assert_allclose(axes[0].figure.get_size_inches(), [7.0, 4.5])
    axes, n_columns = panels_of(1, 2, (1.0, 1.0), (0.2, 0.5))
    assert n_columns == 1
    np.testing.assert_allclose(axes[0].figure.get_size_inches(), [4.2, 1.5])


@pytest.mark.parametrize("is_new", [True, False])
def test_names_are_no_formulas_on_new_figures_and_on_axes_of_others(is_new):
    figure, (axes, other) = plt.subplots(1, 2)
    axes.set_title("$b$")
    other.set_title("$a$")
    figure.suptitle("$c$")
    finish(axes, is_new=is_new, show=False, return_fig=False, save=None)
    assert not axes.title.get_parse_math()
    # What a user drew beside it stays a formula.
    assert other.title.get_parse_math() != is_new
