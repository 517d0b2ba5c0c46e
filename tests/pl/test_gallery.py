"""The gallery of the documentation shows every plot."""

import pytest

import make_gallery
import nextpert as npt

pytestmark = pytest.mark.docs


def test_every_plot_has_a_picture_and_words(designed, tmp_path, monkeypatch):
    assert sorted(make_gallery.PICTURES) == sorted(npt.pl.__all__)
    monkeypatch.setattr(make_gallery, "screen", lambda: designed)
    captions = make_gallery.make(tmp_path / "new")
    assert sorted(captions) == sorted(path.stem for path in (tmp_path / "new").iterdir())
    assert all(caption.endswith(".") for caption in captions.values())
