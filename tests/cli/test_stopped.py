"""A command that is stopped, or finds no room: nothing is left by halves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from nextpert.cli import main

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_leaves_nothing(number, fitted, monkeypatch, capsys):
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # tests that run in the background ignore some
    monkeypatch.setattr("nextpert.cli._run.write_adata", lambda *args: signal.raise_signal(number))
    try:
        assert main(["effects", str(fitted), "--quiet"]) == 128 + number
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    what = "interrupted" if number == signal.SIGINT else "terminated"
    assert capsys.readouterr().err.splitlines()[-1] == f"nextpert: {what}, nothing written"
    assert list(fitted.parent.iterdir()) == [fitted]


def _into(words, place, unbuffered):
    """Run the command with its standard output somewhere."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "nextpert.cli", *map(str, words)],
        env=env | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
        stdout=place,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("words", "unbuffered"), [(["--help"], True), (["effects"], False)])
def test_a_reader_that_has_gone_is_no_error(words, unbuffered, fitted):
    """As with "| head -1", which may end before anything is printed."""
    words = [*words, fitted, "--quiet", "--overwrite"] if words == ["effects"] else words
    ours, theirs = os.pipe()
    os.close(ours)
    done = _into(words, theirs, unbuffered)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "effects" not in words or (fitted.parent / "screen.effects.h5ad").is_file()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_output_is_no_error(closed, fitted):
    command = f'"{sys.executable}" -m nextpert.cli effects "{fitted}" --json {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert (fitted.parent / "screen.effects.h5ad").is_file()
    assert bool(done.stdout) == (closed == "2>&-")


def test_characters_that_an_output_lacks_are_replaced(fitted):
    import anndata as ad

    adata = ad.read_h5ad(fitted)
    adata.obs["perturbation"] = adata.obs["perturbation"].cat.rename_categories({"STK3": "Zürich"})
    path = fitted.with_name("other.h5ad")
    adata.write_h5ad(path)
    words = ["distances", str(path), "--target", "MYC", "--show", "20", "--json"]
    for some in (words[:-1], words):
        done = subprocess.run(
            [sys.executable, "-m", "nextpert.cli", *some, "--overwrite"],
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert some[-1] == "--json" or "Z?rich" in done.stdout
    assert "Zürich" in set(ad.read_h5ad(path.with_name("other.distances.h5ad")).obs["perturbation"])
