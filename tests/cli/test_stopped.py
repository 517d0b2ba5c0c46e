"""A command that is stopped, or finds no room: nothing is left by halves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from nextpert.cli import main

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]


@pytest.fixture
def demo(screen, monkeypatch):
    """Run the demo into a folder beside the screen, up to the graph, which it must not learn."""

    def never(*args, **options):
        raise AssertionError

    def run(out="out"):
        data = ["--data", str(screen), "--target", "MYC", "--combinations", "keep", "--quiet"]
        return main(["demo", *data, "--out", str(screen.parent / out)])

    monkeypatch.setattr("nextpert.tl.learn_dag", never, raising=False)
    return run


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


def test_a_terminated_process_leaves_nothing(screen):
    code = (
        "import sys, time; from nextpert import tl; from nextpert.cli import main; "
        "tl.learn_dag = lambda *args, **options: time.sleep(300); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "demo", "--data", str(screen), "--target", "MYC"]
    command += ["--out", str(screen.parent / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "Learning" in line:
                process.terminate()
                break
        assert process.wait(120) == 143
        assert process.stderr.read().splitlines()[-1] == "nextpert: terminated, nothing written"
    assert list(screen.parent.iterdir()) == [screen]


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
