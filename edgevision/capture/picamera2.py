"""A Raspberry Pi's CSI camera through libcamera, by way of `picamera2`.

`picamera2` and the libcamera under it come from Raspberry Pi OS and fit each other only from there, so an environment has to
see the system's packages. What a camera can be told has libcamera's names (`controls`); what it made of them is read from what
it says of its pictures, and a difference is logged.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from edgevision import documents, registry
from edgevision.capture._live import LiveSource
from edgevision.capture._pacing import NS_PER_S, FramePicker
from edgevision.capture._pixels import as_bgr8
from edgevision.capture.base import FrameSource, SourceContext
from edgevision.errors import CaptureError, PluginError
from edgevision.types import Frame

_log = logging.getLogger(__name__)

_SLICE_S = 0.2
"""`close` is noticed this late."""
_FORMAT = "RGB888"
"""libcamera names it by the word in memory: its bytes are B, G, R."""
_SETTLED = 15
"""Pictures after which what was asked for is what they were taken with: the pipeline is some deep, and control loops run in."""
_OLDEST_NS = 5 * NS_PER_S

Control: TypeAlias = bool | int | float


class Options(registry.Options):
    """Which camera, and how it is set."""

    camera: int | str = 0
    """Number, model (imx477), or libcamera's id."""
    width: int = Field(1280, ge=64, le=16384)
    """Pixels."""
    height: int = Field(720, ge=64, le=16384)
    """Pixels."""
    buffers: int = Field(4, ge=2, le=16)
    """Pictures that libcamera may hold."""
    controls: dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9]{0,63}$")], Control] = Field({}, max_length=50)
    """libcamera's names: {FrameRate: 30.0, ExposureTime: 4000, AnalogueGain: 2.0} fixes rate, exposure (us) and gain."""
    read_timeout_s: float = Field(10.0, gt=0, le=300)
    """How long the next picture may take."""


def create(options: Options, context: SourceContext) -> FrameSource:
    """Make the source; nothing is opened yet.

    Raises:
        PluginError: picamera2 is missing, or the libcamera that it needs.
    """
    _library()
    return Picamera2Source(options, context)


class Picamera2Source(LiveSource):
    """One camera."""

    def __init__(self, options: Options, context: SourceContext) -> None:
        """Keep what it was told."""
        super().__init__(context)
        self._options = options
        self._shown = f"picamera2 {options.camera}"

    def frames(self) -> Iterator[Frame]:
        """Open the camera, and yield its pictures; see the protocol."""
        if self._closing.is_set():
            return
        library = _library()
        try:
            camera = library(self._choose(library))
        except (RuntimeError, IndexError) as failure:
            raise CaptureError(
                f"{self._shown}: cannot be opened: {failure}; does another program have it (`fuser /dev/media*`)?"
            ) from failure
        try:
            self._configure(camera)
            camera.start()
            yield from self._pictures(camera)
        except (RuntimeError, OSError) as failure:
            raise CaptureError(f"{self._shown}: {failure}") from failure
        finally:
            with suppress(RuntimeError, OSError):  # what is broken may not stop; it is closed all the same
                camera.stop()
            camera.close()

    def _choose(self, library: Any) -> int:
        found = library.global_camera_info()
        wanted = self._options.camera
        for number, info in enumerate(found):
            if wanted in {number, info.get("Model"), info.get("Id")}:
                return int(info.get("Num", number))
        known = "; ".join(f"{number} {info.get('Model', '')}" for number, info in enumerate(found)) or "none"
        raise CaptureError(
            f"{self._shown}: is not found; found: {known}. Check the ribbon cable, and `rpicam-hello --list-cameras`"
        )

    def _configure(self, camera: Any) -> None:
        options = self._options
        known = [*camera.camera_controls, "FrameRate"]
        for name in options.controls:
            if name not in known:
                near = documents.near(name, known)
                hint = f"did you mean {near}?" if near else f"known: {', '.join(sorted(known))}"
                raise CaptureError(f"{self._shown}: controls.{name}: the camera has no such control; {hint}")
        size = (options.width, options.height)
        camera.configure(
            camera.create_video_configuration(
                main={"size": size, "format": _FORMAT}, buffer_count=options.buffers, controls=dict(options.controls)
            )
        )
        given = tuple(camera.camera_configuration()["main"]["size"])
        if given != size:
            _log.warning("%s: width, height were asked to be %s, the camera gives %s", self._shown, size, given)

    def _pictures(self, camera: Any) -> Iterator[Frame]:
        clock, picker, sequence, seen = self._context.clock, FramePicker(self._context.fps), 0, 0
        while (request := self._next(camera)) is not None:
            time_ns, mono_ns = clock.time_ns(), clock.monotonic_ns()
            seen += 1
            try:
                about = request.get_metadata()
                image = request.make_array("main") if picker.wanted(mono_ns) else None  # a copy: the buffer goes back
            finally:
                request.release()
            if seen == _SETTLED:
                self._tell_differences(about)
            if image is None:
                continue
            age_ns = _age_ns(about)
            yield Frame(
                image=as_bgr8(image, source=self._shown),
                camera=self._context.camera,
                sequence=sequence,
                captured_at_ns=time_ns - age_ns,
                captured_mono_ns=mono_ns - age_ns,
            )
            sequence += 1

    def _next(self, camera: Any) -> Any:
        """The next picture; None where we are to end. It is asked for once: a request that is given up keeps its buffer."""
        clock = self._context.clock
        asked_ns, job = clock.monotonic_ns(), camera.capture_request(wait=False)
        while not self._closing.is_set():
            try:
                return job.get_result(timeout=_SLICE_S)
            except concurrent.futures.TimeoutError:
                waited_s = (clock.monotonic_ns() - asked_ns) / NS_PER_S
                if waited_s >= self._options.read_timeout_s:
                    raise CaptureError(
                        f"{self._shown}: nothing came for {waited_s:.1f} s (read_timeout_s): check the ribbon cable, the power "
                        "supply, and `dmesg`"
                    ) from None
        return None

    def _tell_differences(self, about: dict[str, Any]) -> None:
        for name, wanted in self._options.controls.items():
            given = about.get(name)
            if name == "FrameRate" and about.get("FrameDuration"):
                given = 1e6 / about["FrameDuration"]
            if isinstance(given, int | float) and abs(given - wanted) > 0.02 * abs(wanted):
                _log.warning("%s: %s was asked to be %s, the camera gives %g", self._shown, name, wanted, given)


def _age_ns(about: dict[str, Any]) -> int:
    """How long ago the sensor began to send the picture; 0 where it cannot be told. libcamera counts from the boot."""
    at_ns = about.get("SensorTimestamp")
    if not isinstance(at_ns, int):
        return 0
    age_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - at_ns
    return age_ns if 0 <= age_ns <= _OLDEST_NS else 0


def _library() -> Any:
    try:
        return importlib.import_module("picamera2").Picamera2
    except (ImportError, AttributeError) as failure:
        raise PluginError(
            f"capture type picamera2 needs picamera2 and the libcamera of Raspberry Pi OS ({failure}): `apt-get install "
            "python3-picamera2`, and make the environment with `python3 -m venv --system-site-packages`"
        ) from failure
