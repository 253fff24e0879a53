"""What every sink owes, whoever wrote it: each test runs over every plug-in of the stage."""

import threading
from typing import Any

import pytest

from edgevision import registry
from edgevision.publish.base import SinkContext, SinkStats
from edgevision.types import Message

OPTIONS: dict[str, dict[str, Any]] = {
    "mqtt": {"host": "127.0.0.1", "port": 1, "connect_timeout_s": 0.2},  # nobody listens on port 1
    "jsonl": {"path": "out.jsonl"},
    "memory": {},
}


@pytest.fixture(params=registry.available("publish"))
def sink(request, tmp_path, monkeypatch):
    if request.param not in OPTIONS:
        pytest.skip(f"no options known for {request.param}; add them to OPTIONS")
    monkeypatch.chdir(tmp_path)
    plugin = registry.load("publish", request.param)
    options = plugin.Options.model_validate(OPTIONS[request.param])
    sink = plugin.create(options, SinkContext(device="d"))
    yield sink
    sink.close(deadline_s=0.5)


def message(number: int) -> Message:
    return Message(topic=f"t/{number}", payload=b"{}", qos=1)


def test_our_own_sinks_are_all_covered():
    assert set(registry.available("publish")) >= set(OPTIONS)
    assert {"mqtt", "jsonl", "memory"} == set(OPTIONS)


def test_every_message_is_delivered_waiting_or_counted(sink):
    for number in range(20):
        sink.publish(message(number))
        stats = sink.stats
        assert isinstance(stats, SinkStats)
        assert stats.sent + stats.dropped + stats.queued == number + 1
    sink.close(deadline_s=1.0)
    stats = sink.stats
    assert (stats.queued, stats.sent + stats.dropped) == (0, 20)
    assert not stats.connected
    assert stats.state


def test_close_twice_and_publish_after_it(sink):
    sink.publish(message(0))
    sink.close(deadline_s=0.5)
    sink.close(deadline_s=0.5)
    before = sink.stats
    sink.publish(message(1))
    assert sink.stats.dropped == before.dropped + 1
    assert sink.stats.sent == before.sent


def test_publish_takes_any_bytes_from_any_thread(sink):
    def work() -> None:
        for number in range(50):
            sink.publish(Message(topic="t", payload=bytes(number), content_type="image/jpeg", retain=not number % 2))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    sink.close(deadline_s=2.0)
    assert sink.stats.sent + sink.stats.dropped == 150


def test_unknown_options_are_refused(sink, request):
    name = request.node.callspec.params["sink"]
    with pytest.raises(ValueError, match="Extra inputs"):
        registry.load("publish", name).Options.model_validate({**OPTIONS[name], "no_such_option": 1})


@pytest.fixture
def threads_before():
    return set(threading.enumerate())


def test_no_thread_is_left_behind(threads_before, sink):
    sink.publish(message(0))
    sink.close(deadline_s=1.0)
    assert set(threading.enumerate()) <= threads_before
