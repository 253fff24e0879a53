"""Answers to a server that asks who we are: HTTP basic (RFC 7617) and digest (RFC 7616; SHA-256 and MD5, qop auth or none).

The password itself goes over the line with basic only, so digest is taken where a server offers both. A digest challenge is
kept and counted on (`nc`), so that a camera that is polled is not asked twice for every picture.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.request import parse_http_list, parse_keqv_list

from edgevision.capture._login import Login

_HASHES: dict[str, Callable[[bytes], str]] = {
    "SHA-256": lambda content: hashlib.sha256(content).hexdigest(),
    "MD5": lambda content: hashlib.md5(content, usedforsecurity=False).hexdigest(),  # what most cameras ask for
}
"""The stronger first."""


@dataclass(slots=True, kw_only=True)
class Challenge:
    """What a server asked for, and how often we have answered it."""

    scheme: str
    """`basic` or `digest`."""
    realm: str = ""
    nonce: str = ""
    algorithm: str = "MD5"
    opaque: str | None = None
    qop: bool = False
    count: int = 0

    def answer(self, login: Login, *, method: str, target: str) -> str:
        """The value of `Authorization` for one request."""
        if self.scheme == "basic":
            return "Basic " + b64encode(f"{login.username}:{login.password}".encode()).decode()
        self.count += 1
        digest = _HASHES[self.algorithm]

        def of(*parts: str) -> str:
            return digest(":".join(parts).encode())

        secret, request = of(login.username, self.realm, login.password), of(method, target)
        fields = {"username": login.username, "realm": self.realm, "nonce": self.nonce, "uri": target}
        bare = {"algorithm": self.algorithm}
        if self.qop:
            count, own = f"{self.count:08x}", secrets.token_hex(8)
            fields |= {"cnonce": own, "response": of(secret, self.nonce, count, own, "auth", request)}
            bare |= {"qop": "auth", "nc": count}
        else:
            fields["response"] = of(secret, self.nonce, request)
        if self.opaque is not None:
            fields["opaque"] = self.opaque
        quoted = [f'{name}="{_escape(value)}"' for name, value in fields.items()]
        return "Digest " + ", ".join(quoted + [f"{name}={value}" for name, value in bare.items()])


def read_challenge(headers: Sequence[str]) -> Challenge | None:
    """The best of what `WWW-Authenticate` headers ask for; None where it is nothing that we know."""
    found: list[Challenge] = []
    for header in headers:
        scheme, _, rest = header.strip().partition(" ")
        if scheme.lower() == "basic":
            found.append(Challenge(scheme="basic"))
        elif scheme.lower() == "digest":
            found += _digest(rest)
    order = list(_HASHES)
    ranked = sorted(found, key=lambda one: (one.scheme == "basic", order.index(one.algorithm)))
    return ranked[0] if ranked else None


def _digest(text: str) -> list[Challenge]:
    pairs = [part for part in parse_http_list(text) if part.partition("=")[2]]
    fields = {name.lower(): value for name, value in parse_keqv_list(pairs).items()}
    algorithm = fields.get("algorithm", "MD5").upper()
    offers = [offer.strip().lower() for offer in fields.get("qop", "").split(",") if offer.strip()]
    if "nonce" not in fields or algorithm not in _HASHES or (offers and "auth" not in offers):
        return []
    return [
        Challenge(
            scheme="digest",
            realm=fields.get("realm", ""),
            nonce=fields["nonce"],
            algorithm=algorithm,
            opaque=fields.get("opaque"),
            qop=bool(offers),
        )
    ]


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
