"""The gallery of the documentation shows every plot."""

import importlib.util
from pathlib import Path

import nextpert as npt

SCRIPT = Path(__file__).parents[2] / "docs" / "make_gallery.py"


def gallery():
    spec = importlib.util.spec_from_file_location("make_gallery", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_plot_has_a_picture_and_words(designed, tmp_path, monkeypatch):
    module = gallery()
    assert sorted(module.PICTURES) == sorted(npt.pl.__all__)
    monkeypatch.setattr(module, "screen", lambda: designed)
    captions = module.make(tmp_path / "new")
    assert sorted(captions) == sorted(path.stem for path in (tmp_path / "new").iterdir())
    assert all(caption.endswith(".") for caption in captions.values())
