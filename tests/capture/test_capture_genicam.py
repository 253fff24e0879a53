"""GenICam against a real GenTL producer: the one that comes with the `genicam` package, with cameras of a bouncing ball."""

import logging
import sys
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgevision.capture import genicam as source_module
from edgevision.capture.base import SourceContext
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.errors import CaptureError, PluginError

genicam = pytest.importorskip("genicam", reason="needs pip install 'edgevision[genicam]'")
PRODUCER = str(Path(genicam.__file__).with_name("viky.cti"))


def source(*, fps: float | None = None, **options: Any) -> Any:
    given = {"producer": PRODUCER, "device": "VikyTL_DEV_green", **options}
    return source_module.create(source_module.Options(**given), SourceContext(camera="line-1", fps=fps))


def take(made: Any, count: int) -> list[Any]:
    frames = made.frames()
    try:
        return list(islice(frames, count))
    finally:
        made.close()
        frames.close()


def failure_of(made: Any) -> str:
    with pytest.raises(CaptureError) as caught:
        next(made.frames())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("device", "channel"), [("VikyTL_DEV_red", 2), ("VikyTL_DEV_green", 1), ("VikyTL_DEV_blue", 0)]
)
def test_a_colour_camera_gives_bgr(device: str, channel: int) -> None:
    first, second = take(source(device=device), 2)
    assert first.image.shape == (400, 400, 3)
    assert first.image.dtype == np.uint8
    assert [first.sequence, second.sequence] == [0, 1]
    assert first.image.mean((0, 1)).argmax() == channel


def test_settings_are_set_before_the_first_picture() -> None:
    (frame,) = take(source(settings={"PixelFormat": "Mono8", "Width": 200, "Height": 300}), 1)
    assert frame.image.shape == (300, 200, 3)
    assert (frame.image[..., 0] == frame.image[..., 2]).all()


def test_pictures_are_our_own_when_the_buffer_has_gone_back() -> None:
    frames = take(source(settings={"PixelFormat": "Mono8"}), 8)
    assert not np.array_equal(frames[0].image, frames[7].image), "the ball bounces"
    kept = frames[0].image.copy()
    take(source(), 3)
    assert np.array_equal(frames[0].image, kept)


def test_a_difference_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Node:
        """A setting that takes steps of 8, as cameras do."""

        def __init__(self) -> None:
            self.kept = 0

        value = property(lambda self: self.kept, lambda self, value: setattr(self, "kept", value // 8 * 8))

    class Nodes:
        Width = Node()

        def get_node(self, _: str) -> Node:
            return self.Width

    made = source(settings={"Width": 1000})
    with caplog.at_level(logging.WARNING):
        made._set(Nodes(), (ValueError,))
        assert caplog.records == []
        source(settings={"Width": 1001})._set(Nodes(), (ValueError,))
    assert [record.getMessage() for record in caplog.records] == [
        "GenICam VikyTL_DEV_green of viky.cti: Width was asked to be 1001, the camera gives 1000"
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"producer": "/no/such.cti"}, "/no/such.cti: no such GenTL producer; install the camera vendor's software"),
        ({"device": None}, "3 fit; name one in `device`: "),
        ({"device": "4711"}, "is not found; found: "),
        ({"settings": {"Widht": 100}}, "settings.Widht: the camera has no such setting; did you mean Width?"),
        ({"settings": {"Width": 100000}}, "settings.Width: 100000 is refused: Value = 100000 must be equal or smaller"),
        ({"settings": {"PixelFormat": "Pink12"}}, "settings.PixelFormat: 'Pink12' is refused"),
        ({"settings": {"Width": "wide"}}, "settings.Width: 'wide' is refused"),
    ],
)
def test_what_cannot_be_is_told(options: dict[str, Any], words: str) -> None:
    assert words in failure_of(source(**options))


def test_a_file_that_is_no_producer(tmp_path: Path) -> None:
    (tmp_path / "fake.cti").write_bytes(b"not a library")
    assert "fake.cti" in failure_of(source(producer=str(tmp_path / "fake.cti")))


def test_a_setting_keeps_its_type() -> None:
    given = {"A": 1, "B": True, "C": 2.0, "D": "1"}
    kept = source_module.Options(producer="a.cti", settings=given).settings
    assert [(type(value), value) for value in kept.values()] == [(int, 1), (bool, True), (float, 2.0), (str, "1")]


def test_names_that_cannot_be_settings() -> None:
    with pytest.raises(ValidationError):
        source_module.Options(producer="a.cti", settings={"a b": 1})


def test_it_is_opened_again_and_again_in_a_process_of_its_own() -> None:
    limits = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)
    options = {"producer": PRODUCER, "device": "0", "settings": {"PixelFormat": "Mono8"}}
    reader = Reader(Job(camera="a", type="genicam", options=options), limits, live=True)
    for _ in range(2):
        made = reader.source()
        frames = made.frames()
        assert [frame.sequence for frame in islice(frames, 3)] == [0, 1, 2]
        made.close()
        frames.close()  # type: ignore[attr-defined]
    reader.close()


def test_without_harvesters_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(PluginError, match=r"pip install 'edgevision\[genicam\]'"):
        source()


class Part:
    """A picture as a producer hands it over."""

    def __init__(self, data_format: str, pixels: Any) -> None:
        self.data_format = data_format
        self.height, self.width = pixels.shape[:2]
        self.data = pixels.reshape(-1)


class Buffer(AbstractContextManager["Buffer"]):
    def __init__(self, *parts: Part) -> None:
        self.payload = type("Payload", (), {"components": list(parts)})()

    def __exit__(self, *_: object) -> None:
        pass


def test_every_pixel_format_becomes_bgr() -> None:
    made = source()

    def convert(kind: str, pixels: Any) -> Any:
        return made._image(Buffer(Part(kind, np.array(pixels))))

    assert convert("RGB8", np.full((2, 2, 3), (1, 2, 3), np.uint8))[0, 0].tolist() == [3, 2, 1]
    assert convert("BGR8", np.full((2, 2, 3), (1, 2, 3), np.uint8))[0, 0].tolist() == [1, 2, 3]
    assert convert("Mono12", np.full((2, 2), 0xABC, np.uint16))[0, 0].tolist() == [0xAB] * 3
    assert convert("Mono16", np.full((2, 2), 0xABCD, np.uint16))[0, 0].tolist() == [0xAB] * 3
    # A mosaic whose red pixels shine, as the standard names it: the first line begins with the two letters.
    for kind, at in (("BayerRG8", (0, 0)), ("BayerGR8", (0, 1)), ("BayerGB8", (1, 0)), ("BayerBG8", (1, 1))):
        mosaic = np.zeros((8, 8), np.uint8)
        mosaic[at[0] :: 2, at[1] :: 2] = 200
        assert convert(kind, mosaic)[4, 4].argmax() == 2, kind
    assert made._image(Buffer()) is None
    cut = Part("Mono8", np.zeros((4, 4), np.uint8))
    cut.data = cut.data[:10]
    assert made._image(Buffer(cut)) is None
    with pytest.raises(CaptureError, match="gives pixels as Coord3D_ABC32f"):
        convert("Coord3D_ABC32f", np.zeros((2, 2), np.uint8))


def test_pictures_that_are_never_whole_are_no_silence() -> None:
    class Camera:
        def try_fetch(self, timeout: float) -> Buffer:
            return Buffer()

    faults: list[str] = []
    made = source_module.GenicamSource(
        source_module.Options(producer="x.cti"), SourceContext(camera="line-1", idle=faults.append)
    )
    with pytest.raises(CaptureError, match="30 pictures in a row were incomplete"):
        list(made._pictures(Camera()))
    assert made.unreadable == 30
    # Where each waits for a trigger they take a while, in which the reason is known.
    assert faults == ["GenICam camera of x.cti: its pictures are incomplete: the link loses packets"] * 30
