"""What the tests of faults share: the plug-in from outside, a daemon in this process, and who is left afterwards."""

import gc
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from edgevision import config, documents, registry
from edgevision.publish.memory import MemorySink
from edgevision.runtime.service import Service

LONG = os.environ.get("EDGEVISION_CHAOS") == "long"
"""CI runs a short form; the hours are those of benchmarks/soak.py, benchmarks/kills.py and benchmarks/spool."""
only_long = pytest.mark.skipif(not LONG, reason="the long form of the chaos suite: EDGEVISION_CHAOS=long")


def install_plugin(folder: Path, monkeypatch) -> None:
    """Make `type: faulty` a capture plug-in of an installed package."""
    shutil.copy(Path(__file__).with_name("faulty_camera.py"), folder)
    info = folder / "faulty-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[edgevision.capture]\nfaulty = faulty_camera\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "path", list(sys.path))
    registry._outside.cache_clear()


def camera(name, source, **more):
    return {"name": name, "source": source, "model": "m", "stall_after_s": 2.0, **more}


def make(cameras, **more):
    data = {
        "device": "box",
        "sinks": [{"type": "memory"}],
        "models": {"m": {"model": "efficientnet-lite0", "threads": 1}},
        "cameras": cameras,
        **more,
    }
    return config.from_document(documents.Document(file="t", data=data, lines={}), folder=Path(), environ={})


class Ledger(MemorySink):
    """Keeps the content of every message by topic, so that waiting looks at each once."""

    def __init__(self):
        super().__init__(keep=1)
        self.by_topic = {}
        self.told = threading.Condition()

    def publish(self, message):
        super().publish(message)
        with self.told:
            if message.content_type == "application/json":
                topic = message.topic.removeprefix("edgevision/box/")
                self.by_topic.setdefault(topic, []).append(json.loads(message.payload))
            self.told.notify_all()


class House:
    """A running daemon and everything it has said."""

    def __init__(self, settings):
        self.sink = Ledger()
        self.service = Service(settings, extra_sinks={"kept": self.sink})
        self._stopping = threading.Event()
        self._waiter = threading.Thread(target=self.service.wait, args=(self._stopping,))

    def __enter__(self):
        self.service.start()
        self._waiter.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._waiter.join(10)
        self.service.stop()

    def of(self, topic):
        with self.sink.told:
            return list(self.sink.by_topic.get(topic, ()))

    def wait_for(self, topic, wanted, *, after=0, timeout_s=20):
        """The first message of a topic, with a `seq` above `after`, of which `wanted` is true."""
        seen = after  # `seq` counts from 1 without a gap: it is the place in the list

        def look():
            nonlocal seen
            contents = self.sink.by_topic.get(topic, [])
            while seen < len(contents):
                seen += 1
                if wanted(contents[seen - 1]):
                    return contents[seen - 1]
            return None

        with self.sink.told:
            found = self.sink.told.wait_for(look, timeout_s)
        last = [(content["camera_state"], content.get("reason")) for content in self.of(topic)[-5:]]
        assert found is not None, f"{topic}: {last}"
        return found

    def state(self, name, *states, after=0, timeout_s=20):
        """Wait for a camera's state."""
        return self.wait_for(f"{name}/status", lambda c: c["camera_state"] in states, after=after, timeout_s=timeout_s)

    def result(self, name, *, after=0, timeout_s=20):
        """Wait for a camera's result."""
        return self.wait_for(f"{name}/results", lambda _: True, after=after, timeout_s=timeout_s)

    def last_seq(self, topic):
        return len(self.of(topic))

    def reader(self, name):
        """The reader process of a camera."""
        (found,) = [child for child in psutil.Process().children() if comm(child.pid) == f"ev-{name}"]
        return found


def comm(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def open_files():
    """Where our file handles point, but for the runtime's own cache."""
    handles = Path("/proc/self/fd").iterdir()
    found = [str(handle.readlink()) for handle in handles if handle.is_symlink()]
    return sorted(name for name in found if "onnxruntime" not in name and not name.startswith("/proc/"))


def shared_memory():
    return sorted(path.name for path in Path("/dev/shm").iterdir() if path.is_file())


@contextmanager
def nothing_left():
    """No process, thread, file handle or shared memory more than before."""
    gc.collect()  # what an earlier test let go of is gone before we count
    files, threads, segments = open_files(), threading.active_count(), shared_memory()
    yield
    gc.collect()
    assert psutil.Process().children() == []
    assert threading.active_count() == threads
    assert not Counter(open_files()) - Counter(files)
    assert shared_memory() == segments
    assert "edgevision-frames" not in Path("/proc/self/maps").read_text()


def seconds_since(moment_s):
    return time.monotonic() - moment_s
