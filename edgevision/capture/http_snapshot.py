"""A camera's picture at an address, fetched at an interval: for cameras and servers without a stream, or none worth its load.

The camera's `fps` is the interval (one a second without it). A picture that has not changed, which the server says (304, ETag)
or its bytes show, is no new frame: a camera that repeats itself has stopped looking, and becomes `stalled`; where quiet is
normal, because the server shows the last picture of something that happens now and then, `unchanged: normal` says so.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from datetime import timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from edgevision.capture._http_get import Answer, Getter, make_context
from edgevision.capture._login import LoginOptions, split_login
from edgevision.capture._pacing import NS_PER_S
from edgevision.capture._urls import redact_url
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.capture.images import MAX_FILE_BYTES, decode_image
from edgevision.errors import CaptureError, ImageError
from edgevision.types import Frame

_log = logging.getLogger(__name__)

_DEFAULT_FPS = 1.0
_MAX_BAD = 10
"""Pictures in a row that cannot be decoded: one is a dropped frame, this many are a fault."""

_STATUSES = {
    401: "refuses the user name or password: check username and password_file",
    403: "does not let us have the picture: check the user's rights in the camera",
    404: "knows no such path: check `url` (the camera's manual names its snapshot address)",
    405: "takes no GET there: check `url`",
    429: "says that we ask too often: lower `fps`",
    503: "is overloaded or not ready: lower `fps`, and check who else asks it",
}


class Options(LoginOptions):
    """Where the picture is, and what is accepted as one."""

    url: str
    """http:// or https:// address of a picture."""
    timeout_s: float = Field(5.0, ge=0.1, le=300)
    """For one whole request, from connecting to the last byte."""
    max_bytes: int = Field(16 << 20, ge=1024, le=MAX_FILE_BYTES)
    """Longer answers are refused."""
    ca_file: Path | None = None
    """https: PEM file of the authorities to trust in place of the system's; a camera's own certificate does, too."""
    server_name: str | None = Field(None, min_length=1, max_length=253)
    """https: the name in the certificate, where it is not the host in `url`."""
    time: Literal["arrival", "last_modified"] = "arrival"
    """What is taken for the time of a picture: when it came, or what the server says (by the server's own clock)."""
    unchanged: Literal["fault", "normal"] = "fault"
    """What it means that the same picture comes again."""

    def __repr_args__(self) -> Any:
        """The fields for `repr`, without the address's password."""
        return [(name, redact_url(value) if name == "url" else value) for name, value in super().__repr_args__()]

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        # The texts hold nothing of the address, because it may hold a password.
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:
            raise ValueError(
                "the address has no valid host and port; special characters in a password must be percent-encoded"
            ) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("give an http:// or https:// address; streams are `type: opencv`")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("holds spaces or special characters; percent-encode them")
        return url

    @model_validator(mode="after")
    def _check_tls(self) -> Options:
        given = [name for name in ("ca_file", "server_name") if getattr(self, name) is not None]
        if given and not self.url.startswith("https:"):
            raise ValueError(f"{', '.join(given)}: only for https:// addresses; take it out, or use https")
        return self


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is asked yet."""
    return HttpSnapshotSource(options, context)


class HttpSnapshotSource:
    """Pictures of one address."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        self._options = options
        self._context = context
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._getter: Getter | None = None
        self._validators: dict[str, str] = {}
        self._last = b""
        """Digest of the last picture."""
        self._bad_in_a_row = 0
        self.unreadable = 0
        """Pictures that could not be decoded since the source was made."""

    @property
    def live(self) -> bool:
        """True: what is not fetched in time is gone."""
        return True

    def frames(self) -> Iterator[Frame]:
        """Fetch and yield; see the protocol."""
        clock = self._context.clock
        period_ns = round(NS_PER_S / (self._context.fps or _DEFAULT_FPS))
        getter = self._open()
        due_ns, sequence = clock.monotonic_ns(), 0
        try:
            while not clock.wait(self._closing, (due_ns - clock.monotonic_ns()) / NS_PER_S):
                # What could not be fetched in time is not made up for.
                due_ns = max(due_ns + period_ns, clock.monotonic_ns())
                try:
                    answer = getter.get(self._validators)
                except CaptureError:
                    if self._closing.is_set():
                        return
                    raise
                frame = self._frame(answer, sequence)
                if frame is not None:
                    yield frame
                    sequence += 1
        finally:
            getter.hang_up()

    def close(self) -> None:
        """Stop `frames()`, also in the middle of a request."""
        self._closing.set()
        with self._lock:
            if self._getter is not None:
                self._getter.close()

    def _open(self) -> Getter:
        options = self._options
        url, login = split_login(options.url)
        getter = Getter(
            url,
            login=login or options.login(),
            timeout_s=options.timeout_s,
            max_bytes=options.max_bytes,
            context=make_context(options.ca_file) if url.startswith("https:") else None,
            server_name=options.server_name,
            clock=self._context.clock,
        )
        with self._lock:
            self._getter = getter
        self._validators, self._last, self._bad_in_a_row = {}, b"", 0
        return getter

    def _frame(self, answer: Answer, sequence: int) -> Frame | None:
        """The picture in an answer; None where it is not new, or cannot be decoded."""
        if answer.status == 304:
            self._tell_unchanged()
            return None
        shown = redact_url(self._options.url)
        self._check(answer, shown)
        digest = hashlib.blake2b(answer.body, digest_size=16).digest()
        if digest == self._last:
            self._tell_unchanged()
            return None
        try:
            image = decode_image(answer.body, name=shown)
        except ImageError as failure:
            self.unreadable += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row >= _MAX_BAD:
                raise CaptureError(f"{_MAX_BAD} pictures in a row cannot be used; the last: {failure}") from failure
            if self._bad_in_a_row == 1:
                _log.warning("camera %s: dropped: %s", self._context.camera, failure)
            # At one a minute these many take a while: it is no silence, and the reason is known.
            self._context.idle(str(failure))
            return None
        self._bad_in_a_row, self._last = 0, digest
        tags = {"If-None-Match": answer.headers.get("ETag"), "If-Modified-Since": answer.headers.get("Last-Modified")}
        self._validators = {name: tag for name, tag in tags.items() if tag}
        return Frame(
            image=image,
            camera=self._context.camera,
            sequence=sequence,
            captured_at_ns=self._taken_at_ns(answer),
            captured_mono_ns=answer.mono_ns,
        )

    def _tell_unchanged(self) -> None:
        normal = self._options.unchanged == "normal"
        self._context.idle(
            "" if normal else "the same picture comes again and again; does the camera hang? (unchanged)"
        )

    def _check(self, answer: Answer, shown: str) -> None:
        status = answer.status
        if status != 200:
            words = _STATUSES.get(status, "is out of order" if status >= 500 else "gives no picture: check `url`")
            if status == 401 and self._options.username is None and "@" not in self._options.url:
                words = "asks who we are: set username and password_file"
            raise CaptureError(f"{shown}: {words} (HTTP {status})")
        kind = answer.headers.get_content_type()[:80] if "Content-Type" in answer.headers else "image/*"
        if kind.startswith("multipart/"):
            raise CaptureError(f"{shown}: is a stream ({kind}); read it with `type: opencv`")
        if not kind.startswith("image/") and kind != "application/octet-stream":
            raise CaptureError(f"{shown}: gives {kind}, and no picture: check `url`; is it a page to sign in?")
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise CaptureError(
                f"{shown}: sends {encoding[:40]!r}-encoded pictures, though asked not to: mend the server"
            )

    def _taken_at_ns(self, answer: Answer) -> int:
        text = answer.headers.get("Last-Modified")
        if self._options.time == "arrival" or text is None:
            return answer.at_ns
        try:
            told = parsedate_to_datetime(text)
        except (ValueError, TypeError):
            return answer.at_ns
        if told.tzinfo is None:
            told = told.replace(tzinfo=timezone.utc)
        return min(answer.at_ns, int(told.timestamp()) * NS_PER_S)
