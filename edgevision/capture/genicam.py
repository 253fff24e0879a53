"""Industrial cameras over GenICam (GigE Vision, USB3 Vision ...), through the vendor's GenTL producer and `harvesters`.

A producer is a `.cti` file that comes with the vendor's software; it is native code of theirs, which is one more reason for the
reader process. What a camera can be told has names in the standard (SFNC), so `settings` are those, as they stand in the
vendor's viewer: set in order, read back, and a difference is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgevision import documents, registry
from edgevision.capture._live import LiveSource
from edgevision.capture._pacing import NS_PER_S, FramePicker
from edgevision.capture._pixels import as_bgr8
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.capture.images import MAX_PIXELS
from edgevision.errors import CaptureError
from edgevision.types import Frame

_log = logging.getLogger(__name__)

_SLICE_S = 0.2
"""How long nothing but the camera is looked at: `close` is noticed this late."""
_MAX_BAD = 30

_CODES: dict[str, int | None] = {
    "Mono8": None, "BGR8": None, "Mono16": None, "BGRa8": cv2.COLOR_BGRA2BGR,
    "RGB8": cv2.COLOR_RGB2BGR, "RGBa8": cv2.COLOR_RGBA2BGR,
    "BayerRG8": cv2.COLOR_BayerRGGB2BGR, "BayerGR8": cv2.COLOR_BayerGRBG2BGR,
    "BayerGB8": cv2.COLOR_BayerGBRG2BGR, "BayerBG8": cv2.COLOR_BayerBGGR2BGR,
}  # fmt: skip
"""Pixel formats (GenICam PFNC 2.4) and what OpenCV makes BGR of them with."""
_SHIFTS = {"Mono10": 6, "Mono12": 4, "Mono14": 2}
"""Unpacked formats of 16 bits, and how far their bits are from the top."""

Setting: TypeAlias = bool | int | float | str


class Options(registry.Options):
    """Which camera, and how it is set."""

    producer: str = Field(min_length=1)
    """The vendor's GenTL producer: path of a .cti file."""
    device: str | None = Field(None, min_length=1)
    """Serial number, id, model or user-defined name; needed where the producer finds several."""
    settings: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,127}$")], Setting] = Field({}, max_length=200)
    """SFNC names and values, set in this order: {PixelFormat: BayerRG8, Width: 1280, ExposureTime: 4000.0}."""
    buffers: int = Field(3, ge=1, le=64)
    """Pictures that the producer may hold."""
    read_timeout_s: float = Field(10.0, gt=0, le=3600)
    """How long the next picture may take."""


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is opened yet.

    Raises:
        PluginError: harvesters is missing.
    """
    registry.require("harvesters.core", package="edgevision[genicam]", purpose="capture type genicam")
    return GenicamSource(options, context)


class GenicamSource(LiveSource):
    """One camera of one producer."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        super().__init__(context)
        self._options = options
        self._shown = f"GenICam {options.device or 'camera'} of {Path(options.producer).name}"

    def frames(self) -> Iterator[Frame]:
        """Open the camera, and yield its pictures; see the protocol."""
        if self._closing.is_set():
            return
        core, errors = _library()
        producer = Path(self._options.producer)
        if not producer.is_file():
            raise CaptureError(
                f"{producer}: no such GenTL producer; install the camera vendor's software, which has it"
            )
        harvester = core.Harvester()
        try:
            harvester.add_file(str(producer))
            harvester.update()
            camera = self._choose(harvester)
            try:
                self._set(camera.remote_device.node_map, errors)
                with suppress(ValueError):  # the producer wants more, and takes them
                    camera.num_buffers = self._options.buffers
                camera.add_callback(camera.Events.INCOMPLETE_BUFFER, self._counter(core))
                camera.start()
                yield from self._pictures(camera)
            finally:
                camera.destroy()
        except errors as failure:
            raise CaptureError(f"{self._shown}: {_one_line(failure)}") from failure
        finally:
            harvester.reset()

    def _choose(self, harvester: Any) -> Any:
        found = harvester.device_info_list
        names = [_names(info) for info in found]
        wanted = self._options.device
        fitting = [index for index, known in enumerate(names) if wanted is None or wanted in known]
        shown = "; ".join("/".join(known) for known in names) or "none"
        if len(fitting) == 1:
            return harvester.create(fitting[0])
        if not fitting:
            raise CaptureError(f"{self._shown}: is not found; found: {shown}. Is it on, and on this network?")
        raise CaptureError(f"{self._shown}: {len(fitting)} fit; name one in `device`: {shown}")

    def _set(self, nodes: Any, errors: Any) -> None:
        known = [name for name in dir(nodes) if name[:1].isupper()]
        for name, value in self._options.settings.items():
            if name not in known:
                near = documents.near(name, known)
                hint = f"did you mean {near}?" if near else "its viewer and manual name them"
                raise CaptureError(f"{self._shown}: settings.{name}: the camera has no such setting; {hint}")
            node = nodes.get_node(name)
            try:
                node.value = value
            except (*errors, TypeError, AttributeError, OverflowError) as failure:
                raise CaptureError(
                    f"{self._shown}: settings.{name}: {value!r} is refused: {_one_line(failure)}"
                ) from failure
        # Read back after all are set: one may move another.
        for name, value in self._options.settings.items():
            given = nodes.get_node(name).value
            same = abs(given - value) <= 0.01 * abs(value) if isinstance(value, float) else given == value
            if not same:
                _log.warning("%s: %s was asked to be %s, the camera gives %s", self._shown, name, value, given)

    def _counter(self, core: Any) -> Any:
        """Told of each picture that `harvesters` throws away, because packets of it are missing."""
        source = self

        class Counter(core.Callback):  # type: ignore[misc]  # only known at run time
            def emit(self, context: Any = None) -> None:  # noqa: ARG002  the base's signature
                source.unreadable += 1

        return Counter()

    def _pictures(self, camera: Any) -> Iterator[Frame]:
        clock, picker = self._context.clock, FramePicker(self._context.fps)
        sequence, told_bad = 0, self.unreadable
        asked_ns = clock.monotonic_ns()
        while not self._closing.is_set():
            buffer = camera.try_fetch(timeout=_SLICE_S)
            time_ns, mono_ns = clock.time_ns(), clock.monotonic_ns()
            bad = self.unreadable - told_bad
            if bad >= _MAX_BAD:
                raise CaptureError(f"{self._shown}: {bad} pictures in a row were incomplete: the link loses packets")
            if buffer is None:
                waited_s = (mono_ns - asked_ns) / NS_PER_S
                if waited_s >= self._options.read_timeout_s:
                    raise CaptureError(
                        f"{self._shown}: nothing whole came for {waited_s:.1f} s (read_timeout_s): does it wait for a trigger "
                        "(TriggerMode), or does the network lose packets (jumbo frames, GevSCPSPacketSize)?"
                    )
                continue
            asked_ns = mono_ns
            with buffer:
                if not picker.wanted(mono_ns):
                    continue
                # The buffer is the producer's again after this: nothing of it may be kept.
                image = self._image(buffer)
            if image is None:
                self.unreadable += 1
                self._context.idle(f"{self._shown}: its pictures are incomplete: the link loses packets")
                continue
            sequence, told_bad = sequence + bad, self.unreadable  # each one that was lost is a gap
            yield Frame(
                image=image,
                camera=self._context.camera,
                sequence=sequence,
                captured_at_ns=time_ns,
                captured_mono_ns=mono_ns,
            )
            sequence += 1

    def _image(self, buffer: Any) -> NDArray[np.uint8] | None:
        parts = buffer.payload.components
        if not parts:
            return None
        part = parts[0]
        width, height, kind = int(part.width), int(part.height), str(part.data_format)
        if kind not in _CODES and kind not in _SHIFTS:
            known = ", ".join([*_CODES, *_SHIFTS])
            raise CaptureError(f"{self._shown}: gives pixels as {kind}; set settings.PixelFormat to one of: {known}")
        if width * height > MAX_PIXELS:
            raise CaptureError(f"{self._shown}: pictures of {width}x{height} are above {MAX_PIXELS} pixels")
        # A camera may send lines that are longer than the picture is wide; what is no whole picture is none.
        flat = part.data
        channels, rest = divmod(flat.size, width * height)
        if rest or channels not in {1, 3, 4}:
            return None
        image = flat.reshape((height, width) if channels == 1 else (height, width, channels))
        if kind in _SHIFTS:
            image = image << _SHIFTS[kind]
        code = _CODES.get(kind)
        made = as_bgr8(image, source=self._shown) if code is None else cv2.cvtColor(image, code)
        return made.copy() if np.shares_memory(made, flat) else cast("NDArray[np.uint8]", made)


def _library() -> tuple[Any, Any]:
    """`harvesters.core`, and the exceptions of GenTL and GenApi."""
    core = registry.require("harvesters.core", package="edgevision[genicam]", purpose="capture type genicam")
    gentl = registry.require("genicam.gentl", package="edgevision[genicam]", purpose="capture type genicam")
    genapi = registry.require("genicam.genapi", package="edgevision[genicam]", purpose="capture type genicam")
    return core, (gentl.GenericException, genapi.GenericException)


def _names(info: Any) -> list[str]:
    """What a device may be called; a producer need not know each of them."""
    found = (info.property_dict.get(key) for key in ("serial_number", "id_", "user_defined_name", "model"))
    return [str(name) for name in found if name]


def _one_line(failure: BaseException) -> str:
    return " ".join(str(failure).split())[:500]
