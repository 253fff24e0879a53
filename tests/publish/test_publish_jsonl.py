import json
import logging
from pathlib import Path

import pytest
from support_brokers import wait_until

from edgevision.errors import PublishError
from edgevision.publish.base import SinkContext
from edgevision.publish.jsonl import Options, create
from edgevision.types import Message

CONTEXT = SinkContext(device="d")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_for_each_message(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = create(Options(path=path), CONTEXT)
    sink.publish(Message(topic="a/ü", payload='{"x": "line\\nbreak", "ü": 1.50}'.encode(), qos=1, retain=True))
    sink.publish(Message(topic="a/image", payload=b"\xff\xd8\x00", content_type="image/jpeg"))
    sink.publish(Message(topic="a/odd", payload=b"{torn"))
    sink.close()
    assert lines(path) == [
        {
            "topic": "a/ü",
            "qos": 1,
            "retain": True,
            "content_type": "application/json",
            "payload": {"x": "line\nbreak", "ü": 1.5},
        },
        {"topic": "a/image", "qos": 0, "retain": False, "content_type": "image/jpeg", "payload_base64": "/9gA"},
        {"topic": "a/odd", "qos": 0, "retain": False, "content_type": "application/json", "payload_base64": "e3Rvcm4="},
    ]
    assert (sink.stats.sent, sink.stats.dropped, sink.stats.queued) == (3, 0, 0)


def test_each_line_is_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = create(Options(path=path), CONTEXT)
    sink.publish(Message(topic="a", payload=b"{}"))
    wait_until(lambda: path.exists() and path.read_bytes().endswith(b"\n"))
    sink.close()


def test_rotates_once_and_stays_below_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    sink = create(Options(path=path, max_bytes=1024), CONTEXT)
    for number in range(40):
        sink.publish(Message(topic="a", payload=json.dumps({"n": number}).encode()))
    sink.close()
    kept = lines(tmp_path / "out.jsonl.1") + lines(path)
    numbers = [line["payload"]["n"] for line in kept]  # type: ignore[index]
    assert numbers == list(range(numbers[0], 40))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.1"]
    assert path.stat().st_size <= 1024
    assert (tmp_path / "out.jsonl.1").stat().st_size <= 1024


def test_a_line_torn_by_a_power_cut_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"topic":"a","pay')
    sink = create(Options(path=path), CONTEXT)
    sink.publish(Message(topic="b", payload=b"{}"))
    sink.close()
    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"topic":"a","pay'
    assert json.loads(whole)["topic"] == "b"


def test_a_full_disk_costs_messages_one_line_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    sink = create(Options(path=Path("/dev/full")), CONTEXT)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            sink.publish(Message(topic="a", payload=b"{}"))
        wait_until(lambda: sink.stats.dropped == 5)
        assert not sink.stats.connected
        assert sink.stats.state == "cannot write /dev/full: No space left on device"
        sink.close()
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "cannot write" in text] == [
        "jsonl: cannot write /dev/full: No space left on device: messages are dropped until it can"
    ]
    assert (sink.stats.sent, sink.stats.dropped) == (0, 5)


def test_goes_on_when_the_file_can_be_written_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "out.jsonl"
    sink = create(Options(path=path), CONTEXT)
    path.mkdir()
    sink.publish(Message(topic="a", payload=b"{}"))
    wait_until(lambda: sink.stats.dropped == 1)
    path.rmdir()
    with caplog.at_level(logging.INFO):
        sink.publish(Message(topic="b", payload=b"{}"))
        sink.close()
    assert [line["topic"] for line in lines(path)] == ["b"]
    assert "again" in caplog.text


def test_a_wrong_path_is_told_when_the_sink_is_made(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match="is a folder: give a file name"):
        create(Options(path=tmp_path), CONTEXT)
    with pytest.raises(PublishError, match="missing does not exist: create it"):
        create(Options(path=tmp_path / "missing" / "out.jsonl"), CONTEXT)
