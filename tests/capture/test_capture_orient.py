import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.capture import synthetic
from edgevision.capture._orient import Oriented, roi_xyxy
from edgevision.capture.base import SourceContext
from edgevision.errors import CaptureError


def camera(**options: Any) -> Any:
    return synthetic.create(
        synthetic.Options(width=64, height=48, frames=3, pace="max", **options), SourceContext(camera="c")
    )


@pytest.mark.parametrize(
    ("rotation", "flip"), list(itertools.product((0, 90, 180, 270), ("none", "horizontal", "vertical", "both")))
)
def test_turned_then_mirrored(rotation: Any, flip: Any) -> None:
    plain = [frame.image for frame in camera().frames()]
    turned = list(Oriented(camera(), rotation=rotation, flip=flip).frames())
    for before, frame in zip(plain, turned, strict=True):
        expected = np.rot90(before, -rotation // 90)
        expected = expected[:, ::-1] if flip in {"horizontal", "both"} else expected
        expected = expected[::-1] if flip in {"vertical", "both"} else expected
        np.testing.assert_array_equal(frame.image, expected)
        assert frame.image.flags.c_contiguous
    assert [frame.sequence for frame in turned] == [0, 1, 2]


def test_a_roi_follows_a_camera_that_changes_its_size() -> None:
    class Two:
        unreadable = 0
        live = True

        def frames(self) -> Any:
            for width in (64, 32, 64):
                options = synthetic.Options(width=width, height=48, frames=1, pace="max")
                yield from synthetic.create(options, SourceContext(camera="c")).frames()

        def close(self) -> None:
            """Nothing is open."""

    boxes = [frame.roi for frame in Oriented(Two(), roi=(0.5, 0, 1, 1)).frames()]
    assert boxes == [(32, 0, 64, 48), (16, 0, 32, 48), (32, 0, 64, 48)]


def test_nothing_to_do_copies_nothing() -> None:
    class One:
        unreadable = 0
        live = True

        def __init__(self) -> None:
            self.frame = next(iter(camera().frames()))
            self.closed = False

        def frames(self) -> Any:
            yield self.frame

        def close(self) -> None:
            self.closed = True

    one = One()
    wrapped = Oriented(one)
    assert next(iter(wrapped.frames())) is one.frame
    assert next(iter(Oriented(one, rotation=180, flip="both").frames())) is one.frame
    assert next(iter(Oriented(one, roi=(0, 0, 1, 1)).frames())).image is one.frame.image
    assert wrapped.live
    wrapped.close()
    assert one.closed


def test_roi_is_in_the_turned_picture() -> None:
    frame = next(iter(Oriented(camera(), rotation=90, roi=(0.25, 0.5, 0.75, 1.0)).frames()))
    assert frame.image.shape[:2] == (64, 48)
    assert frame.roi == (12, 32, 36, 64)


def test_roi_in_pixels() -> None:
    assert [frame.roi for frame in Oriented(camera(), roi=(8, 4, 64, 48)).frames()] == [(8, 4, 64, 48)] * 3


@pytest.mark.parametrize(
    "roi",
    [(0, 0, 65, 48), (-1, 0, 10, 10), (10, 10, 10, 20), (0.5, 0, 0.2, 1), (-0.1, 0, 1, 1), (float("nan"), 0, 1, 1),
     (float("inf"), 0, 1, 1), (0.5, 0.5, 0.500001, 1)],
)  # fmt: skip
def test_a_roi_that_does_not_fit_says_the_pictures_size(roi: Any) -> None:
    with pytest.raises(CaptureError, match=r"roi \[.*(64x48 pixels: give left < right <= (64|1)|four numbers)"):
        list(Oriented(camera(), roi=roi).frames())


@given(
    st.tuples(*[st.floats(0, 1)] * 4),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
def test_a_fraction_is_in_the_picture_or_refused(roi: Any, width: int, height: int) -> None:
    try:
        left, top, right, bottom = roi_xyxy(roi, width_px=width, height_px=height)
    except CaptureError:
        assert round(roi[0] * width) >= round(roi[2] * width) or round(roi[1] * height) >= round(roi[3] * height)
    else:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
