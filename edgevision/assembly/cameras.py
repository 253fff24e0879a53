"""From the config to the daemon's parts: sources, scenes and sinks, and what a model's cameras ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edgevision import registry
from edgevision.assembly.building import ModelSettings
from edgevision.capture._orient import Oriented
from edgevision.capture._triggered import TriggerBox, Triggered
from edgevision.capture.base import FrameSource, SourceContext, tell_nobody
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.config import CameraSection, Choice, Config, ModelSection
from edgevision.errors import EdgevisionError
from edgevision.events.base import Rule, RuleContext
from edgevision.pipeline import Scene
from edgevision.publish.base import Sink, SinkContext

UNPACED_CAMERA_FPS = 30.0
"""What a live camera is taken to deliver where the config gives no `fps`: it only decides how inference threads wait."""


def settings_for(section: ModelSection, cameras: Iterable[CameraSection]) -> ModelSettings:
    """A config's model section as settings; its cameras tell how many frames per second to expect."""
    asked = [_expected_fps(camera) for camera in cameras]
    return ModelSettings(
        backend=section.backend,
        threads=section.threads,
        confidence=section.confidence,
        iou=section.iou,
        class_agnostic=section.class_agnostic,
        max_detections=section.max_detections,
        top_k=section.top_k,
        classes=None if section.classes is None else tuple(section.classes),
        class_confidence=section.class_confidence,
        backend_options=section.options,
        tiling=section.tiling,
        engines="background",
        # Tiles come in bursts of many inferences, however seldom the frames: no load that is paced.
        expected_fps=None if None in asked or section.tiling else sum(fps for fps in asked if fps is not None),
    )


def _expected_fps(camera: CameraSection) -> float | None:
    if getattr(camera.source.options, "pace", None) == "max":
        return None  # as fast as the model can
    return camera.fps or UNPACED_CAMERA_FPS


class SourceMaker:
    """Makes a camera's sources, one for each try, read in a thread of the daemon or in a process of their own."""

    def __init__(self, camera: CameraSection, *, clock: Clock = SYSTEM_CLOCK) -> None:
        """Makes and imports nothing."""
        self._camera = camera
        self._clock = clock
        self._reader: Reader | None = None
        self.triggers: TriggerBox | None = None
        """Where the camera's triggers come in; None where it needs none."""
        trigger = camera.trigger
        if trigger is not None and trigger.broker is not None:
            self.triggers = TriggerBox(
                trigger.broker, trigger.topic, camera=camera.name, deadline_s=trigger.deadline_s, clock=clock
            )

    def make(self, idle: Callable[[str], None] = tell_nobody) -> FrameSource:
        """A new, unopened source, turned and flipped as its config says; `idle` as in `SourceContext`.

        Raises:
            EdgevisionError: the plug-in's SDK is missing, or it refuses its options.
        """
        source = self._make(idle)
        if self.triggers is None:
            return source
        self.triggers.start()
        return Triggered(source, self.triggers, idle=idle, clock=self._clock)

    def _make(self, idle: Callable[[str], None]) -> FrameSource:
        if self._reader is not None:
            return self._reader.source(idle)
        source = make_source(self._camera, clock=self._clock, idle=idle)
        run = self._camera.reader.run
        if run == "thread" or (run == "auto" and not source.live):
            return source
        # Making a source opens nothing: this one has only been asked what it is.
        live = source.live
        source.close()
        self._reader = self._make_reader(live=live)
        return self._reader.source(idle)

    def close(self) -> None:
        """End what waits for another try."""
        if self.triggers is not None:
            self.triggers.close()
        if self._reader is not None:
            self._reader.close()

    def _make_reader(self, *, live: bool) -> Reader:
        camera, section = self._camera, self._camera.reader
        frame_s = section.deadline_s or 1.5 * stall_after_s(camera)
        return Reader(
            Job(
                camera=camera.name,
                type=camera.source.type,
                options=camera.source.given,
                fps=camera.fps,
                rotation=camera.rotation,
                flip=camera.flip,
                roi=camera.roi,
            ),
            Limits(
                frame_s=frame_s,
                first_frame_s=max(section.open_deadline_s, frame_s),
                memory_bytes=section.memory_mb << 20,
            ),
            live=live,
            clock=self._clock,
        )


def stall_after_s(camera: CameraSection) -> float:
    """Silence that is a stall: a camera that is asked for one frame a minute is not stalled after five seconds."""
    return max(camera.stall_after_s, 2.5 / camera.fps if camera.fps else 0.0)


def make_source(
    camera: CameraSection, *, clock: Clock = SYSTEM_CLOCK, idle: Callable[[str], None] = tell_nobody
) -> FrameSource:
    """A new, unopened source for a camera, turned and flipped as its config says."""
    plugin = registry.load("capture", camera.source.type)
    context = SourceContext(camera=camera.name, fps=camera.fps, clock=clock, idle=idle)
    source: FrameSource = plugin.create(camera.source.options, context)
    return Oriented(source, rotation=camera.rotation, flip=camera.flip, roi=camera.roi)


def make_scene(camera: CameraSection, labels: tuple[str, ...]) -> Scene:
    """A camera's rules."""
    rules: dict[str, Rule] = {}
    for section in camera.rules:
        plugin = registry.load("events", section.rule.type)
        context = RuleContext(camera=camera.name, name=section.name, labels=labels)
        rules[section.name] = plugin.create(section.rule.options, context)
    return Scene(rules, camera=camera.name)


def make_sinks(config: Config, context_for: Callable[[str], SinkContext]) -> dict[str, Sink]:
    """Every sink of the config by name: `mqtt`, and the others by type and number.

    Raises:
        EdgevisionError: one cannot be made; those that were are closed again.
    """
    choices: list[tuple[str, Choice]] = []
    if config.mqtt is not None:
        choices.append(("mqtt", Choice(type="mqtt", options=config.mqtt)))
    choices += [(f"{choice.type}-{number}", choice) for number, choice in enumerate(config.sinks, 1)]
    made: dict[str, Sink] = {}
    try:
        for name, choice in choices:
            made[name] = registry.load("publish", choice.type).create(choice.options, context_for(name))
    except EdgevisionError:
        for sink in made.values():
            sink.close(0.5)
        raise
    return made
