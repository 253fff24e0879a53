"""User name and password of a camera: given so that they stand neither in the config's copy nor in a log.

Three ways: `username` and `password_file`, read anew for each connection, so that a changed one needs no restart; `username`
and `password: ${NAME}` from the environment; or both inside the address (`url: ${NAME}` or `url_file`), percent-encoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import ConfigDict, Field, SecretStr, model_validator

from edgevision import registry
from edgevision.errors import CaptureError

_MAX_SECRET_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who we are to a camera."""

    username: str
    password: str = field(repr=False)


class LoginOptions(registry.Options):
    """What the user may set of it; a base of sources' options."""

    # The address may hold a password, which must not come back in pydantic's error texts.
    model_config = ConfigDict(hide_input_in_errors=True)

    username: str | None = Field(None, pattern=r"^[^\x00-\x1f\x7f]{1,256}$")
    password: SecretStr | None = None
    password_file: Path | None = None
    """A file that holds the password; read anew for each connection."""

    @model_validator(mode="after")
    def _check_login(self) -> LoginOptions:
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both given; keep one")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise ValueError("a password is given without username; give both")
        address = getattr(self, "url", None)
        if self.username is not None and isinstance(address, str) and "@" in address.partition("://")[2]:
            raise ValueError("username is given, and the address holds a user name too; keep one")
        return self

    def login(self) -> Login | None:
        """Read the password; None where no `username` is set.

        Raises:
            CaptureError: the file cannot be read.
        """
        if self.username is None:
            return None
        if self.password is not None:
            return Login(username=self.username, password=self.password.get_secret_value())
        if self.password_file is None:
            return Login(username=self.username, password="")
        try:
            with self.password_file.open(encoding="utf-8") as stream:
                text = stream.read(_MAX_SECRET_BYTES + 1)
        except OSError as failure:
            raise CaptureError(f"password_file {self.password_file}: cannot be read: {failure.strerror}") from failure
        except UnicodeDecodeError as failure:
            raise CaptureError(f"password_file {self.password_file}: is not UTF-8 text") from failure
        if len(text) > _MAX_SECRET_BYTES:
            raise CaptureError(f"password_file {self.password_file}: is longer than {_MAX_SECRET_BYTES} characters")
        return Login(username=self.username, password=text.rstrip("\r\n"))


def with_login(url: str, login: Login | None) -> str:
    """The address with the login in it, percent-encoded (RFC 3986, 3.2.1), for libraries that take it from there."""
    if login is None:
        return url
    parts = urlsplit(url)
    who = f"{quote(login.username, safe='')}:{quote(login.password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{who}@{parts.netloc}"))


def split_login(url: str) -> tuple[str, Login | None]:
    """An address without the login that it holds, and that login."""
    parts = urlsplit(url)
    who, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = who.partition(":")
    return urlunsplit(parts._replace(netloc=host)), Login(username=unquote(name), password=unquote(password))
