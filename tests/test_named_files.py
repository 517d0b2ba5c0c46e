"""Messages name what the user named: no temporary file beside it, no empty name, no empty list."""

import matplotlib.pyplot as plt
import pytest

import nextpert as npt
from tests._screens import new_copies, small_fit


@new_copies
def planned():
    """A screen with a plan to report and draw."""
    return npt.tl.plan_screen(small_fit(genes=None), "MYC", copy=True)


WRITERS = {
    "report": lambda adata, path: npt.report(adata, path),
    "figure": lambda adata, path: npt.pl.plan_screen(adata, save=path, show=False),
    "campaign": lambda adata, path: npt.Campaign(
        adata, "MYC", learn={"method": "given", "dag": [("MYC", "STK3")]}
    ).save(path),
}
ENDINGS = {"report": "html", "figure": "png", "campaign": "h5ad"}


@pytest.mark.formats
@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.filterwarnings("ignore")
def test_a_file_that_cannot_be_written_is_named_as_the_user_did(kind, planned, tmp_path):
    path = tmp_path / f"there.{ENDINGS[kind]}"
    path.mkdir()
    with pytest.raises(ValueError, match=rf"'{path}' is a folder: name a file in it\.$"):
        WRITERS[kind](planned, path)
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / path.name
    with pytest.raises(ValueError, match=rf"^Cannot write to '{below}': .*file' is not a folder"):
        WRITERS[kind](planned, below)
    long = tmp_path / f"{'x' * 300}.{ENDINGS[kind]}"
    with pytest.raises(ValueError, match=rf"^Cannot write to '{long}' \(File name too long\)"):
        WRITERS[kind](planned, long)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", path.name]
    plt.close("all")


@pytest.mark.formats
def test_no_temporary_file_is_named_where_the_disk_refuses(planned, tmp_path, monkeypatch):
    def fail(self, file, **options):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    path = tmp_path / "figure.png"
    with pytest.raises(PermissionError) as caught:
        npt.pl.plan_screen(planned, save=path, show=False)
    shown = "(Permission denied): check permissions and free space, or name another file."
    assert str(caught.value) == f"Cannot write to {str(path)!r} {shown}"
