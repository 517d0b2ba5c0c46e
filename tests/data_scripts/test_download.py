"""Downloads: resumed, checked, redacted, and whole or not at all."""

import base64
import gzip
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.processes

BODY = np.random.default_rng(0).bytes(300_000)  # as the server sends unless told otherwise
SECRET = "X-Goog-Signature=5ecre7"


@pytest.mark.parametrize("chunked", [False, True])
def test_goes_on_in_mid_file(scripts, server, tmp_path, chunked):
    server.add("a.csv", cuts=[100_000, 50_000, 1], chunked=chunked)
    scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    ranges = [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert [asked for _, asked in server.asked] == ranges
    assert scripts.waits == [1, 1, 1]  # each time it came farther


def test_a_later_run_goes_on(scripts, server, tmp_path, files_in):
    target = tmp_path / "a.csv"
    server.add("a.csv", cuts=[100_000], statuses=[200, 503, 503])
    with pytest.raises(scripts.http.DownloadError, match=r"given up after 2.*from byte 100000"):
        scripts.download.download(server.url("a.csv"), target, tries=2)
    assert files_in(tmp_path) == ["a.csv.part", "a.csv.part.json"]
    assert SECRET not in (tmp_path / "a.csv.part.json").read_text()
    server.files["a.csv"].statuses.clear()
    scripts.download.download(server.url("a.csv").replace("5ecre7", "another"), target)
    assert target.read_bytes() == BODY
    assert server.asked[-1] == ("a.csv", "bytes=100000-")


def test_a_server_without_ranges_sends_all_again(scripts, server, tmp_path):
    server.add("a.csv", ranges=False, cuts=[100_000, 20_000])
    scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    assert scripts.waits == [1, 2]  # the second time it came no farther


@pytest.mark.parametrize("cuts", [[100_000] * 9, [100_000, 50_000, 100_000, 60_000] * 2])
def test_a_server_that_always_stops_is_given_up(scripts, server, tmp_path, cuts):
    server.add("a.csv", ranges=False, cuts=cuts)
    with pytest.raises(scripts.http.DownloadError, match=r"cut off after \d+ of 300000"):
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv", tries=4)
    assert scripts.waits == [1, 2, 4]
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changed_is_not_pieced_together(scripts, server, tmp_path, honest, monkeypatch):
    """A server may pass over If-Range: then the ETag of the piece tells."""
    target, other = tmp_path / "a.csv", BODY[::-1] + b"more"
    server.add("a.csv", cuts=[100_000])
    with pytest.raises(scripts.http.DownloadError):
        scripts.download.download(server.url("a.csv"), target, tries=1)
    server.add("a.csv", other, etag='"two"')
    if not honest:
        monkeypatch.setattr(
            server.RequestHandlerClass, "_start", lambda self, _: 100_000 if self.range() else 0
        )
        monkeypatch.setattr(
            server.RequestHandlerClass, "range", lambda self: self.headers["Range"], raising=False
        )
    scripts.download.download(server.url("a.csv"), target)
    assert target.read_bytes() == other
    assert len(server.asked) == (2 if honest else 3)


def test_bytes_of_nobody_knows_what_are_not_gone_on_with(scripts, server, tmp_path):
    server.add("a.csv", etag=None)
    (tmp_path / "a.csv.part").write_bytes(b"x" * 1000)
    for note in (None, "{", '{"etag": 3}', "[]", '{"etag": null, "size": 300000}'):
        (tmp_path / "a.csv.part").write_bytes(b"x" * 1000)
        if note is not None:
            (tmp_path / "a.csv.part.json").write_text(note)
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
        assert (tmp_path / "a.csv").read_bytes() == BODY
        assert server.asked[-1] == ("a.csv", None)


@pytest.mark.parametrize("there", [299_999, 300_000, 300_001])
def test_parts_as_long_as_the_file_or_longer(scripts, server, tmp_path, there):
    server.add("a.csv")
    (tmp_path / "a.csv.part").write_bytes((BODY + b"x")[:there])
    for size in (300_000, None):
        server.asked.clear()
        (tmp_path / "a.csv.part").write_bytes((BODY + b"x")[:there])
        scripts.state.State('"one"', size).write(tmp_path / "a.csv.part.json")
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
        assert (tmp_path / "a.csv").read_bytes() == BODY
        ranges = [None if asked is None else int(asked[6:-1]) for _, asked in server.asked]
        if size is None:
            assert ranges == ([there] if there < 300_000 else [there, None])
        else:  # no need to ask for what cannot be
            assert ranges == {299_999: [there], 300_000: [], 300_001: [None]}[there]


def md5_of(body):
    return hashlib.md5(body).hexdigest()


@pytest.mark.parametrize("source", ["expected", "google"])
def test_a_wrong_checksum_is_discarded(scripts, server, tmp_path, source, files_in):
    digest = base64.b64encode(bytes.fromhex(md5_of(BODY))).decode()
    headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={digest}"} if source == "google" else {}
    expected = scripts.state.Expected(md5=md5_of(BODY)) if source == "expected" else None
    flipped = bytes([BODY[0] ^ 1]) + BODY[1:]
    target = tmp_path / "a.csv"
    server.add("a.csv", flipped, headers=headers)
    with pytest.raises(scripts.http.DownloadError, match=r"MD5 checksum differs.*discarded"):
        scripts.download.download(server.url("a.csv"), target, expected=expected)
    assert files_in(tmp_path) == []
    server.add("a.csv", headers=headers)
    scripts.download.download(server.url("a.csv"), target, expected=expected)
    assert target.read_bytes() == BODY
    # Compressed on the way the bytes would be others than those of a checksum known beforehand.
    assert server.accepted[-1] == ("gzip" if source == "google" else "identity")


def test_a_wrong_size_is_refused_before_the_first_byte(scripts, server, tmp_path, files_in):
    server.add("a.csv")
    expected = scripts.state.Expected(size=300_001)
    with pytest.raises(scripts.http.DownloadError, match=r"has 300000 bytes.*should have 300001"):
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv", expected=expected)
    server.files["a.csv"].chunked = True  # only known at the end
    with pytest.raises(scripts.http.DownloadError, match="300000 bytes instead of 300001"):
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv", expected=expected)
    assert files_in(tmp_path) == []


def test_no_length_at_all(scripts, server, tmp_path, monkeypatch):
    server.add("a.csv", headers={"Content-Length": ""})
    url = server.url("a.csv")
    with pytest.raises(scripts.http.DownloadError, match="tells no length"):
        scripts.download.download(url, tmp_path / "a.csv")
    expected = scripts.state.Expected(md5=md5_of(BODY))
    scripts.download.download(url, tmp_path / "a.csv", expected=expected)
    assert (tmp_path / "a.csv").read_bytes() == BODY


def test_a_full_disk_is_seen_beforehand(scripts, server, tmp_path, monkeypatch):
    server.add("a.csv")
    monkeypatch.setattr(scripts.download, "_SPARE", 1 << 60)
    with pytest.raises(scripts.http.DownloadError, match=r"needs \d+ bytes.*make room"):
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")


@pytest.mark.parametrize("cut", [[], [70_000]])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_files_stored_compressed_are_decoded(scripts, server, tmp_path, name, cut, files_in):
    """As the portal stores plain files; what was uploaded as gzip stays gzip."""
    packed = gzip.compress(BODY, 1)
    digest = base64.b64encode(bytes.fromhex(md5_of(packed))).decode()
    headers = {"Content-Encoding": "gzip", "x-goog-hash": f"md5={digest}"}
    server.add(name, packed, headers=headers, cuts=cut)
    scripts.download.download(server.url(name), tmp_path / name)
    assert (tmp_path / name).read_bytes() == (BODY if name == "a.csv" else packed)
    assert files_in(tmp_path) == [name]


def test_corrupted_compressed_files_are_discarded(scripts, server, tmp_path, files_in):
    packed = gzip.compress(BODY, 1)
    for body in (packed[:-9], packed[:100] + b"\0" * 50 + packed[150:], b"no gzip"):
        server.add("a.csv", body, headers={"Content-Encoding": "gzip"})
        with pytest.raises(scripts.http.DownloadError, match="came corrupted"):
            scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
        assert files_in(tmp_path) == []


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_link(scripts, server, tmp_path, status):
    server.add("a.csv", statuses=[status])
    with pytest.raises(scripts.http.DownloadError) as caught:
        scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
    assert re.search(r"expired.*new configuration file.*kept", str(caught.value))
    assert scripts.waits == []  # trying again would not help
    assert SECRET not in str(caught.value)


def test_a_link_to_nothing(scripts, server, tmp_path):
    with pytest.raises(scripts.http.DownloadError, match=r"status 404\): check that it is still"):
        scripts.download.download(server.url("absent.csv"), tmp_path / "absent.csv")
    server.add("a.csv", statuses=[403])
    with pytest.raises(scripts.http.DownloadError, match=r"status 403\): check that it is still"):
        scripts.download.download(server.url("a.csv").split("?")[0], tmp_path / "a.csv")
    assert scripts.waits == []


def test_waits_as_long_as_the_server_asks_for(scripts, server, tmp_path):
    server.add("a.csv", statuses=[429, 503, 500], headers={"Retry-After": "7"})
    scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
    assert scripts.waits == [7, 7, 7]


def test_no_server_there(scripts, tmp_path, caplog):
    url = f"http://127.0.0.1:9/bucket/a.csv?{SECRET}"
    with pytest.raises(scripts.http.DownloadError, match=r"127\.0\.0\.1:9/bucket/a\.csv cannot"):
        scripts.download.download(url, tmp_path / "a.csv", tries=3)
    assert scripts.waits == [1, 2]
    assert "ConnectionRefusedError" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a", "ftp://127.0.0.1/a", "file:///etc/passwd", "//example.org/a", "a",
        "https:///a", "https://me:tops3cret@example.org/a", "https://example.org/a b",
        "https://example.org/a\nb", "https://example.org:port/a", "https://[::1/a",
        "http://127.0.0.1.example.org/a",
    ],
)  # fmt: skip
def test_addresses_that_are_refused(scripts, url):
    with pytest.raises(scripts.http.DownloadError) as caught:
        scripts.http.check_url(f"{url}?{SECRET}", "the file")
    assert SECRET not in str(caught.value)
    assert "tops3cret" not in str(caught.value)


def test_redirects_are_followed_to_safe_places_only(scripts, server, tmp_path):
    server.add("b.csv")
    server.add("a.csv", statuses=[302], headers={"Location": server.url("b.csv")})
    scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == BODY
    for place in (f"http://example.org/?{SECRET}", f"file:///etc/passwd?{SECRET}"):
        server.add("a.csv", statuses=[302], headers={"Location": place})
        with pytest.raises(scripts.http.DownloadError) as caught:
            scripts.download.download(server.url("a.csv"), tmp_path / "other.csv")
        assert SECRET not in str(caught.value)


def test_redaction(scripts):
    redacted = scripts.http.redacted
    assert redacted(f"https://me:word@example.org:8080/b/a.csv?{SECRET}#x") == (
        "example.org:8080/b/a.csv"
    )
    assert redacted(f"http://[::1]:80/a?{SECRET}") == "[::1]:80/a"
    assert redacted(f"https://[bad/a?{SECRET}") == "an address that cannot be read"
    link = scripts.portal.Link(f"https://example.org/a?{SECRET}", ("SCP1064", "a"))
    assert SECRET not in repr(link)


def test_two_at_once_leave_no_holes(scripts, server, tmp_path, monkeypatch, files_in):
    """The second is turned away while the first is at it, and finds nothing in its way later."""
    server.add("a.csv", cuts=[100_000])
    target, seen = tmp_path / "a.csv", []

    def second(_):
        with pytest.raises(scripts.http.DownloadError, match=r"a\.csv is being downloaded by an"):
            scripts.download.download(server.url("a.csv"), target)
        seen.append(scripts.download.size_of(scripts.download.part_of(target)))

    monkeypatch.setattr(scripts.download, "_sleep", second)
    scripts.download.download(server.url("a.csv"), target)
    assert seen == [100_000]
    assert target.read_bytes() == BODY
    assert files_in(tmp_path) == ["a.csv"]


def test_a_lock_that_was_left_behind_is_none(scripts, server, tmp_path, files_in):
    server.add("a.csv")
    (tmp_path / ".a.csv.lock").touch()
    scripts.download.download(server.url("a.csv"), tmp_path / "a.csv")
    assert files_in(tmp_path) == ["a.csv"]


def test_many_processes_at_once(scripts, server, tmp_path, files_in):
    """Each ends with the whole file or is turned away; what stands under the name is whole."""
    server.add("a.csv", np.random.default_rng(1).bytes(3_000_000))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import _download;"
        "_download._CHUNK = 1000; _download.download(sys.argv[2], Path(sys.argv[3]), quiet=True)"
    )
    folder, target = str(Path(scripts.download.__file__).parent), tmp_path / "a.csv"
    command = [sys.executable, "-c", code, folder, server.url("a.csv"), str(target)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    errors = [run.communicate(timeout=60)[1] for run in runs]
    assert any(run.returncode == 0 for run in runs)
    for run, error in zip(runs, errors, strict=True):
        assert run.returncode == 0 or "is being downloaded by another process" in error
    assert target.read_bytes() == server.files["a.csv"].body
    assert files_in(tmp_path) == ["a.csv"]
