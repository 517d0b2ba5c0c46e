"""A screen with every result there is, and the check that all tables of bad input share."""

import warnings

import matplotlib.pyplot as plt
import pytest

import nextpert as npt
from nextpert.core import CycleError

_EXPECTED = (ValueError, TypeError, FileNotFoundError)


@pytest.fixture(scope="session")
def _full_screen(_small_screen, edges):
    adata = _small_screen.copy()
    labels = adata.obs["perturbation"].astype(object).fillna("")
    guides = labels.map(lambda label: {"control": "NO_SITE_1", "": ""}.get(label, f"{label}_1"))
    adata.obs["guides"] = adata.obs["called"] = guides
    adata.obs["condition"] = "Control"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        npt.tl.learn_dag(adata, method="given", dag=edges, genes=list(adata.var_names))
        npt.tl.fit_dag_blr(adata)
        npt.tl.design_interventions(adata, "MYC", n_samples=10)
        npt.tl.dag_fit(adata, n_random=20)
        npt.tl.diagnose(adata)
        npt.tl.cpca(adata)
        npt.tl.target_distances(adata, "MYC")
        npt.tl.perturbation_effects(adata)
        npt.tl.plan_cells(adata, "MYC")
        npt.tl.replay_design(
            adata,
            ["MYC"],
            strategies=["exact_greedy", "random"],
            n_rounds=2,
            n_repeats=2,
            campaign_options={"n_warmup": 20},
        )
    return adata


@pytest.fixture
def full_screen(_full_screen):
    """The small screen, with the results of every function; a new copy for every test."""
    return _full_screen.copy()


@pytest.fixture
def assert_refused(assert_same_adata):
    """Call with bad input: one clear sentence that holds the words, and nothing changed."""

    def check(call, adata, words=(), error=_EXPECTED, one_of=()):
        before = None if adata is None else adata.copy()
        figures = plt.get_fignums()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(error) as caught:
                call(adata)
        # LinAlgError and the like are ValueErrors, too, and say nothing to a user.
        assert type(caught.value) in {*_EXPECTED, CycleError}
        message = str(caught.value)
        missing = [word for word in words if word not in message]
        assert not missing, f"{missing} not in {message!r}"
        assert not one_of or any(word in message for word in one_of), message
        assert len(message) >= 25, message
        assert message[-1] in ".)", message
        if adata is not None:
            assert_same_adata(adata, before)
        assert plt.get_fignums() == figures

    return check
