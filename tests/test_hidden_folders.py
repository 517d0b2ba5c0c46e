"""Temporary folders and locks: what others made is neither deleted nor emptied."""

from __future__ import annotations

from contextlib import suppress

from nextpert._files import alone, hidden_folder


def folder_of(place, name, lock=True):
    folder = place / name
    folder.mkdir()
    (folder / "data.csv").write_text("kept")
    if lock:
        (folder / ".lock").touch()
    return folder


def test_a_hidden_folder_that_is_not_ours_stays(tmp_path):
    with hidden_folder(tmp_path) as made:
        mark = (made / ".nextpert").read_text()
    assert not made.exists()
    plain = folder_of(tmp_path, ".nextpert_mine")
    copied = folder_of(tmp_path, made.name)  # of the same name and mark, but another folder
    folder_of(tmp_path, "elsewhere")
    (tmp_path / ".nextpert_link").symlink_to(tmp_path / "elsewhere")
    (copied / ".nextpert").write_text(f"{mark.rsplit(' ', 1)[0]} 0\n")
    with hidden_folder(tmp_path):
        pass
    for folder in (plain, copied, tmp_path / "elsewhere"):
        assert (folder / "data.csv").read_text() == "kept"


def test_the_folder_of_a_killed_process_is_removed(tmp_path):
    folder = folder_of(tmp_path, ".nextpert_killed")
    inode = folder.stat().st_ino
    (folder / ".nextpert").write_text(f"temporary folder of nextpert: {folder.name} {inode}\n")
    with hidden_folder(tmp_path):
        assert not folder.exists()


def test_a_lock_does_not_follow_a_planted_link(tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    (tmp_path / ".screen.h5ad.lock").symlink_to(victim)
    with suppress(OSError), alone(tmp_path / "screen.h5ad", ValueError("taken")):
        pass
    assert victim.read_text() == "precious"
