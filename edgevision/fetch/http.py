"""From a server into a `Part`: what breaks off is asked for again from where it is; what can never come right is an error.

HTTP: RFC 9110, 13.1.5 (If-Range), 14 (Range), 15.4 (redirects). Proxies are urllib's: `https_proxy`, `http_proxy`, `no_proxy`.
"""

from __future__ import annotations

import http.client
import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

from edgevision._version import __version__
from edgevision.clock import Clock
from edgevision.errors import ModelError
from edgevision.fetch.part import CHUNK_BYTES, Part
from edgevision.retry import Backoff

_log = logging.getLogger(__name__)

SILENCE_S = 30.0
"""Without a byte for so long, or with less than `LEAST_BYTES_PER_S`, the line is given up and tried anew."""
LEAST_BYTES_PER_S = 256
MOST_REDIRECTS = 5
TRIES = 5
"""In a row that brought (nearly) nothing; one that brings its share of the file begins the count again."""
SHARE = 0.01


class _BrokenOffError(Exception):
    """This try is over, the next may do better; the text says why."""


@contextmanager
def _line() -> Iterator[None]:
    """Where the source is read: whatever its line raises has broken off; an `OSError` elsewhere is our own disk's."""
    try:
        yield
    except (urllib.error.URLError, TimeoutError):
        raise  # told by `_one_try`
    except OSError as failure:
        raise _BrokenOffError(failure.strerror or str(failure) or type(failure).__name__) from failure


def download(source: str, growing: Part, clock: Clock, backoff: Backoff, silence_s: float) -> None:
    """Bring what is missing, over as many tries as it takes; raises ModelError where it cannot be had."""
    opener = urllib.request.build_opener(_NoRedirects)
    opener.addheaders = [("User-Agent", f"edgevision/{__version__}"), ("Accept-Encoding", "identity")]
    never = threading.Event()
    while growing.done < growing.wanted.size:
        before = growing.done
        try:
            _one_try(opener, source, growing, clock, silence_s)
            why = f"broke off after {growing.done} of {growing.wanted.size} bytes"
        except _BrokenOffError as failure:
            why = str(failure)
        if growing.done >= growing.wanted.size:
            return
        if growing.done - before >= SHARE * growing.wanted.size:
            backoff.reset()
        delay_s = backoff.next_delay_s()
        if backoff.attempts >= TRIES:
            kept = (
                f"; {growing.done} of {growing.wanted.size} bytes are kept: pull again to go on" if growing.done else ""
            )
            raise ModelError(f"{source}: {why}; given up after {TRIES} tries{kept}")
        _log.warning("download is resumed", extra={"fields": {"reason": why, "seconds": round(delay_s, 1)}})
        clock.wait(never, delay_s)


def _one_try(opener: urllib.request.OpenerDirector, source: str, growing: Part, clock: Clock, silence_s: float) -> None:
    """Ask for what is missing and take what comes.

    Raises:
        _BrokenOffError: the line failed, or the server may do better later.
        ModelError: the server has not what is wanted.
    """
    headers = {}
    if growing.done:
        headers["Range"] = f"bytes={growing.done}-"
        if growing.version and not growing.version.startswith("W/"):  # weak ones promise no bytes (RFC 9110, 13.1.5)
            headers["If-Range"] = growing.version
    try:
        with _opened(opener, source, headers, silence_s) as response:
            _check_answer(response, growing)
            for block in _blocks(response, clock, silence_s):
                growing.add(block)
    except urllib.error.HTTPError as failure:
        failure.close()
        if failure.code == 416 and growing.done:  # the file there is shorter than our part
            growing.restart()
            raise _BrokenOffError("the server's file is shorter than the part that was kept") from failure
        if failure.code in {408, 425, 429} or failure.code >= 500:
            raise _BrokenOffError(f"the server says {failure.code} {failure.reason}") from failure
        raise ModelError(f"{source}: the server says {failure.code} {failure.reason}") from failure
    except ModelError as failure:
        text = str(failure)
        raise failure if text.startswith(source) else ModelError(f"{source}: {text}") from failure
    except TimeoutError as failure:
        raise _BrokenOffError(f"no answer for {silence_s:g} s") from failure
    except (urllib.error.URLError, http.client.HTTPException) as failure:
        reason = getattr(failure, "reason", None) or failure
        raise _BrokenOffError(f"{type(reason).__name__ if not str(reason) else reason}") from failure


def _check_answer(response: Any, growing: Part) -> None:
    """Whether what comes is the rest, or the whole, of what is wanted."""
    wanted, headers = growing.wanted.size, response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ModelError(f"the server sends it as {headers['Content-Encoding']}, which was not asked for")
    version = headers.get("ETag", "")
    if response.status == 206:
        told = re.fullmatch(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)", headers.get("Content-Range", ""))
        if not growing.done or told is None or int(told[1]) != growing.done:
            growing.restart()
            raise _BrokenOffError(f"the server sends another range: {headers.get('Content-Range')!r}")
        if version != growing.version and growing.version:
            growing.restart()
            raise _BrokenOffError("the server has another version of it now")
        total = int(told[2]) if told[2] != "*" else wanted
    else:
        if growing.done:  # it knows no ranges, or has another version
            growing.restart()
        length = headers.get("Content-Length", "")
        total = int(length) if re.fullmatch(r"\d{1,19}", length) else wanted
    if total != wanted:
        raise ModelError(f"the server offers {total} bytes, and model.yaml says {wanted}: it is another file")
    if not growing.done:
        growing.note(version)


def _blocks(response: Any, clock: Clock, silence_s: float) -> Iterator[bytes]:
    """What arrives; a trickle counts as silence."""
    began_ns, heard = clock.monotonic_ns(), 0
    while True:
        with _line():
            block = response.read1(CHUNK_BYTES)
        if not block:
            return
        yield block
        heard += len(block)
        passed_s = (clock.monotonic_ns() - began_ns) / 1e9
        if passed_s > silence_s:
            if heard < LEAST_BYTES_PER_S * passed_s:
                raise _BrokenOffError(f"only {heard} bytes in {passed_s:.0f} s")
            began_ns, heard = clock.monotonic_ns(), 0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to `_opened`: urllib would read their whole body, follow them out of https, and to ftp."""

    def http_error_302(self, *_: Any, **__: Any) -> None:
        """None: nobody follows, or so much as reads where it leads."""

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opened(opener: urllib.request.OpenerDirector, source: str, headers: dict[str, str], silence_s: float) -> Any:
    """The answer behind a few redirects, none of which leads out of https or to something that is no web address."""
    address, came_from = source, ""
    for _ in range(MOST_REDIRECTS + 1):
        try:
            request = urllib.request.Request(address, headers=headers)  # noqa: S310  http or https: looked at here and by `fetch`
            with _line():
                return opener.open(request, timeout=silence_s)
        except urllib.error.HTTPError as failure:
            if failure.code not in {301, 302, 303, 307, 308} or not failure.headers.get("Location"):
                raise
            failure.close()
            location = failure.headers["Location"]
        except (
            ValueError,
            http.client.InvalidURL,
        ) as failure:  # not only of `urlsplit`: a name too long, a port that is none
            what = f"{came_from} leads to {address[:200]!r}: that" if came_from else f"{address}: this"
            raise ModelError(f"{what} is no address: {failure}") from failure
        try:
            to = urljoin(address, location)
            before, after = urlsplit(address).scheme.lower(), urlsplit(to).scheme.lower()
        except ValueError as failure:
            raise ModelError(f"{address} leads to {location[:200]!r}: that is no address: {failure}") from failure
        if after not in {"http", "https"} or (before == "https" and after == "http"):
            raise ModelError(f"{address} leads from {before} to {to[:200]}: that is not followed")
        address, came_from = to, address
    raise ModelError(f"redirects more than {MOST_REDIRECTS} times, last to {address[:200]}")
