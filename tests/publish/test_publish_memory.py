import threading

import pytest

from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options, create
from edgevision.types import Message


def test_keeps_the_newest_and_counts_all():
    sink = create(Options(keep=2), SinkContext(device="d"))
    for number in range(3):
        sink.publish(Message(topic=f"t/{number}", payload=b"{}"))
    assert [message.topic for message in sink.messages] == ["t/1", "t/2"]
    assert (sink.stats.sent, sink.stats.dropped) == (3, 0)


def test_wait_for_returns_when_it_comes():
    sink = create(Options(), SinkContext(device="d"))
    late = threading.Thread(target=sink.publish, args=(Message(topic="late", payload=b"{}"),))
    late.start()
    assert sink.wait_for(lambda message: message.topic == "late", timeout_s=10).payload == b"{}"
    late.join()


def test_wait_for_says_what_came_instead():
    sink = create(Options(), SinkContext(device="d"))
    sink.publish(Message(topic="other", payload=b"{}"))
    with pytest.raises(TimeoutError, match="1 others are here, on \\['other'\\]"):
        sink.wait_for(lambda message: message.topic == "late", timeout_s=0.01)
