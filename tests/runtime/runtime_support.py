"""A daemon in this process, with synthetic cameras, that is listened to and given new configs."""

import json
import threading
from pathlib import Path

from support_brokers import PATIENCE_S, HandClock

from edgevision import config, documents
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options, create
from edgevision.runtime.crashes import SafeMode
from edgevision.runtime.service import Reload, Service


def make(models, folder, **more):
    """A config with one camera for each model, `NAME-eye`."""
    cameras = [{"name": f"{name}-eye", "model": name, "source": {"type": "synthetic"}, "fps": 10} for name in models]
    data = {
        "device": "box",
        "state_dir": str(folder / "state"),
        "sinks": [{"type": "memory"}],
        "models": models,
        "cameras": cameras,
        **more,
    }
    return config.from_document(documents.Document(file="t", data=data, lines={}), folder=Path(), environ={})


class SteppingClock(HandClock):
    """In steps of `step_s` where that is given; what waits is told that its event is set after `last_s`."""

    def __init__(self, last_s, *, step_s=None, on_step=lambda now_s: None):
        super().__init__()
        self._last_s, self._step_s, self._on_step = last_s, step_s, on_step

    @property
    def now_s(self):
        return self.now_ns // 10**9

    def wait(self, event, seconds):
        is_set = super().wait(event, self._step_s or seconds)
        self._on_step(self.now_s)
        return is_set or self.now_s > self._last_s


class Watched:
    """A running daemon."""

    def __init__(self, settings):
        self._sink = create(Options(keep=100_000), SinkContext(device="box"))
        self.service = Service(settings, extra_sinks={"kept": self._sink})
        self._stopping, self._asked = threading.Event(), threading.Event()
        self._next = settings
        self._thread = threading.Thread(target=self._wait)
        self._old: set[int] = set()

    def _wait(self):
        self.service.wait(self._stopping, reload=Reload(requested=self._asked, load=lambda: (self._next, SafeMode())))

    def __enter__(self):
        self.service.start()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(PATIENCE_S)
        self.service.stop()

    def reload(self, settings):
        """Hand a new config over; only what is published from now on is waited for."""
        self._old = set(map(id, self._sink.messages))
        self._next = settings
        self._asked.set()

    def wait_for(self, topic, predicate=lambda told: True):
        """The first message of a topic, since the last reload, for which `predicate` is true, as JSON."""
        found = []

        def fits(message):
            if message.topic != f"edgevision/box/{topic}" or id(message) in self._old:
                return False
            told = json.loads(message.payload)
            if predicate(told):
                found.append(told)
            return bool(found)

        self._sink.wait_for(fits, timeout_s=PATIENCE_S * 2)
        return found[0]
