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
