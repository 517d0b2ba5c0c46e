"""Requests over https whose addresses never show up in full: signed links are credentials."""

from __future__ import annotations

import email.utils
import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIMEOUT = 60.0  # seconds without a byte
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_WAIT = 120.0
# Of the links of the portal (and of Google's storage behind it) that are too old, or spent.
_EXPIRED = (400, 401, 403, 410)


class DownloadError(Exception):
    """A download that cannot go on; the message says why and what to do."""


@dataclass
class PassingError(Exception):
    """A fault that may be gone after a while."""

    reason: str
    wait: float | None = None  # seconds the server asks for


def redacted(url: str) -> str:
    """Return host and path of an address, without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "an address that cannot be read"
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}{'' if port is None else f':{port}'}{parts.path}"


def check_url(url: str, what: str) -> str:
    """Return the address if it is https, or http to this very machine; else raise."""
    fault = None
    try:
        parts = urlsplit(url)
        scheme, host = parts.scheme.lower(), parts.hostname
        _ = parts.port
        if not host:
            fault = "has no host"
        elif parts.username is not None or parts.password is not None:
            fault = "holds a user name or password"
        elif scheme != "https" and not (scheme == "http" and host in _LOOPBACK):
            fault = f"is {scheme or 'no'}, not https"
    except ValueError:
        fault = "cannot be read"
    if any(ord(c) <= 32 or ord(c) >= 127 or c == "\\" for c in url):
        fault = "holds blanks or other characters that no address holds"
    if fault is not None:
        message = f"The address of {what} {fault}: get it anew from where it came from."
        raise DownloadError(message)
    return url


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https alone."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        check_url(newurl, f"what {redacted(req.full_url)} redirects to")
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            message = f"{redacted(req.full_url)} redirects away from https: refused."
            raise DownloadError(message)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_Redirects)


def get(url: str, what: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """Open an address; the body comes as it is stored, never decoded on the way.

    Raises
    ------
    PassingError
        If trying again may help.
    DownloadError
        If it cannot; the message names host and path only.
    """
    request = urllib.request.Request(
        check_url(url, what), headers={"User-Agent": "nextpert", **(headers or {})}
    )
    where = redacted(url)
    try:
        return _opener.open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        code, wait = error.code, _retry_after(error.headers)
        error.close()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        kind = type(reason).__name__
        # An exception's own text may hold the address.
        raise PassingError(f"{where} cannot be reached ({kind})") from None
    if code in _PASSING:
        raise PassingError(f"{where} answers with status {code}", wait)
    raise _refused(where, what, code, signed=bool(urlsplit(url).query))


def _refused(where: str, what: str, code: int, *, signed: bool) -> DownloadError:
    if code == 416:
        return RangeError(f"{where} has no more bytes than are here.")
    remedy = "check that it is still there."
    if signed and code in _EXPIRED:
        remedy = (
            "the link has expired, or is not for you. The portal's links hold for a day: ask the "
            "portal for a new configuration file and run the same command with it; what is "
            "downloaded so far is kept."
        )
    return DownloadError(f"{what} is refused by {where} (status {code}): {remedy}")


class RangeError(DownloadError):
    """The server says that it has nothing from that byte on."""


def _retry_after(headers: Any) -> float | None:
    text = headers.get("Retry-After") if headers is not None else None
    if not text:
        return None
    if text.strip().isdigit():
        return min(float(text), _LONGEST_WAIT)
    try:
        seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)
