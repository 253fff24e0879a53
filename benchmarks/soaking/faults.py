"""What goes wrong in a soak: each fault begins, lasts, and ends, and says what it hits."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from support_cameras import nonsense_camera, silent_camera  # type: ignore[import-not-found]

from soaking.world import MODEL, World

_Step = Callable[[World], None]
_PAUSE = threading.Event()


def _nothing(_world: World) -> None:
    """It is over by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of trouble."""

    name: str
    hits: str
    """`broker`, `disk`, `config`, `consumer`, or `camera:` and its name."""
    lasts_s: float
    begin: _Step
    end: _Step = _nothing
    needs_disk: bool = False


def _forget(world: World) -> None:
    """The broker comes back without a session, a retained message, or anything that waited."""
    world.broker.stop()
    for file in (world.folder / "broker").glob("*.db"):
        file.unlink()


def _cut(world: World) -> None:
    world.network.cut()


def _impostor(kind: Callable[[int], object]) -> tuple[_Step, _Step]:
    """In the camera's place stands something else; then the camera is back."""
    standing: list[object] = []

    def begin(world: World) -> None:
        world.camera.kill()
        standing.append(kind(world.camera.port).__enter__())  # type: ignore[attr-defined]

    def end(world: World) -> None:
        standing.pop().__exit__()  # type: ignore[attr-defined]
        world.camera.start()

    return begin, end


def _camera_restarts(**how: str) -> _Step:
    def begin(world: World) -> None:
        world.camera.kill()
        world.camera.start(**how)

    return begin


def _blow(camera: str, number: signal.Signals) -> _Step:
    def begin(world: World) -> None:
        pid = world.reader_pid(camera)
        if pid is not None:
            os.kill(pid, number)

    return begin


def _reload(world: World) -> None:
    world.daemon.signal(signal.SIGHUP)


def _storm(world: World) -> None:
    """Fifty reloads in two seconds, every other with another config."""
    for number in range(50):
        world.configure(supervision={"stop_deadline_s": 20 + number % 2})
        _reload(world)
        _PAUSE.wait(0.04)
    world.configure()
    _reload(world)


def _bad_config(world: World) -> None:
    world.configure(text=json.dumps(world.config).replace('"cameras"', '"camras"'))
    _reload(world)


def _as_before(world: World) -> None:
    world.configure()
    _reload(world)


def _another_model(world: World) -> None:
    world.configure(models={"m": {"model": MODEL, "threads": 2}})
    _reload(world)


def _another_camera(world: World) -> None:
    more = {"name": "extra", "model": "m", "fps": 5, "source": {"type": "synthetic", "live": True}}
    world.configure(cameras=[*world.config["cameras"], more])
    _reload(world)


def _replace_model(world: World) -> None:
    """Somebody copies another file over the model's, and then asks for a model that has to be loaded anew."""
    for file in (world.models_dir / MODEL).glob("*.onnx"):
        file.with_suffix(".kept").write_bytes(file.read_bytes())
        with file.open("r+b") as weights:  # in place, as `cp` does it
            weights.write(os.urandom(4096))
            weights.truncate(100_000)
    _another_model(world)


def _put_model_back(world: World) -> None:
    for file in (world.models_dir / MODEL).glob("*.kept"):
        file.replace(file.with_suffix(".onnx"))
    _as_before(world)


def _fill_up(world: World) -> None:
    """With the broker away, the journal has to grow; else it writes for long into pages that it has already."""
    world.network.refuse()
    world.disk.fill()


def _free(world: World) -> None:
    world.disk.free()
    world.network.through()


def _faults() -> Iterator[Fault]:
    yield from (
        Fault(
            name="broker stopped in order",
            hits="broker",
            lasts_s=12,
            begin=lambda world: world.broker.stop(),
            end=lambda world: world.broker.start(),
        ),
        Fault(
            name="broker killed",
            hits="broker",
            lasts_s=8,
            begin=lambda world: world.broker.kill(),
            end=lambda world: world.broker.start(),
        ),
        Fault(
            name="broker paused",
            hits="broker",
            lasts_s=15,
            begin=lambda world: world.broker.freeze(),
            end=lambda world: world.broker.thaw(),
        ),
        Fault(
            name="broker restarted with its state lost",
            hits="broker",
            lasts_s=5,
            begin=_forget,
            end=lambda world: world.broker.start(),
        ),
        Fault(
            name="broker refuses",
            hits="broker",
            lasts_s=12,
            begin=lambda world: world.network.refuse(),
            end=lambda world: world.network.through(),
        ),
        Fault(
            name="broker half-open",
            hits="broker",
            lasts_s=15,
            begin=lambda world: world.network.swallow(),
            end=lambda world: world.network.through(),
        ),
        Fault(
            name="broker slow",
            hits="broker",
            lasts_s=20,
            begin=lambda world: world.network.slow(bytes_per_s=15_000, delay_s=0.1),
            end=lambda world: world.network.through(),
        ),
        Fault(name="connection reset", hits="broker", lasts_s=1, begin=_cut),
    )
    for name, kind, lasts_s in (("talks nonsense", nonsense_camera, 8), ("never answers", silent_camera, 12)):
        begin, end = _impostor(kind)
        yield Fault(name=f"camera {name}", hits="camera:dock", lasts_s=lasts_s, begin=begin, end=end)
    yield from (
        Fault(
            name="camera killed",
            hits="camera:dock",
            lasts_s=8,
            begin=lambda world: world.camera.kill(),
            end=lambda world: world.camera.start(),
        ),
        Fault(
            name="camera paused",
            hits="camera:dock",
            lasts_s=10,
            begin=lambda world: world.camera.freeze(),
            end=lambda world: world.camera.thaw(),
        ),
        Fault(
            name="camera's line half-open",
            hits="camera:dock",
            lasts_s=10,
            begin=lambda world: world.camera_network.swallow(),
            end=lambda world: world.camera_network.through(),
        ),
        Fault(
            name="camera's line garbles",
            hits="camera:dock",
            lasts_s=10,
            begin=lambda world: world.camera_network.garble(every=500),
            end=lambda world: world.camera_network.through(),
        ),
        Fault(
            name="camera changes its resolution",
            hits="camera:dock",
            lasts_s=8,
            begin=_camera_restarts(size="640x480"),
            end=_camera_restarts(),
        ),
        Fault(
            name="camera changes its codec",
            hits="camera:dock",
            lasts_s=8,
            begin=_camera_restarts(codec="vp8"),
            end=_camera_restarts(),
        ),
        Fault(name="reader killed", hits="camera:hall", lasts_s=0, begin=_blow("hall", signal.SIGKILL)),
        Fault(name="reader stopped", hits="camera:dock", lasts_s=0, begin=_blow("dock", signal.SIGSTOP)),
        Fault(name="reader segfaults", hits="camera:hall", lasts_s=0, begin=_blow("hall", signal.SIGSEGV)),
        Fault(name="storm of reloads", hits="config", lasts_s=0, begin=_storm),
        Fault(name="bad config", hits="config", lasts_s=5, begin=_bad_config, end=_as_before),
        Fault(name="another model setting", hits="config", lasts_s=8, begin=_another_model, end=_as_before),
        Fault(name="another camera", hits="config", lasts_s=8, begin=_another_camera, end=_as_before),
        Fault(name="model file replaced", hits="config", lasts_s=5, begin=_replace_model, end=_put_model_back),
        Fault(
            name="consumer killed",
            hits="consumer",
            lasts_s=5,
            begin=lambda world: world.consumer.kill(),
            end=lambda world: world.consumer.start(),
        ),
        Fault(
            name="disk full while the broker is away",
            hits="disk",
            lasts_s=15,
            begin=_fill_up,
            end=_free,
            needs_disk=True,
        ),
        Fault(
            name="disk stalls",
            hits="disk",
            lasts_s=10,
            begin=lambda world: world.disk.freeze(),
            end=lambda world: world.disk.thaw(),
            needs_disk=True,
        ),
    )


FAULTS = tuple(_faults())


def draw(seed: int, *, disk: bool, names: list[str] | None = None) -> Iterator[Fault]:
    """Faults for ever: each kind once in a random order, then all of them again in another."""
    chance = random.Random(seed)
    kinds = [fault for fault in FAULTS if (disk or not fault.needs_disk) and (not names or fault.name in names)]
    while True:
        chance.shuffle(kinds)
        yield from kinds
