"""What the tests of snapshots share: a source for a server of theirs, the numbers of its pictures, and its failure in words."""

from itertools import islice
from typing import Any

import pytest
from capture_support import jpeg, number_of, picture
from support_http import give

from edgevision.capture import http_snapshot
from edgevision.capture.base import SourceContext
from edgevision.errors import CaptureError

FAST = 200.0


def source(url: str, *, fps: float | None = FAST, idle: Any = lambda fault: None, **options: Any) -> Any:
    context = SourceContext(camera="line-1", fps=fps, idle=idle)
    return http_snapshot.create(http_snapshot.Options(url=url, **options), context)


def numbers(made: Any, count: int) -> list[int]:
    try:
        return [number_of(frame.image) for frame in islice(made.frames(), count)]
    finally:
        made.close()


def failure_of(made: Any, *, timeout_s: float = 20) -> str:
    with pytest.raises(CaptureError) as caught:
        list(made.frames())
    text = str(caught.value)
    assert "\n" not in text
    return text


def count_up(handler: Any, number: int) -> None:
    give(handler, jpeg(picture(number)))
