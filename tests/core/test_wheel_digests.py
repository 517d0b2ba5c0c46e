"""Compiled forms that came with the wheel are loaded only if they are intact."""

import hashlib
import pickle
from types import SimpleNamespace

from nextpert.core import _compile


def test_a_compiled_form_is_loaded_only_if_its_digest_is_right(tmp_path, monkeypatch):
    content, file = pickle.dumps(("form",)), tmp_path / "kernel"
    file.write_bytes(content)
    monkeypatch.setattr(_compile, "FOLDER", tmp_path)
    rebuild = staticmethod(lambda _context, *parts: parts)
    monkeypatch.setattr(_compile.CompileResult, "_rebuild", rebuild)
    forms = {"float64": [file.name, hashlib.sha256(content).hexdigest()]}
    cache = _compile.WheelCache(None, "", forms)
    vars(cache)["_on_disk"] = SimpleNamespace(load_overload=lambda *_: "compiled here")
    context = SimpleNamespace(refresh=lambda: None)
    assert cache.load_overload("float64", context) == ("form",)
    assert cache.load_overload("int64", context) == "compiled here"
    file.write_bytes(pickle.dumps(("another form",)))
    assert cache.load_overload("float64", context) == "compiled here"
    file.unlink()
    assert cache.load_overload("float64", context) == "compiled here"
