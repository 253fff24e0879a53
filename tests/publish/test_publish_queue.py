import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support_brokers import HandClock

from edgevision.publish._queue import BoundedQueue
from edgevision.types import Message


def make_queue(max_messages: int = 10, max_bytes: int = 10_000) -> tuple[BoundedQueue, HandClock]:
    clock = HandClock()
    return BoundedQueue(max_messages=max_messages, max_bytes=max_bytes, clock=clock), clock


def message(
    number: int, *, qos: int = 0, durable: bool = False, expires_s: float | None = None, size: int = 4
) -> Message:
    payload = str(number).encode().ljust(size)
    return Message(topic="t", payload=payload, qos=1 if qos else 0, durable=durable, expires_s=expires_s)


def numbers(queue: BoundedQueue) -> list[int]:
    out = []
    while (entry := queue.get()) is not None:
        out.append(int(entry.message.payload))
    return out


def test_first_in_first_out_across_ranks() -> None:
    queue, _ = make_queue()
    for number, (qos, durable) in enumerate([(0, False), (1, False), (1, True), (0, False), (1, True), (0, True)]):
        queue.put(message(number, qos=qos, durable=durable))
    assert numbers(queue) == [0, 1, 2, 3, 4, 5]


def test_full_gives_up_the_oldest_of_the_least_precious() -> None:
    queue, _ = make_queue(max_messages=3)
    queue.put(message(0, durable=True, qos=1))
    queue.put(message(1, qos=1))
    queue.put(message(2))
    queue.put(message(3))  # 2 goes: the oldest QoS 0
    queue.put(message(4, qos=1))  # 3 goes: the last QoS 0
    queue.put(message(5, qos=1, durable=True))  # 1 goes: acknowledged, but not durable
    queue.put(message(6))  # goes itself: all others are worth more
    assert numbers(queue) == [0, 4, 5]
    assert queue.dropped == 4
    assert queue.take_drops() == {"the queue was full": 4}
    assert not queue.take_drops()


def test_bytes_are_bounded_and_a_giant_harms_nobody_else() -> None:
    queue, _ = make_queue(max_messages=100, max_bytes=100)
    for number in range(3):
        queue.put(message(number, size=30))  # 31 with its topic
    queue.put(message(3, size=200, durable=True))
    assert len(queue) == 3
    queue.put(message(4, size=30))
    assert numbers(queue) == [1, 2, 4]
    assert queue.take_drops() == {"larger than the whole queue": 1, "the queue was full": 1}
    assert queue.size_bytes == 0


def test_expired_messages_are_dropped_and_counted() -> None:
    queue, clock = make_queue()
    queue.put(message(0, expires_s=1.0))
    queue.put(message(1, expires_s=3.0))
    queue.put(message(2))
    clock.now_ns = 2 * 10**9
    queue.drop_expired()
    assert (len(queue), queue.dropped) == (2, 1)
    clock.now_ns = 3 * 10**9
    assert numbers(queue) == [2]
    assert queue.take_drops() == {"expired": 2}


def test_what_comes_back_stands_where_it_stood() -> None:
    queue, _ = make_queue()
    for number in range(5):
        queue.put(message(number, qos=number % 2))
    taken = [entry for entry in (queue.get(), queue.get(), queue.get()) if entry is not None]
    queue.put(message(5))
    queue.put_back(reversed(taken))
    assert numbers(queue) == [0, 1, 2, 3, 4, 5]


def test_closing_counts_what_waits_and_what_comes_after() -> None:
    queue, _ = make_queue()
    queue.put(message(0))
    taken = queue.get()
    assert taken is not None
    queue.put(message(1))
    queue.put(message(2))
    queue.close()
    queue.put(message(3))
    queue.put_back([taken])
    assert (len(queue), queue.dropped) == (0, 4)


@given(
    max_messages=st.integers(1, 8),
    max_bytes=st.integers(5, 60),
    steps=st.lists(
        st.one_of(
            st.tuples(
                st.just("put"),
                st.integers(0, 1),
                st.booleans(),
                st.one_of(st.none(), st.integers(1, 5)),
                st.integers(1, 20),
            ),
            st.tuples(st.sampled_from(["get", "fail", "tick", "purge"])),
        ),
        max_size=60,
    ),
)
def test_nothing_is_ever_lost_uncounted_out_of_order_or_out_of_bounds(
    max_messages: int, max_bytes: int, steps: list[Any]
) -> None:
    """Every message put is delivered, waiting or counted; per rank and over all, delivery keeps the order of arrival."""
    queue, clock = make_queue(max_messages, max_bytes)
    put, delivered = 0, []
    for step in steps:
        if step[0] == "put":
            _, qos, durable, expires_s, size = step
            queue.put(message(put, qos=qos, durable=durable, expires_s=expires_s, size=size))
            put += 1
        elif step[0] == "get":
            if (entry := queue.get()) is not None:
                assert entry.expires_mono_ns is None or entry.expires_mono_ns > clock.now_ns
                delivered.append(entry.sequence)
        elif step[0] == "fail":
            queue.put_back([entry for entry in (queue.get(), queue.get()) if entry is not None])
        elif step[0] == "tick":
            clock.now_ns += 10**9
        else:
            queue.drop_expired()
        assert len(queue) <= max_messages
        assert queue.size_bytes <= max_bytes
        assert put == len(delivered) + len(queue) + queue.dropped
        assert queue.size_bytes >= 0
    assert delivered == sorted(delivered)
    queue.close()
    assert put == len(delivered) + queue.dropped


def test_many_threads_lose_nothing() -> None:
    queue, _ = make_queue(max_messages=50, max_bytes=10**6)
    taken: list[int] = []

    def put() -> None:
        for number in range(500):
            queue.put(message(number))

    def get() -> None:
        while len(taken) + queue.dropped < 1000:
            if queue.get() is not None:
                taken.append(1)

    threads = [threading.Thread(target=target) for target in (put, put, get)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert len(taken) + queue.dropped == 1000
