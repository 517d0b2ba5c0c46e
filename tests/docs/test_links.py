"""The check of links finds what leads nowhere, and nothing else."""

from __future__ import annotations

import pytest

import check_links

pytestmark = pytest.mark.docs

GOOD = """
<a href="#here">1</a> <a href="guides/one.html#a%20part">2</a> <a href="guides">3</a>
<a href="https://example.org/none#x">4</a> <img src="picture.png"> <a href="mailto:a@b.c">5</a>
<h1 id="here">6</h1>
"""
BAD = """
<a href="#nowhere">1</a> <a href="index.html">2</a> <a href="../index.html#none">3</a>
<img src="picture.png"> <a href="../../outside.html">4</a> <h2 id="a part">5</h2>
"""


def test_what_leads_nowhere_is_found(tmp_path):
    site = tmp_path / "site"
    (site / "guides").mkdir(parents=True)
    (tmp_path / "outside.html").write_text("")
    (site / "picture.png").write_bytes(b"")
    (site / "index.html").write_text(GOOD)
    (site / "guides" / "index.html").write_text("")
    (site / "guides" / "one.html").write_text(BAD)
    assert check_links.broken_links(site) == [
        "guides/one.html: #nowhere",
        "guides/one.html: ../index.html#none",
        "guides/one.html: picture.png",
        "guides/one.html: ../../outside.html",
    ]
