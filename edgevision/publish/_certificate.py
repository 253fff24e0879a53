"""How long our own certificate is valid: a broker that refuses an expired one mostly just hangs up, so we have to say why.

Python's `ssl` reads a certificate's dates only of the other side. They stand at a fixed place of the DER form (RFC 5280, 4.1).
"""

from __future__ import annotations

import base64
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_MAX_BYTES = 1 << 20
_EXPLICIT_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18


def validity(pem: bytes) -> tuple[datetime, datetime]:
    """From when until when the first certificate of a PEM file is valid.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("holds no certificate")
    der = base64.b64decode(found[1], validate=False)
    _, at, _ = _element(der, 0)  # Certificate
    _, at, _ = _element(der, at)  # TBSCertificate
    if _element(der, at)[0] == _EXPLICIT_VERSION:
        at = _element(der, at)[2]
    for _ in ("serialNumber", "signature", "issuer"):
        at = _element(der, at)[2]
    _, at, _ = _element(der, at)  # Validity
    begins, at = _time(der, at)
    ends, _ = _time(der, at)
    return begins, ends


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, and where the content begins and ends (X.690, 8.1)."""
    if at + 2 > len(der):
        raise ValueError("ends too soon")
    tag, length, start = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + length > len(der):
        raise ValueError("ends too soon")
    return tag, start, start + length


def _time(der: bytes, at: int) -> tuple[datetime, int]:
    tag, start, end = _element(der, at)
    text = der[start:end].decode("ascii", "replace")
    if tag not in {_UTC_TIME, _GENERALIZED_TIME}:
        raise ValueError("holds no date where one should be")
    if tag == _UTC_TIME:  # two digits of the year; from 50 on they are the last century's (RFC 5280, 4.1.2.5.1)
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc), end


def certificate_problem(cert_file: Path | None, now_ns: int, *, days: int = 0) -> str:
    """What is wrong with the dates of our certificate, in words; empty where nothing is, or where it cannot be read.

    Args:
        cert_file: PEM; None is none.
        now_ns: Unix time.
        days: so many days before its end it is a problem already.
    """
    if cert_file is None:
        return ""
    try:
        with cert_file.open("rb") as stream:
            begins, ends = validity(stream.read(_MAX_BYTES))
    except (OSError, ValueError):
        return ""  # whoever makes a connection of it says so
    now = datetime.fromtimestamp(now_ns / 1e9, tz=timezone.utc)
    if now < begins:
        return f"our certificate {cert_file} is valid from {begins:%Y-%m-%d} on: this machine's clock is probably wrong"
    if now > ends:
        return (
            f"our certificate {cert_file} has expired on {ends:%Y-%m-%d}: renew it (or this machine's clock is wrong)"
        )
    if now > ends - timedelta(days=days):
        return f"our certificate {cert_file} expires on {ends:%Y-%m-%d}, in {(ends - now).days} days: renew it"
    return ""
