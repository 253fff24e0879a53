"""The spool on a real disk that fills up and turns read-only: a small tmpfs of the test's own."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support_brokers import Listener, Mosquitto, wait_until
from support_disks import Disk

from edgevision.publish import _spool_keeper
from edgevision.publish._mqtt_sink import MqttSink
from edgevision.publish.base import SinkContext
from edgevision.publish.mqtt import Options
from edgevision.retry import Backoff
from edgevision.types import Message


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def event(number: int) -> Message:
    payload = json.dumps({"n": number, "historical": False, "pad": "x" * 500}).encode()
    return Message(topic="n", payload=payload, qos=1, durable=True)


def spool_of(sink: Any) -> Any:
    return sink.stats.spool


def test_a_disk_that_fills_up_or_turns_read_only_costs_no_message(mosquitto, tmp_path, disk, monkeypatch, caplog):
    monkeypatch.setattr(_spool_keeper, "RETRY_S", 0.1)
    (tmp_path / "broker").mkdir()

    def make_sink() -> MqttSink:
        context = SinkContext(device="d", state_dir=disk / "state")
        options = Options(host="127.0.0.1", port=broker.port)
        return MqttSink(options=options, context=context, backoff=Backoff(first_s=0.02, max_s=0.1))

    with Mosquitto(mosquitto, tmp_path / "broker") as broker, Listener(broker.port, "n") as listener:
        sink = make_sink()
        sink.publish(event(0))
        listener.wait_count(1)
        broker.freeze()
        (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 120 * 1024))
        for number in range(1, 500):
            sink.publish(event(number))
        wait_until(lambda: "database or disk is full" in spool_of(sink).alarm)
        broker.thaw()
        listener.wait_count(500)
        (disk / "filler").unlink()
        wait_until(lambda: spool_of(sink).state == "journal")
        sink.close()
        remount(disk, "ro")
        sink = make_sink()
        sink.publish(event(500))
        listener.wait_count(501)
        assert "Read-only file system" in spool_of(sink).alarm
        remount(disk, "rw")
        wait_until(lambda: spool_of(sink).state == "journal")
        sink.publish(event(501))
        assert sink.flush(10)
        listener.wait_count(502)
        sink.close()
    assert spool_of(sink).saved >= 1
    assert [json.loads(heard.payload)["n"] for heard in listener.heard] == list(range(502))
    assert caplog.text.count("disk is full") == caplog.text.count("Read-only file system") == 1


def test_a_disk_that_stalls_in_the_kernel_holds_up_nobody_but_the_journal(mosquitto, tmp_path):
    """ext4 that is frozen: whoever writes to it sleeps in the kernel, where no timeout and no signal reaches."""
    (tmp_path / "broker").mkdir()
    try:
        disk = Disk(tmp_path).__enter__()
    except OSError as failure:
        pytest.skip(f"needs a disk of its own: {failure}")
    try:
        with Mosquitto(mosquitto, tmp_path / "broker") as broker, Listener(broker.port, "n") as listener:
            context = SinkContext(device="d", state_dir=disk.path / "state")
            sink = MqttSink(options=Options(host="127.0.0.1", port=broker.port), context=context)
            sink.publish(event(0))
            assert sink.flush(10)
            disk.freeze()
            slowest_s, pause = 0.0, threading.Event()
            for number in range(1, 151):
                began_s = time.monotonic()
                sink.publish(event(number))
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                pause.wait(0.02)
            assert slowest_s < 0.5, "publish() never waits for the disk"
            listener.wait_count(151)
            assert "does not answer" in spool_of(sink).alarm
            assert spool_of(sink).state == "memory"
            disk.thaw()
            wait_until(lambda: spool_of(sink).state == "journal" and not spool_of(sink).alarm)
            sink.publish(event(151))
            assert sink.flush(10)
            listener.wait_count(152)
            sink.close()
        assert [json.loads(heard.payload)["n"] for heard in listener.heard] == list(range(152))
        assert sink.stats.dropped == 0
    finally:
        disk.__exit__()
