"""A command that is stopped, or finds no room: nothing is left by halves."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import anndata as ad
import numpy as np
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


def stop(*args, **options):
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_leaves_nothing(number, fitted, monkeypatch, capsys):
    usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    before = signal.signal(number, usual)  # tests that run in the background ignore some
    monkeypatch.setattr("nextpert.cli._run.write_screen", lambda *args: signal.raise_signal(number))
    try:
        assert main(["effects", str(fitted), "--quiet"]) == 128 + number
        assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    what = "interrupted" if number == signal.SIGINT else "terminated"
    assert capsys.readouterr().err.splitlines()[-1] == f"nextpert: {what}, nothing written"
    assert list(fitted.parent.iterdir()) == [fitted]


def test_a_signal_that_is_ignored_stays_so(fitted, monkeypatch):
    """As by nohup."""
    hang_up = lambda *args: signal.raise_signal(signal.SIGHUP)  # noqa: E731
    monkeypatch.setattr("nextpert.cli._run.verdict_of", hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["effects", str(fitted), "--quiet"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_during_the_report_says_that_results_are_there(fitted, monkeypatch, capsys):
    monkeypatch.setattr("nextpert.cli._run.json", SimpleNamespace(dumps=stop))
    assert main(["effects", str(fitted), "--quiet", "--json"]) == 143
    assert "terminated, results are written" in capsys.readouterr().err
    assert (fitted.parent / "screen.effects.h5ad").is_file()


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


@pytest.mark.parametrize("place", ["file", "file/below", "out/ranking.csv"])
def test_a_folder_that_cannot_be_is_found_early(place, screen, demo, capsys):
    (screen.parent / "file").write_text("")
    if place == "out/ranking.csv":
        (screen.parent / place).mkdir(parents=True)
        place = "out"
    before = sorted(screen.parent.rglob("*"))
    assert demo(place) == 2
    assert "folder" in capsys.readouterr().err
    assert sorted(screen.parent.rglob("*")) == before


def test_a_folder_without_permission_is_found_early(demo, monkeypatch, capsys):
    """The tests may run as root, to whom no folder is closed."""

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nextpert._files.tempfile.TemporaryDirectory", refuse)
    assert demo() == 2
    assert "(Permission denied): make room there, or name another" in capsys.readouterr().err


def test_a_disk_that_takes_no_more(fitted, brief_command):
    """A limit on the size of files stands for the disk."""
    adata = ad.read_h5ad(fitted)
    adata.obsm["large"] = np.random.default_rng(0).normal(size=(adata.n_obs, 700))
    adata.write_h5ad(fitted, compression="gzip")
    done = subprocess.run(
        [*brief_command, "effects", str(fitted), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21)),
    )
    assert done.returncode == 2, done.stderr
    assert "nextpert: error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3, "HDF5 says nothing of its own"
    assert list(fitted.parent.iterdir()) == [fitted]


def _into(words, place, unbuffered, **options):
    """Run the command with its standard output somewhere."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "nextpert.cli", *map(str, words)],
        env=env | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
        stdout=place,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(("words", "unbuffered"), [(["--help"], True), (["effects"], False)])
def test_a_reader_that_has_gone_or_none_is_no_error(words, unbuffered, fitted):
    """As with "| head -1", which may end before anything is printed, and with ">&-"."""
    words = [*words, fitted, "--quiet", "--overwrite"] if words == ["effects"] else words
    ours, theirs = os.pipe()
    os.close(ours)
    gone = _into(words, theirs, unbuffered)
    os.close(theirs)
    closed = _into(words, None, unbuffered, preexec_fn=lambda: os.close(1))
    for done in (gone, closed):
        assert (done.returncode, done.stderr) == (0, "")
    assert "effects" not in words or (fitted.parent / "screen.effects.h5ad").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", [True, False])
def test_output_that_is_lost_is_an_error(unbuffered):
    with open("/dev/full", "w") as full:
        done = _into(["--version"], full, unbuffered)
    assert done.returncode == 2
    assert done.stderr.count("No space left") == done.stderr.count("\n") == 1


def test_an_error_is_an_error_with_nowhere_to_tell_it():
    done = _into(["fit", "absent.h5ad"], None, False, preexec_fn=lambda: os.close(2))
    assert done.returncode == 2
