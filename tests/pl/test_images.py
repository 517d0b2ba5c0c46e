"""Every plot looks as it did: compared, with ``--mpl``, with the pictures in ``baseline``.

After a change that is wanted, look at the new pictures that this writes:
``pytest tests/pl/test_images.py --mpl-generate-path=tests/pl/baseline``
"""

import matplotlib
import pandas as pd
import pytest

import nextpert as npt

# Other versions of matplotlib set texts a little differently.
DRAWN_WITH = "3.11"
pytestmark = pytest.mark.skipif(
    not matplotlib.__version__.startswith(f"{DRAWN_WITH}."),
    reason=f"the pictures were drawn with matplotlib {DRAWN_WITH}",
)
COMPARED = {
    "baseline_dir": "baseline",
    "style": "default",
    "backend": "agg",
    "tolerance": 1,
    "savefig_kwargs": {"dpi": 60},
    "deterministic": True,
}
OPTIONS = {"dag": {"n_genes": 14}, "design": {"n_top": 10}, "perturbation_effects": {"n_top": 20}}


@pytest.mark.parametrize("name", npt.pl.__all__)
@pytest.mark.mpl_image_compare(**COMPARED)
def test_plot(name, designed):
    options = dict(OPTIONS.get(name, {}))
    if "n_genes" in options:
        options["genes"] = list(designed.uns["dag"]["genes"])[: options.pop("n_genes")]
    return getattr(npt.pl, name)(designed, return_fig=True, **options)


@pytest.mark.mpl_image_compare(**COMPARED)
def test_effects_of_one(designed):
    name = str(designed.uns["perturbation_effects"]["perturbations"][0])
    return npt.pl.perturbation_effects(designed, perturbations=[name], n_top=12, return_fig=True)


@pytest.mark.mpl_image_compare(**COMPARED)
def test_dag_of_resamples(designed):
    """Directions that are open, and edges that few resamples have."""
    genes = ["MYC", "STAT1", "B2M", "FOS", "CDK4", "HLA-A"]
    edges = pd.DataFrame({
        "parent": ["MYC", "STAT1", "MYC", "FOS"],
        "child": ["STAT1", "B2M", "B2M", "B2M"],
        "oriented_by": ["cells", "interventions", "open", "cells"],
        "adjacency": [1.0, 0.9, 0.8, 0.3],
        "frequency": [1.0, 0.8, 0.5, 0.2],
    })  # fmt: skip
    pairs = list(zip(edges["parent"], edges["child"], strict=True))
    npt.tl.learn_dag(designed, method="given", dag=pairs, genes=genes)
    designed.uns["dag"]["edges"] = edges
    return npt.pl.dag(designed, posterior_key=None, return_fig=True)
