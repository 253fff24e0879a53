"""A camera that nobody can trust has rules without an answer: at once, for good reason, and without waiting for a frame."""

import json
import queue
import threading
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest

from edgevision import assembly, asyncapi, config, documents, messages
from edgevision.capture.images import read_image
from edgevision.clock import SystemClock
from edgevision.errors import CaptureError, InferenceError
from edgevision.runtime.group import ModelGroup
from edgevision.runtime.progress import Board
from edgevision.types import Frame

SCHEMA = jsonschema.Draft202012Validator(asyncapi.json_schemas()["event"])
NS = 10**9


class HeldClock(SystemClock):
    """Time stands until it is moved; waits end at once."""

    def __init__(self):
        self.now_ns = 0

    def monotonic_ns(self):
        return self.now_ns

    def wait(self, event, seconds):
        return event.is_set()


class Hose:
    """A live camera that gives a picture when it is told to, and fails when it is told to."""

    live, unreadable = True, 0

    def __init__(self, orders, image, clock):
        self._orders, self._image, self._clock = orders, image, clock
        self._sequence = 0
        self._failed = False

    def frames(self):
        while (order := self._orders.get()) != "end":
            if order == "fail":
                self._failed = True
                raise CaptureError("the cable is out")
            image = np.zeros_like(self._image) if order == "black" else self._image.copy()
            yield Frame(
                image=image,
                camera="a",
                sequence=self._sequence,
                captured_at_ns=0,
                captured_mono_ns=self._clock.monotonic_ns(),
            )
            self._sequence += 1

    def close(self):
        if not self._failed:
            self._orders.put("end")


class House:
    """One real model with one camera, and what it published."""

    def __init__(self, tmp_path, monkeypatch):
        photo = tmp_path / "photos"
        self.clock = HeldClock()
        self.orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        image = read_image(config.__file__.replace("config/__init__.py", "data/photos/coffee.jpg"))
        made = SimpleNamespace(
            make=lambda _idle: Hose(self.orders, image, self.clock), close=lambda: None, triggers=None
        )
        monkeypatch.setattr(assembly, "SourceMaker", lambda *_, **__: made)
        camera = {
            "name": "a",
            "source": {"type": "synthetic", "live": True},
            "model": "m",
            "stall_after_s": 5,
            "health": {"late_after_s": None, "frozen_after_s": None, "confirm_s": 1, "clear_s": 1},
            "rules": [{"type": "presence", "label": "espresso", "frames": 2, "name": name} for name in ("one", "two")],
        }
        data = {
            "device": "box",
            "sinks": [{"type": "memory"}],
            "models": {"m": {"model": "efficientnet-lite0"}},
            "cameras": [camera],
        }
        settings = config.from_document(documents.Document(file="t", data=data, lines={}), folder=photo, environ={})
        self.published, self._changed = [], threading.Condition()
        self.model = assembly.load_model(
            "efficientnet-lite0", settings=assembly.settings_for(settings.models["m"], settings.cameras)
        )
        self.group = ModelGroup(
            "m",
            self.model,
            composer=messages.Composer(topic="t", device="box", version="0"),
            publish=self._publish,
            clock=self.clock,
            board=Board(self.clock),
            deadline_s=60,
            state_dir=tmp_path,
            tallies={},
        )
        self.camera = self.group.add(settings.cameras[0])

    def _publish(self, message):
        with self._changed:
            self.published.append(message)
            self._changed.notify_all()

    def of(self, topic):
        return [json.loads(message.payload) for message in self.published if message.topic == f"t/box/a/{topic}"]

    def events(self):
        found = self.of("events")
        for event in found:
            SCHEMA.validate(event)
        assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
        return [(event["kind"], event["rule"]) for event in found]

    def show(self, order="picture", *, after_s=0.1):
        """One picture, all the way."""
        self.clock.now_ns += int(after_s * NS)
        results = len(self.of("results"))
        self.orders.put(order)
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of("results")) > results, 20)

    def until(self, condition):
        with self._changed:
            assert self._changed.wait_for(condition, 20)


@pytest.fixture
def house(tmp_path, monkeypatch):
    house = House(tmp_path, monkeypatch)
    house.group.start()
    yield house
    house.group.stop(lambda: 10.0)


BOTH = [("appeared", "one"), ("appeared", "two")]
UNKNOWN = [("unknown", "one"), ("unknown", "two")]


def test_a_stall_takes_the_answers_back_without_a_frame_and_they_return_with_it(house):
    house.show()
    house.show()
    assert house.events() == BOTH
    house.clock.now_ns += 6 * NS
    house.group.check()
    house.group.check()
    assert house.events() == BOTH + UNKNOWN, "at once, and once"
    told = house.of("events")[-1]
    assert (told["camera_state"], told["trusted"], told["reason"]) == ("stalled", False, "no frame for 5 s")
    assert (told["frame"], told["captured_at"], told["model"]["name"]) == (None, None, "efficientnet-lite0")
    assert all(message.durable and message.qos == 1 for message in house.published if message.topic.endswith("/events"))
    house.show()
    assert house.events() == BOTH + UNKNOWN, "one frame is no answer yet"
    house.show()
    assert house.events() == BOTH + UNKNOWN + BOTH


def test_a_camera_that_fails_takes_them_back_and_so_does_a_dark_picture(house):
    house.show()
    house.show()
    house.orders.put("fail")
    house.until(lambda: len(house.of("events")) == 4)
    assert house.of("events")[-1]["reason"] == "the cable is out"
    for _ in range(30):
        house.show()
    assert house.events() == BOTH + UNKNOWN + BOTH
    for number in range(30):
        house.show("black")
        confirmed = number * 0.1 >= 1.0
        assert house.events() == BOTH + UNKNOWN + BOTH + (UNKNOWN if confirmed else []), number
    assert "check the light and the lens" in house.of("events")[-1]["reason"]
    for _ in range(30):
        house.show()
    assert house.events() == BOTH + UNKNOWN + BOTH + UNKNOWN + BOTH


def test_a_frame_in_the_models_hands_when_the_camera_stalls_gives_no_answer(house, monkeypatch):
    house.show()
    entered, gate = threading.Event(), threading.Event()
    whole = house.model.run

    def held(frame):
        entered.set()
        assert gate.wait(20)
        return whole(frame)

    monkeypatch.setattr(house.model, "run", held)
    house.orders.put("picture")
    assert entered.wait(20)
    house.clock.now_ns += 6 * NS
    house.group.check()
    assert house.events() == UNKNOWN
    results = len(house.of("results"))
    gate.set()
    house.until(lambda: len(house.of("results")) > results)
    house.show()
    assert house.events() == UNKNOWN, "the frame of before the stall did not count"
    house.show()
    assert house.events() == UNKNOWN + BOTH


def test_a_model_that_fails_takes_them_back(house, monkeypatch):
    house.show()
    house.show()
    whole = house.model.run

    def failing(frame):
        raise InferenceError("the runtime failed")

    monkeypatch.setattr(house.model, "run", failing)
    house.orders.put("picture")
    house.until(lambda: len(house.of("events")) == 4)
    assert house.events() == BOTH + UNKNOWN
    assert house.of("events")[-1]["reason"] == "model efficientnet-lite0: the runtime failed"
    monkeypatch.setattr(house.model, "run", whole)
    house.show()
    house.show()
    assert house.events() == BOTH + UNKNOWN + BOTH


def test_the_end_takes_them_back(house):
    house.show()
    house.show()
    house.orders.put("end")
    assert house.camera.stopped.wait(20)
    house.until(lambda: [status["camera_state"] for status in house.of("status")][-1:] == ["off"])
    house.group.check()
    assert house.events()[:2] == BOTH
    house.group.stop(lambda: 10.0)
    assert house.events() == BOTH + UNKNOWN
    assert house.of("events")[-1]["reason"] == "the source has ended"
