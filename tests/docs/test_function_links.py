"""Functions named as code lead to their page; what only looks like one of ours stays as it is."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

EXT = Path(__file__).parents[2] / "docs" / "_ext"
PAGE = """# Page with `tl.learn_dag`

```{py:function} nextpert.tl.learn_dag(adata)
```
```{py:function} nextpert.report(adata)
```

`tl.learn_dag`, `npt.tl.learn_dag(adata, n_graphs=25)`, `nextpert.report`

- `sc.tl.learn_dag`, `tl.dpt`, `report`, `uns["tl.learn_dag"]`, [`tl.learn_dag`](other.md)
"""


def test_functions_are_linked(tmp_path, monkeypatch):
    pytest.importorskip("myst_parser", reason="the extra docs is not installed")
    application = pytest.importorskip("sphinx.application")
    monkeypatch.syspath_prepend(EXT)
    (tmp_path / "index.md").write_text(PAGE)
    (tmp_path / "other.md").write_text("---\norphan: true\n---\n# Other\n")
    said = io.StringIO()
    app = application.Sphinx(
        tmp_path, None, tmp_path / "out", tmp_path / "tree", "html", warning=said,
        confoverrides={"extensions": ["myst_parser", "function_links"], "default_role": "literal"},
    )  # fmt: skip
    app.build()
    assert said.getvalue() == ""
    html = (tmp_path / "out" / "index.html").read_text()
    paragraph = re.search(r"<p>(<a.*?)</p>", html, re.DOTALL).group(1)
    targets = re.findall(r'<a class="reference internal" href="#([\w.]+)"', paragraph)
    assert targets == ["nextpert.tl.learn_dag"] * 2 + ["nextpert.report"]
    (item,) = re.findall(r"<li><p>(.*?)</p>", html, re.DOTALL)
    assert re.findall('href="(.*?)"', item) == ["other.html"]
