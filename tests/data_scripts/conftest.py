"""Fixtures of the tests of ``data_scripts``: its modules, and a server that fails on demand."""

from __future__ import annotations

import http.server
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "data_scripts"
SECRET = "X-Goog-Signature=5ecre7"
BODY = np.random.default_rng(0).bytes(300_000)


@dataclass
class Served:
    """A file of the server and how it is served."""

    body: bytes = BODY
    ranges: bool = True
    honest: bool = True  # whether If-Range is heeded
    etag: str | None = '"one"'
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)  # of the first answers
    cuts: list[int] = field(default_factory=list)  # bytes after which the first bodies stop
    chunked: bool = False


class Handler(http.server.BaseHTTPRequestHandler):
    """Serve ``server.files``, note every request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        path = self.path.split("?")[0].lstrip("/")
        self.server.asked.append((path, self.headers.get("Range")))
        self.server.accepted.append(self.headers.get("Accept-Encoding"))
        self.close_connection = True
        file = self.server.files.get(path)
        status = 404 if file is None else file.statuses.pop(0) if file.statuses else 200
        if status != 200:
            self.send_response(status)
            for name, value in ({} if file is None else file.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = self.headers.get("Range")
        valid = not file.honest or self.headers.get("If-Range") in (None, file.etag)
        start = int(asked[6:-1]) if asked and valid and file.ranges else 0
        if start >= len(file.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(file.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(file, start)

    def _send(self, file, start):
        rest = file.body[start:]
        self.send_response(206 if start else 200)
        if start:
            total = len(file.body)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if file.etag:
            self.send_header("ETag", file.etag)
        for name, value in file.headers.items():
            self.send_header(name, value)
        if file.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in file.headers:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        cut = file.cuts.pop(0) if file.cuts else None
        sent = rest[:cut]
        if file.chunked:
            sent = b"%x\r\n%s\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if cut is None else b"")
        self.wfile.write(sent)


@pytest.fixture
def server():
    """The server: ``files`` to serve, requests as (path, range) in ``asked``, ``url`` of a file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.files, httpd.asked, httpd.accepted = {}, [], []
        httpd.add = lambda path, *args, **kwargs: httpd.files.update(
            {path: Served(*args, **kwargs)}
        )
        httpd.url = lambda path: f"http://127.0.0.1:{httpd.server_address[1]}/{path}?{SECRET}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def scripts(monkeypatch):
    """The modules of ``data_scripts``, which is no package; waits are noted instead of waited."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import _download
    import _portal
    import fetch_perturb_cite_seq as command

    waits = []
    monkeypatch.setattr(_download, "_sleep", waits.append)
    monkeypatch.setattr(_download, "_CHUNK", 10_000)
    return SimpleNamespace(
        download=_download.download, http=_download, portal=_portal, main=command.main,
        command=command, error=_download.DownloadError, waits=waits,
    )  # fmt: skip


STUDY = {
    "SCP1064/other/RNA_expression.csv.gz": b"full",
    "SCP1064/expression/RNA_expression_subset1a.csv.gz": b"1a",
    "SCP1064/expression/RNA_expression_subset2.csv.gz": b"2",
    "SCP1064/metadata/RNA_metadata.csv": b"metadata",
    "SCP1064/documentation/all_sgRNA_assignments.txt": b"guides",
    "SCP1064/other/raw_CITE_expression.csv.gz": b"cite",
    "SCP1064/other/something_else.csv": b"else",
}


@pytest.fixture
def study(server):
    """What the server holds of the study: names and content."""
    for name, body in STUDY.items():
        server.add(name, body)
    return STUDY


@pytest.fixture
def needed():
    """Names of the files that the loader reads, the full expression file first."""
    return [name for name in STUDY if "subset" not in name and "else" not in name]


@pytest.fixture
def configuration(server, study, tmp_path):
    """A configuration as the portal writes it."""
    entries = [f'url="{server.url(name)}"\noutput="{name}"' for name in study]
    manifest = server.url("manifest") + "&include_dirs=false"
    entries.append(f'url="{manifest}"\noutput="SCP1064/file_supplemental_info.tsv"')
    path = tmp_path / "cfg.txt"
    path.write_text("\n\n".join(["--create-dirs", "--compressed", *entries]))
    return path
