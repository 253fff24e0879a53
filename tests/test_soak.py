"""The soak's own sums: a leak is seen, a loss is laid at the right door, a fault that does not heal is told."""

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from support_mqtt_tap import Tap

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

judging = importlib.import_module("soaking.judging")
watching = importlib.import_module("soaking.watching")
faults = importlib.import_module("soaking.faults")

BOOT = "ab" * 16


def samples(mb_per_hour, *, minutes=60):
    one = watching.Sample(
        time_s=0, pss_mb=0, own_mb=0, daemon_own_mb=0, processes=3, threads=16, files=33, daemon_threads=12, daemon_files=20,
        segments=2,
    )  # fmt: skip
    return [
        replace(one, time_s=second, own_mb=100 + mb_per_hour * second / 3600 + (second % 7) / 10)
        for second in range(0, minutes * 60, 5)
    ]


def test_a_leak_is_told_from_noise():
    leak = judging.slope(samples(5.0), lambda taken: taken.own_mb, after_s=600)
    assert abs(leak["per_hour"] - 5.0) < 0.2
    assert leak["per_hour"] - leak["interval"] > 1.0
    flat = judging.slope(samples(0.0), lambda taken: taken.own_mb, after_s=600)
    assert abs(flat["per_hour"]) < 0.2


def packet(first, body):
    return bytes([first, len(body)]) + body


def publication(seq, identifier):
    topic = b"t/results"
    payload = json.dumps({"boot_id": BOOT, "seq": seq}).encode()
    return packet(0x32, len(topic).to_bytes(2, "big") + topic + identifier.to_bytes(2, "big") + b"\0" + payload)


CONNECT_5 = packet(0x10, b"\0\4MQTT\5\2\0\x1e\0\0\1c")


def test_the_tap_knows_what_a_broker_has_acknowledged():
    tap = Tap()
    up = CONNECT_5 + publication(1, 7) + publication(2, 8) + publication(3, 9)
    for at in range(len(up)):  # in whatever pieces it comes
        tap(1, "up", up[at : at + 1])
    tap(1, "down", packet(0x40, b"\0\7") + packet(0x40, b"\0\x09\x97"))  # the second is a refusal: quota exceeded
    assert tap.published == 3
    assert tap.acknowledged == {("t/results", BOOT, 1)}
    tap(2, "up", b"\x32\xff\xff\xff\xff\xff")
    tap(2, "up", publication(4, 1))
    assert tap.published == 3, "a stream that makes no sense tells nothing any more"


def lines(path, seqs):
    path.write_text(
        "".join(json.dumps({"topic": "t", "payload": {"boot_id": BOOT, "seq": seq}}) + "\n" for seq in seqs)
    )
    return path


def test_every_message_is_accounted_for(tmp_path):
    truth = lines(tmp_path / "truth", [1, 2, 3, 4])
    arrived = lines(tmp_path / "arrived", [0, 1, 3, 3])
    found = judging.messages(truth, arrived, {("t", BOOT, 2)})
    assert (found["made"], found["arrived"], found["arrived_twice"], found["missing"]) == (4, 2, 1, 2)
    assert found["missing_but_acknowledged_by_the_broker"] == 1
    assert found["lost_by_edgevision"] == [["t", BOOT, 4]]


def test_every_kind_of_fault_comes_before_one_comes_again_and_a_seed_is_a_seed():
    drawn = faults.draw(4, disk=True)
    names = [next(drawn).name for _ in faults.FAULTS]
    assert sorted(names) == sorted(fault.name for fault in faults.FAULTS)
    again = faults.draw(4, disk=True)
    assert names == [next(again).name for _ in names]
    without = faults.draw(4, disk=False)
    assert not any(next(without).needs_disk for _ in range(100))


def test_the_command_lists_its_faults():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "soak.py"), "--list"], capture_output=True, text=True, check=True
    )
    assert "broker half-open" in done.stdout
