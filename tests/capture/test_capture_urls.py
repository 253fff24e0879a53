from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.capture import opencv
from edgevision.capture._pixels import as_bgr8
from edgevision.capture._urls import redact_url
from edgevision.errors import CaptureError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.5:554/ch1", "rtsp://***@10.0.0.5:554/ch1"),
        ("RTSP://admin@cam/ch1", "RTSP://***@cam/ch1"),
        ("rtsp://admin:p@ss/wo#rd@cam/ch1", "rtsp://***@cam/ch1"),
        ("http://cam/video.cgi?user=admin&pwd=s3cret&fps=5", "http://cam/video.cgi?user=admin&pwd=***&fps=5"),
        ("rtsp://cam/user=admin_password=s3cret_channel=1", "rtsp://cam/user=admin_password=***"),
        ("http://cam/x?access_token=s3cret", "http://cam/x?access_token=***"),
        ("opening rtsp://u:s3cret@cam/1 failed", "opening rtsp://***@cam/1 failed"),
        ("rtsp://cam:554/ch1", "rtsp://cam:554/ch1"),
        ("/data/a.mp4", "/data/a.mp4"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=30))
def test_no_password_is_ever_shown(password: str) -> None:
    shown = redact_url(f"rtsp://operator:{password}@cam/ch1")
    assert shown == "rtsp://***@cam/ch1"


def test_options_do_not_show_the_password() -> None:
    options = opencv.Options(url="rtsp://admin:s3cret@cam/ch1")
    assert "s3cret" not in repr(options)
    assert "s3cret" not in str(options)
    with pytest.raises(ValueError, match="no valid host") as refused:
        opencv.Options(url="rtsp://admin:s3cret@cam:port/ch1")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 6), 200, np.uint8),
        np.full((4, 6, 1), 200, np.uint8),
        np.full((4, 6, 4), 200, np.uint8),
        np.full((4, 6), 200 << 8, np.uint16),
        np.full((4, 6, 3), (200 << 8) + 255, np.uint16),
        np.full((6, 4, 3), 200, np.uint8).transpose(1, 0, 2),
    ],
    ids=["grey", "grey of one channel", "BGRA", "grey of 16 bits", "colour of 16 bits", "not contiguous"],
)
def test_every_format_becomes_bgr(image: Any) -> None:
    converted = as_bgr8(image, source="cam")
    assert converted.shape == (4, 6, 3)
    assert converted.dtype == np.uint8
    assert converted.flags.c_contiguous
    assert (converted == 200).all()


def test_bgr_is_not_copied() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    assert as_bgr8(image, source="cam") is image


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 6, 2), np.uint8), np.zeros((4, 6, 3), np.float32), np.zeros(5, np.uint8), np.zeros((0, 6), np.uint8)],
)
def test_other_formats_are_refused_by_name(image: Any) -> None:
    with pytest.raises(CaptureError, match="cam gives pictures of"):
        as_bgr8(image, source="cam")
