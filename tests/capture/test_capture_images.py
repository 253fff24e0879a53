import logging
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from capture_support import FakeClock, jpeg, number_of, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision.capture import images
from edgevision.capture._header import read_header
from edgevision.capture.base import SourceContext
from edgevision.capture.images import MAX_PIXELS, decode_image, image_files, read_image
from edgevision.errors import CaptureError, ImageError


def encoded(suffix: str, image: Any, *parameters: Any) -> Any:
    done, content = cv2.imencode(suffix, image, list(parameters))
    assert done
    return content.tobytes()


def gradient(height: Any = 48, width: Any = 64, dtype: Any = np.uint8) -> Any:
    image = np.zeros((height, width, 3), dtype)
    image[..., 0] = np.linspace(0, np.iinfo(dtype).max, width)
    image[..., 2] = np.linspace(0, np.iinfo(dtype).max, height)[:, None]
    return image


def png(width: int, height: int, *, depth: Any = 8, color: Any = 2, chunks: Any = (), data: Any = b"") -> Any:
    """A PNG by hand."""

    def chunk(name: bytes, body: Any) -> Any:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*c) for c in chunks) + chunk(
        b"IDAT", zlib.compress(data)
    ) + chunk(b"IEND", b"")  # fmt: skip


LOSSLESS = [
    (".png", ()),
    (".bmp", ()),
    (".tif", ()),
    (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
]


@pytest.mark.parametrize(("suffix", "parameters"), LOSSLESS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (48, 64), (7, 333)])
def test_every_format_gives_its_pixels(tmp_path: Path, suffix: str, parameters: Any, height: int, width: int) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, gradient(height, width), *parameters))
    image = read_image(path)
    assert image.flags.c_contiguous
    np.testing.assert_array_equal(image, gradient(height, width))


@pytest.mark.parametrize("progressive", [0, 1])
def test_jpeg(tmp_path: Path, progressive: Any) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(".jpg", gradient(), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive))
    assert np.abs(read_image(path).astype(int) - gradient()).mean() < 3


def test_grey_alpha_and_16_bit_become_8_bit_bgr() -> None:
    grey = gradient()[..., 0]
    np.testing.assert_array_equal(decode_image(encoded(".png", grey), name="g"), np.dstack([grey] * 3))
    alpha = np.dstack([gradient(), np.full((48, 64), 3, np.uint8)])
    np.testing.assert_array_equal(decode_image(encoded(".png", alpha), name="a"), gradient())
    deep = decode_image(encoded(".png", gradient(dtype=np.uint16)), name="d")
    assert deep.dtype == np.uint8
    assert np.abs(deep.astype(int) - (gradient(dtype=np.uint16) >> 8)).max() <= 1


def test_palette() -> None:
    content = png(2, 1, color=3, chunks=[(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))], data=bytes([0, 0, 1]))
    np.testing.assert_array_equal(decode_image(content, name="p"), [[[0, 0, 255], [255, 0, 0]]])


def test_cmyk(tmp_path: Path) -> None:
    # Adobe's CMYK is stored inverted: 255 is no ink. A flat picture of 8x8 pixels, all white.
    content = _cmyk_white()
    image = decode_image(content, name="cmyk")
    assert image.shape == (8, 8, 3)
    assert image.min() > 250


def _cmyk_white() -> Any:
    """A baseline JPEG of four components, each DC +127 (white in Adobe's inverted CMYK)."""

    def segment(marker: Any, body: Any) -> Any:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    quantisation = segment(0xDB, bytes([0]) + bytes([8] * 64))
    adobe = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0))
    frame = segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3, 4)))
    # One code each: DC category 7 is "0", AC end-of-block is "0".
    huffman = segment(0xC4, bytes([0x00, 1] + [0] * 15 + [7]) + bytes([0x10, 1] + [0] * 15 + [0]))
    scan = segment(0xDA, bytes([4]) + b"".join(bytes([i, 0]) for i in (1, 2, 3, 4)) + bytes([0, 63, 0]))
    bits = ("0" + format(127, "07b") + "0") * 4
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + adobe + quantisation + frame + huffman + scan + data + b"\xff\xd9"


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    content = jpeg(gradient())
    turned = content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    expected = cv2.rotate(decode_image(content, name="a"), cv2.ROTATE_90_CLOCKWISE)
    np.testing.assert_array_equal(decode_image(turned, name="a"), expected)


def image_or_none(content: bytes) -> Any:
    try:
        return decode_image(content, name="any")
    except ImageError as error:
        if not str(error).startswith("any: "):
            raise
        return None


ALL = [(".jpg", ()), (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), *LOSSLESS]


@pytest.mark.parametrize(("suffix", "parameters"), ALL)
def test_a_cut_off_file_is_refused_wherever_it_is_cut(suffix: str, parameters: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    content = encoded(suffix, noise, *parameters)
    whole = decode_image(content, name="whole")
    for length in np.linspace(1, len(content) - 3, 97).astype(int):
        image = image_or_none(content[:length])
        assert image is None or (image == whole).all()  # unless what is missing was no pixel


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_text_says_that_the_end_is_missing(suffix: str) -> None:
    content = encoded(suffix, gradient())
    for length in (len(content) - 2, len(content) // 2, 12):
        with pytest.raises(ImageError, match="cut off"):
            decode_image(content[:length], name="a")


def test_a_thumbnails_end_is_not_the_pictures_end() -> None:
    thumbnail = b"Exif\0\0" + jpeg(picture(1))
    content = jpeg(gradient())
    with_thumbnail = content[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    assert decode_image(with_thumbnail, name="a").shape == (48, 64, 3)
    with pytest.raises(ImageError, match="cut off"):
        decode_image(with_thumbnail[:-100], name="a")


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_header_that_claims_more_than_its_data_can_hold_is_refused(progressive: int) -> None:
    """A decoder takes such a file: 4 KB became 384 MB of grey."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    plain = np.full((1600, 1600, 3), 77, np.uint8)
    content = bytearray(cv2.imencode(".jpg", plain, options)[1].tobytes())
    assert decode_image(bytes(content), name="x").shape == plain.shape  # nothing is smaller than one colour
    at = content.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    content[at + 5 : at + 9] = (11_300).to_bytes(2, "big") * 2
    with pytest.raises(ImageError, match="JPEG file is cut off"):
        decode_image(bytes(content), name="x")


def test_bytes_after_the_end_do_no_harm() -> None:
    assert decode_image(jpeg(gradient()) + b"\0" * 500, name="a").shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n" * 20, "is not a picture"),
        (b"\xff\xd8\xff", "JPEG file is cut off"),
        (b"RIFF" + bytes(4) + b"WEBPVP9 " + bytes(50), "size is 0x0"),
        (b"\xff\xd8\xff\xe0\0\x04\0\0no marker", "JPEG file is cut off"),
        (b"%PDF-1.7" + bytes(200), "is not a picture"),
        (b"RIFF\0\0\0\0WAVEfmt " + bytes(100), "is not a picture"),
        (png(0, 5), "size is 0x5"),
        (b"BM" + bytes(100), "size is 0x0"),
        (png(4, 4, data=b"\x09" * 52), "cannot be decoded"),
    ],
    ids=["empty", "text", "magic only", "unknown WebP", "no marker", "PDF", "sound", "no width", "zeros", "bad filter"],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words) as refused:
        read_image(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "bomb",
    [
        png(100_000, 100_000),
        png(2**31 - 1, 2**31 - 1),
        jpeg(gradient()).replace(struct.pack(">HH", 48, 64), struct.pack(">HH", 65500, 65500)),
        b"BM" + bytes(12) + struct.pack("<Iii", 40, 60_000, -60_000) + bytes(30),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20),
        b"RIFF" + struct.pack("<I", 50) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + b"\xff" * 6 + bytes(30),
        b"II*\0" + struct.pack("<IHHHIIHHII", 8, 2, 256, 4, 1, 50_000, 257, 4, 1, 50_000) + bytes(4),
    ],
    ids=["png", "png most", "jpeg", "bmp", "gif", "webp", "tiff"],
)
def test_a_bomb_is_refused_before_it_is_decoded(bomb: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("was decoded")

    monkeypatch.setattr(cv2, "imdecode", never)
    with pytest.raises(ImageError, match="above the limit of 128 million pixels"):
        decode_image(bomb, name="bomb")


def test_twelve_thousand_by_nine_thousand_is_allowed() -> None:
    header = read_header(png(12_000, 9_000))
    assert header is not None
    assert header.width_px * header.height_px < MAX_PIXELS


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match="above the limit"):
        read_image(path)


def test_missing_folder_and_fifo(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"^{tmp_path}/no.jpg: no such file$"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    (tmp_path / "not-a-folder").write_bytes(b"")
    with pytest.raises(ImageError, match="cannot be read: Not a directory"):
        read_image(tmp_path / "not-a-folder" / "a.jpg")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF",
       b"RIFF\x20\0\0\0WEBPVP8X", b"II*\0", b"MM\0*"]))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_picture_or_an_image_error(tail: Any, head: Any) -> None:
    image = image_or_none(head + tail)
    assert image is None or image.ndim == 3


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_picture_is_a_picture_or_an_image_error(data: Any) -> None:
    suffix, parameters = data.draw(st.sampled_from(LOSSLESS))
    content = bytearray(encoded(suffix, gradient(12, 16), *parameters))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    image = image_or_none(bytes(content))
    assert image is None or (image.dtype == np.uint8 and image.shape[2] == 3)


def test_real_pictures_are_read_as_opencv_reads_them(shared: Path) -> None:
    for path in [*image_files(shared / "images"), *image_files(shared / "images" / "coco-val")[:10]]:
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.skipif(not cv2.haveImageWriter("a.gif"), reason="needs an OpenCV that reads GIF")
def test_gif(shared: Path) -> None:
    assert read_image(shared / "video" / "bolt-multi-size-detection.gif").ndim == 3


# The source


def camera(path: Any, *, fps: Any = None, loop: Any = False, clock: Any = None) -> Any:
    return images.create(
        images.Options(path=path, loop=loop), SourceContext(camera="line-1", fps=fps, clock=clock or FakeClock())
    )


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    for number in (10, 2, 1):
        (tmp_path / f"part{number}.JPG").write_bytes(jpeg(picture(number)))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.jpg").write_text("no picture")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "part3.jpg").write_bytes(jpeg(picture(3)))
    (tmp_path / "folder.jpg").mkdir()
    return tmp_path


def test_a_folder_in_natural_order(folder: Path) -> None:
    frames = list(camera(str(folder)).frames())
    assert [number_of(frame.image) for frame in frames] == [1, 2, 10]
    assert [frame.sequence for frame in frames] == [0, 1, 2]


def test_a_list_keeps_its_order(folder: Path) -> None:
    paths = [str(folder / f"part{number}.JPG") for number in (10, 1)]
    assert [number_of(frame.image) for frame in camera(paths).frames()] == [10, 1]


def test_pace_is_the_cameras_rate(folder: Path) -> None:
    clock = FakeClock()
    frames = list(camera(str(folder), fps=4, clock=clock).frames())
    assert [frame.captured_mono_ns - frames[0].captured_mono_ns for frame in frames] == [0, 250_000_000, 500_000_000]
    clock = FakeClock()
    list(camera(str(folder), clock=clock).frames())
    assert clock.waits_s == []


def test_a_loop_shows_one_a_second_and_sees_new_pictures(folder: Path) -> None:
    clock = FakeClock()
    source = camera(str(folder), loop=True, clock=clock)
    iterator = source.frames()
    numbers = [number_of(next(iterator).image) for _ in range(3)]
    (folder / "part0.png").write_bytes(encoded(".png", picture(0)))
    numbers += [number_of(next(iterator).image) for _ in range(4)]
    source.close()
    assert list(iterator) == []
    assert numbers == [1, 2, 10, 0, 1, 2, 10]
    assert clock.waits_s == [1.0] * 6


def test_an_unreadable_picture_is_skipped_said_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "part3.jpg").write_bytes(b"")
    source = camera(str(folder), loop=True)
    iterator = source.frames()
    with caplog.at_level(logging.WARNING):
        frames = [next(iterator) for _ in range(6)]
    source.close()
    assert [number_of(frame.image) for frame in frames] == [1, 2, 10] * 2
    assert [frame.sequence for frame in frames] == [0, 1, 3, 4, 5, 7]
    assert source.unreadable == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"camera line-1: skipped: {folder}/part3.jpg: is empty (0 bytes)"
    ]


@pytest.mark.parametrize("loop", [False, True])
def test_no_readable_picture_is_an_error(tmp_path: Path, loop: bool) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(b"no")
    with pytest.raises(CaptureError, match=r"none of 2 pictures can be read; the first: .*0\.png: is not a picture"):
        list(camera(str(tmp_path), loop=loop).frames())


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=f"^{tmp_path}: holds no picture; known: .bmp"):
        list(camera(str(tmp_path)).frames())
    with pytest.raises(CaptureError, match=f"^{tmp_path}/x.jpg: no such picture or folder"):
        list(camera([str(tmp_path / "x.jpg")]).frames())
    with pytest.raises(CaptureError, match="cannot be listed"):
        image_files(tmp_path / "x")


@pytest.mark.parametrize("path", ["", " ", [], ["a.jpg", ""], "a\0b"])
def test_an_empty_path_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="path"):
        images.Options(path=path)
