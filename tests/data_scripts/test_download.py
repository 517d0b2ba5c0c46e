"""Downloads: resumed, checked, redacted, and complete or not there."""

import base64
import gzip
import hashlib

import numpy as np
import pytest

pytestmark = pytest.mark.processes

BODY = np.random.default_rng(0).bytes(300_000)  # as the server sends unless told otherwise
MD5 = hashlib.md5(BODY).hexdigest()
SECRET = "X-Goog-Signature=5ecre7"


@pytest.fixture
def fetch(scripts, server, tmp_path):
    """Download ``a.csv``, or another file, of the server; return what is there then."""

    def fetch(name="a.csv", **options):
        scripts.download(server.url(name), tmp_path / name, **options)
        return (tmp_path / name).read_bytes()

    return fetch


@pytest.mark.parametrize("chunked", [False, True])
def test_goes_on_in_mid_file(scripts, server, fetch, chunked):
    server.add("a.csv", cuts=[100_000, 50_000, 1], chunked=chunked)
    assert fetch() == BODY
    ranges = [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert [asked for _, asked in server.asked] == ranges
    assert scripts.waits == [1, 1, 1]  # each time it came farther


def test_a_later_run_goes_on(scripts, server, fetch, tmp_path, files_in):
    server.add("a.csv", cuts=[100_000], statuses=[200, 503, 503])
    with pytest.raises(scripts.error, match=r"given up after 2.*from byte 100000"):
        fetch(tries=2)
    assert files_in(tmp_path) == ["a.csv.part", "a.csv.part.etag"]
    assert SECRET not in (tmp_path / "a.csv.part.etag").read_text()
    server.files["a.csv"].statuses.clear()
    assert fetch() == BODY
    assert server.asked[-1] == ("a.csv", "bytes=100000-")
    assert files_in(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("honest", [True, False])
def test_a_file_that_changed_is_not_pieced_together(scripts, server, fetch, honest):
    """A server may pass over If-Range: then the ETag of the piece tells."""
    server.add("a.csv", cuts=[100_000])
    with pytest.raises(scripts.error):
        fetch(tries=1)
    server.add("a.csv", BODY[::-1] + b"more", etag='"two"', honest=honest)
    assert fetch() == BODY[::-1] + b"more"
    assert len(server.asked) == (2 if honest else 3)


@pytest.mark.parametrize("source", ["expected", "google"])
def test_a_wrong_checksum_is_discarded(scripts, server, fetch, tmp_path, source, files_in):
    digest = base64.b64encode(bytes.fromhex(MD5)).decode()
    headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={digest}"} if source == "google" else {}
    md5 = MD5 if source == "expected" else None
    server.add("a.csv", bytes([BODY[0] ^ 1]) + BODY[1:], headers=headers)
    with pytest.raises(scripts.error, match=r"another MD5 checksum.*discarded"):
        fetch(md5=md5)
    assert files_in(tmp_path) == []
    server.add("a.csv", headers=headers)
    assert fetch(md5=md5) == BODY
    # Compressed on the way the bytes would be others than those of a checksum known beforehand.
    assert server.accepted[-1] == ("gzip" if source == "google" else "identity")


@pytest.mark.parametrize("cut", [[], [70_000]])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "twice.csv.gz"])
def test_files_stored_compressed_are_decoded(server, fetch, tmp_path, name, cut, files_in):
    """As the portal stores plain files; what was uploaded as gzip stays gzip."""
    packed = gzip.compress(BODY, 1)
    stored = gzip.compress(packed, 1) if "twice" in name else packed
    digest = base64.b64encode(hashlib.md5(stored).digest()).decode()
    headers = {"Content-Encoding": "gzip", "x-goog-hash": f"md5={digest}"}
    server.add(name, stored, headers=headers, cuts=cut)
    assert fetch(name) == (BODY if name == "a.csv" else packed)
    assert files_in(tmp_path) == [name]


@pytest.mark.parametrize(
    ("status", "signed", "remedy"),
    [(400, True, "expired.*new configuration file.*kept"), (403, True, "expired"),
     (404, True, "check that it is still there"), (403, False, "check that it is still there")],
)  # fmt: skip
def test_refused(scripts, server, tmp_path, status, signed, remedy):
    server.add("a.csv", statuses=[status])
    url = server.url("a.csv")
    with pytest.raises(scripts.error, match=rf"status {status}\).*{remedy}") as caught:
        scripts.download(url if signed else url.split("?")[0], tmp_path / "a.csv")
    assert scripts.waits == []  # trying again would not help
    assert SECRET not in str(caught.value)


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
    with pytest.raises(scripts.error) as caught:
        scripts.http.check_url(f"{url}?{SECRET}", "the file")
    assert SECRET not in str(caught.value)
    assert "tops3cret" not in str(caught.value)


def test_redirects_are_followed_to_safe_places_only(scripts, server, fetch):
    server.add("b.csv")
    server.add("a.csv", statuses=[302], headers={"Location": server.url("b.csv")})
    assert fetch() == BODY
    for place in (f"http://example.org/?{SECRET}", f"file:///etc/passwd?{SECRET}"):
        server.add("a.csv", statuses=[302], headers={"Location": place})
        with pytest.raises(scripts.error, match="redirects to") as caught:
            fetch()
        assert SECRET not in str(caught.value)
