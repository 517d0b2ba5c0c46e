"""Sphinx builds the documentation from here: ``sphinx-build -W --keep-going -b html docs OUT``.

Pages that follow from something else in the repository (API, gallery, tutorials, benchmarks, the
drawing of the package structure) are made by ``_ext/made_pages.py`` when a build starts, and not
kept in git.
No network is needed, and no notebook is run.
"""

from __future__ import annotations

import os
import sys
import tomllib
from importlib.metadata import version as _version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
# One compiled thread is enough for the gallery's pictures.
os.environ.setdefault("MPLBACKEND", "agg")

# The addresses of repository and pages stand there only (docs/developer/release.md).
_pyproject = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
URLS = _pyproject["project"]["urls"]

project = "nextpert"
author = "nextpert developers"
copyright = author  # no year: a build of the same text gives the same pages
version = release = _version("nextpert")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
    "function_links",
    "made_pages",
    "mathml",
]
exclude_patterns = ["_build", "_ext", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
default_role = "literal"
nitpicky = True  # a name that leads nowhere is an error, but for those of other packages
nitpick_ignore_regex = [
    ("py:(class|obj|data)", ".*"),  # types, as the signatures spell them
    ("py:(func|meth|mod|exc|attr)", "(anndata|scanpy|numpy|pandas|scipy|matplotlib|dask)\\..*"),
]

# Links into other projects' pages need their inventories from the network, and links to the
# repository need a public one: only where the pages are hosted. Elsewhere names are plain text.
HOSTED = os.environ.get("READTHEDOCS") == "True"
if HOSTED:
    extensions += ["sphinx.ext.intersphinx", "sphinx.ext.linkcode"]
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/pandas-docs/stable/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    }

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = False
napoleon_include_init_with_doc = False
napoleon_use_rtype = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
bibtex_bibfiles = sorted(path.name for path in HERE.glob("*.bib"))
bibtex_reference_style = "author_year"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"  # outputs are not copied

html_theme = "sphinx_book_theme"
html_title = "nextpert"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", f"{URLS['Documentation']}/en/stable/")
html_context = {"social_picture": f"{html_baseurl.rstrip('/')}/_static/social.png"}
html_static_path = ["_static"]
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_css_files = ["nextpert.css"]
html_theme_options = {
    "repository_url": URLS["Source"],
    "path_to_docs": "docs",
    "use_repository_button": HOSTED,
    "use_issues_button": HOSTED,
    "use_download_button": False,
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "navbar_persistent": [],  # the search field of the sidebar is enough
}
html_math_renderer = "mathml"
html_search_scorer = str(HERE / "search_scorer.js")  # a path from where Sphinx runs
html_copy_source = False
html_show_sourcelink = False
