"""Class maps in messages: masks that COCO's own tools, OpenCV and Pillow read back."""

import io
import warnings
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevision import masks, messages
from edgevision.drawing import draw, palette
from edgevision.messages.png import add_png_text
from edgevision.types import UNSEEN, Classifications, Segmentation


def encode(found, **settings):
    return masks.encode(found, **settings)


def segment_items(found):
    return messages.segment_items(found)


def class_maps(classes=4):
    """Coarse maps spread over more pixels, so that there is something to outline; sometimes noise."""

    def make(seed, height, width, step):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, classes, (height // step + 1, width // step + 1))
        return np.repeat(np.repeat(coarse, step, 0), step, 1)[:height, :width].astype(np.uint8)

    return st.builds(make, st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))


@given(class_maps())
def test_pycocotools_reads_the_masks_back(class_map):
    mask = pytest.importorskip("pycocotools.mask")
    found = Segmentation(background=0, class_map=class_map, labels=("nothing", "a", "b"))
    items = segment_items(found)
    assert {item.class_id for item in items} == set(np.unique(class_map).tolist()) - {0}
    assert len(items) == len(found)
    for item in items:
        own = class_map == item.class_id
        rle = {"size": list(item.rle.size), "counts": item.rle.counts.encode()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its arrays are those of numpy 1
            np.testing.assert_array_equal(mask.decode(rle).astype(bool), own)
        # Its own encoder writes the very same text.
        assert mask.encode(np.asfortranarray(own.astype(np.uint8)))["counts"].decode() == item.rle.counts
        rows, columns = own.nonzero()
        assert item.xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert item.pixels == own.sum()
        assert item.share == pytest.approx(own.mean(), abs=1e-6)
        assert item.label == ("nothing", "a", "b", "class 3")[item.class_id]
    assert [item.pixels for item in items] == sorted((item.pixels for item in items), reverse=True)


@given(class_maps())
def test_opencv_fills_the_outlines_with_the_mask(class_map):
    found = Segmentation(background=0, class_map=class_map)
    for item, whole in zip(encode(found, encoding="polygons"), segment_items(found), strict=True):
        assert item.rle is None
        assert (item.pixels, item.xyxy) == (whole.pixels, whole.xyxy)
        drawn = np.zeros_like(class_map)
        cv2.fillPoly(drawn, [np.array(outline, np.int32).reshape(-1, 1, 2) for outline in item.polygons], 1)
        # A corner of one pixel may be left out: nothing is further away than that.
        near: Any = cv2.dilate((class_map == item.class_id).astype(np.uint8), np.ones((3, 3), np.uint8))
        assert not (drawn & ~near).any()
        wide: Any = cv2.dilate(drawn, np.ones((3, 3), np.uint8))
        assert not ((class_map == item.class_id) & (wide == 0)).any()


@pytest.mark.parametrize("encoding", ["rle", "polygons"])
@pytest.mark.parametrize("max_bytes", [256, 5000, 65536])
def test_masks_never_take_more_than_they_may(encoding, max_bytes):
    noise = np.random.default_rng(0).integers(0, 5, (480, 640)).astype(np.uint8)
    items = encode(Segmentation(background=0, class_map=noise), encoding=encoding, max_bytes=max_bytes)
    assert [item.class_id for item in sorted(items, key=lambda item: item.class_id)] == [1, 2, 3, 4]
    if encoding == "rle":
        assert sum(len(item.rle.counts) for item in items if item.rle) <= max_bytes
        assert all(item.rle and item.rle.size[0] < 480 for item in items)  # coarser, and its size says so
    else:
        assert sum(len(str(item.polygons)) for item in items if item.polygons) <= max_bytes
    assert sum(item.pixels for item in items) == (noise > 0).sum()  # of the picture, however coarse the mask


def test_no_masks_and_other_predictions():
    found = Segmentation(background=0, class_map=np.ones((2, 2), np.uint8))
    (item,) = encode(found, encoding="none")
    assert (item.rle, item.polygons) == (None, None)
    nothing = Classifications(confidence=np.empty(0, np.float32), class_id=np.empty(0, np.int32))
    assert encode(nothing) is None


def test_what_was_not_looked_at_does_not_count():
    class_map = np.array([[UNSEEN, UNSEEN, 1, 0]], np.uint8)
    (item,) = segment_items(Segmentation(background=0, class_map=class_map))
    assert (item.class_id, item.share) == (1, 0.5)
    assert segment_items(Segmentation(background=0, class_map=np.full((2, 2), UNSEEN, np.uint8))) == []
    assert len(Segmentation(background=0, class_map=np.full((2, 2), UNSEEN, np.uint8))) == 0


@given(class_maps(classes=256))
def test_the_png_keeps_the_numbers_and_shows_colours(class_map):
    png = messages.class_map_png(class_map, palette(0))
    picture: Any = Image.open(io.BytesIO(add_png_text(png, b'{"a": "\xc3\xa4"}')))
    picture.load()
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), class_map)
    assert picture.text["edgevision"] == '{"a": "ä"}'
    colors = np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR))
    np.testing.assert_array_equal(colors[..., ::-1], np.array(palette(0), np.uint8)[class_map])


def test_the_text_of_a_png_is_read_back_or_refused():
    png = messages.class_map_png(np.zeros((3, 3), np.uint8), palette(None))
    assert messages.read_png_text(add_png_text(png, b"{}")) == b"{}"
    for bad in (png, b"", b"\x89PNG\r\n\x1a\n", png[:20]):
        with pytest.raises(ValueError, match="does not begin with our text"):
            messages.read_png_text(bad)
    with pytest.raises(ValueError, match="needs a PNG"):
        add_png_text(b"\xff\xd8\xff", b"{}")


def test_drawing_leaves_the_background_as_it_is():
    picture = np.full((200, 300, 3), 90, np.uint8)
    class_map = np.zeros((200, 300), np.uint8)
    class_map[100:150, 50:250] = 3
    class_map[:, 290:] = UNSEEN
    drawn = draw(picture, Segmentation(background=0, class_map=class_map, labels=("nothing", "a", "b", "scratch")))
    assert (picture == 90).all()
    assert (drawn[class_map == UNSEEN] == 90).all()
    assert (drawn[160:, :280] == 90).all()
    color = np.array(palette(0)[3][::-1])
    np.testing.assert_allclose(drawn[120, 100], (90 + color) / 2, atol=1)
    assert (drawn[:30, :60] != 90).any()  # the list of classes
