"""Which message is this? What comes over the network is hostile until it has been looked at here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from edgevision.messages import read_jpeg_comment, read_png_text
from edgevision.types import Message

_BOOT_ID = re.compile(r"[0-9a-f]{32}")
_MAX_SEQ = 2**53
"""The largest whole number that every reader of JSON knows exactly."""
_MAX_TEXT = 64
# How a picture begins, its content type, and what finds the JSON in it.
_PICTURES = (
    (b"\xff\xd8", "image/jpeg", read_jpeg_comment),
    (b"\x89PNG", "image/png", read_png_text),
)


class MalformedError(ValueError):
    """Not a message of the contract; the text says why, and holds nothing that the network sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A message that is new."""

    topic: str
    boot_id: str
    seq: int
    published_at: str
    historical: bool
    content: dict[str, Any]
    """The JSON payload; of a picture, the JSON that it carries."""
    message: Message
    """As it came."""


def identify(topic: str, payload: bytes, *, qos: int, retain: bool, max_bytes: int) -> Delivered:
    """Look at a message.

    Raises:
        MalformedError: it is none of the contract's.
    """
    if len(payload) > max_bytes:
        raise MalformedError(f"larger than {max_bytes} bytes")
    content_type, text_of = next(
        ((kind, reader) for sign, kind, reader in _PICTURES if payload.startswith(sign)), ("application/json", bytes)
    )
    try:
        content = json.loads(text_of(payload))
    except (ValueError, RecursionError) as error:
        # Of a ValueError only the kind: its text would repeat the payload.
        raise MalformedError(f"not JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise MalformedError("not a JSON object")
    boot_id, seq, published_at = content.get("boot_id"), content.get("seq"), content.get("published_at")
    if not isinstance(boot_id, str) or not _BOOT_ID.fullmatch(boot_id):
        raise MalformedError("no boot_id of 32 hex digits")
    if type(seq) is not int or not 0 <= seq <= _MAX_SEQ:
        raise MalformedError("no seq that counts")
    if not isinstance(published_at, str) or len(published_at) > _MAX_TEXT:
        raise MalformedError("no published_at")
    message = Message(
        topic=topic,
        payload=payload,
        qos=1 if qos else 0,
        retain=retain,
        content_type=content_type,
    )
    return Delivered(
        topic=topic,
        boot_id=boot_id,
        seq=seq,
        published_at=published_at,
        historical=content.get("historical") is True,
        content=content,
        message=message,
    )
