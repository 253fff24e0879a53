"""One picture for each trigger message, over a real broker; and the box that keeps triggers, with a clock of the test's own."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_brokers import HandClock, Mosquitto, publisher, wait_until

from edgevision.broker.options import BrokerOptions
from edgevision.capture import synthetic
from edgevision.capture._triggered import MAX_ID, TriggerBox, Triggered, trigger_id
from edgevision.capture.base import SourceContext
from edgevision.types import Frame

BROKER = BrokerOptions(host="127.0.0.1")
MS = 1_000_000


def box(clock=None, deadline_s=1.0):
    return TriggerBox(BROKER, "t", camera="a", deadline_s=deadline_s, clock=clock or HandClock())


class Free:
    """A camera that gives a picture every 100 ms of the test's time, and is told what to do before each."""

    live, unreadable = True, 0

    def __init__(self, clock, before):
        self._clock, self._before = clock, before
        self.closed = False

    def frames(self):
        for number, step in enumerate(self._before):
            self._clock.now_ns += 100 * MS
            step()
            yield Frame(
                image=np.zeros((2, 2, 3), np.uint8),
                camera="a",
                sequence=number,
                captured_at_ns=0,
                captured_mono_ns=self._clock.now_ns,
            )

    def close(self):
        self.closed = True


def nothing():
    pass


def play(steps, clock, triggers):
    idles: list[str] = []
    source = Triggered(Free(clock, steps), triggers, idle=idles.append, clock=clock)
    return [(frame.sequence, frame.origin, frame.captured_mono_ns // MS) for frame in source.frames()], idles


def test_each_trigger_gets_the_first_picture_taken_after_it():
    clock = HandClock()
    triggers = box(clock)
    triggers.fault = ""

    def trigger(name, after_ms=-30):
        return lambda: triggers.add(name, clock.now_ns + after_ms * MS)

    seen, idles = play([nothing, trigger(b"one"), nothing, trigger(b"two", 10), nothing, nothing], clock, triggers)
    # "two" came 10 ms after the fourth picture was taken: the fifth is its own.
    assert seen == [(0, "one", 200), (1, "two", 500)]
    assert (triggers.received, triggers.served, triggers.missed) == (2, 2, 0)
    assert triggers.take_delays_ms() == [30.0, 90.0]
    assert triggers.take_delays_ms() == []
    assert set(idles) == {""}


def test_several_triggers_get_a_picture_each():
    clock = HandClock()
    triggers = box(clock)

    def three():
        for name in (b"a", b"b", b"c"):
            triggers.add(name, clock.now_ns - MS)

    seen, _ = play([three, nothing, nothing, nothing], clock, triggers)
    assert [origin for _, origin, _ in seen] == ["a", "b", "c"]


def test_a_trigger_that_gets_no_picture_in_time_is_counted_and_a_gap(caplog):
    clock = HandClock()
    triggers = box(clock, deadline_s=0.25)

    def pause():
        triggers.add(b"lost", clock.now_ns)
        clock.now_ns += 400 * MS

    seen, _ = play(
        [lambda: triggers.add(b"a", clock.now_ns), pause, lambda: triggers.add(b"b", clock.now_ns)], clock, triggers
    )
    assert [(sequence, origin) for sequence, origin, _ in seen] == [(0, "a"), (2, "b")]
    assert triggers.missed == 1
    assert "trigger got no picture in time" in caplog.text
    # A camera that gives nothing any more: the count does not wait for its next picture.
    triggers.add(b"c", clock.now_ns)
    clock.now_ns += 300 * MS
    triggers.take_delays_ms()
    assert triggers.missed == 2


def test_a_flood_is_bounded_and_counted():
    clock = HandClock()
    triggers = box(clock)
    for number in range(150):
        triggers.add(str(number).encode(), 0)
    assert triggers.missed == 50
    trigger = triggers.take(1)
    assert trigger is not None
    assert trigger.id == "50"


def test_a_camera_whose_triggers_cannot_come_says_so():
    clock = HandClock()
    triggers = box(clock)
    triggers.fault = "the broker is away"
    _, idles = play([nothing] * 20, clock, triggers)
    assert set(idles) == {"no trigger can come: the broker is away"}
    assert len(idles) == 4, "twice a second is enough"


@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        (b'{"id": "part-17"}', "part-17"),
        (b'{"id": 17, "x": 1}', "17"),
        (b"part 17\n", "part 17"),
        (b"", ""),
        (b'{"nr": 1}', '{"nr": 1}'),
        (b"{", "{"),
        (b"\xff\x00a", "\ufffda"),
        (b"[" * 4000, "[" * MAX_ID),
    ],
)
def test_the_id_of_a_trigger(payload, wanted):
    assert trigger_id(payload) == wanted


@given(st.binary(max_size=300))
def test_any_payload_is_an_id_that_fits_a_message(payload):
    found = trigger_id(payload)
    assert len(found) <= MAX_ID
    assert json.loads(json.dumps(found)) == found


def test_over_a_real_broker_that_goes_and_comes_back(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as broker:
        options = BrokerOptions(host=broker.host, port=broker.port, connect_timeout_s=2)
        triggers = TriggerBox(options, "line/trigger", camera="a", deadline_s=5)
        triggers.start()
        drawn = synthetic.create(synthetic.Options(width=64, height=48), SourceContext(camera="a", fps=100))
        source = Triggered(drawn, triggers, idle=lambda _: None)
        seen: list[str | None] = []
        reader = threading.Thread(target=lambda: seen.extend(frame.origin for frame in source.frames()))
        reader.start()
        wait_until(lambda: triggers.fault == "")
        with publisher(broker.port) as publish:
            publish("line/trigger", b'{"id": "retained"}', retain=True)
            for number in range(5):
                publish("line/trigger", b'{"id": "part-%d"}' % number)
            wait_until(lambda: triggers.served == 6)
        broker.kill()
        wait_until(lambda: "lost" in triggers.fault or "refuses" in triggers.fault)
        broker.start()
        wait_until(lambda: triggers.fault == "")
        with publisher(broker.port) as publish:
            publish("line/trigger", b"again")
            wait_until(lambda: triggers.served == 7)
        source.close()
        reader.join(10)
        triggers.close()
    # A message that is published with `retain` while we listen is a trigger of now; one that the broker kept is not.
    assert seen == ["retained", *(f"part-{number}" for number in range(5)), "again"]
    assert all(0 < delay_ms < 5000 for delay_ms in triggers.take_delays_ms())
