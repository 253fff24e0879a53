import threading

import numpy as np
import pytest

from edgevision.runtime.exchange import Captured, FrameExchange
from edgevision.runtime.tally import Tally
from edgevision.types import Frame


def frame(camera, sequence):
    image = np.zeros((1, 1, 3), np.uint8)
    return Captured(Frame(image=image, camera=camera, sequence=sequence, captured_at_ns=0, captured_mono_ns=0), "live")


def take(exchange):
    captured = exchange.take()
    assert captured is not None
    return captured.frame


def test_the_newest_live_frame_wins_and_drops_are_counted():
    exchange = FrameExchange(["a"])
    for sequence in range(4):
        assert exchange.put(frame("a", sequence), wait=False)
    assert take(exchange).sequence == 3
    assert exchange.dropped("a") == 3
    assert not exchange.is_waiting("a")


def test_cameras_take_turns_however_fast_one_is():
    exchange = FrameExchange(["fast", "slow", "other"])
    served = []
    exchange.put(frame("slow", 0), wait=False)
    exchange.put(frame("other", 0), wait=False)
    for sequence in range(3):
        exchange.put(frame("fast", sequence), wait=False)
        served.append(take(exchange).camera)
        exchange.put(frame("fast", sequence + 10), wait=False)
    assert sorted(served) == ["fast", "other", "slow"]


def test_a_file_waits_for_its_place_and_loses_nothing():
    exchange = FrameExchange(["a"])
    reader = threading.Thread(target=lambda: [exchange.put(frame("a", number), wait=True) for number in range(50)])
    reader.start()
    assert [take(exchange).sequence for _ in range(50)] == list(range(50))
    reader.join()
    assert exchange.dropped("a") == 0


@pytest.mark.parametrize("wait", [True, False])
def test_closing_lets_everyone_go(wait):
    exchange = FrameExchange(["a"])
    taken = []
    taker = threading.Thread(target=lambda: taken.append(exchange.take()))
    taker.start()
    exchange.close()
    taker.join(5)
    assert taken == [None]
    assert exchange.put(frame("a", 0), wait=wait) is False


def test_a_reader_that_waits_is_let_go():
    exchange = FrameExchange(["a"])
    exchange.put(frame("a", 0), wait=True)
    answers = []
    reader = threading.Thread(target=lambda: answers.append(exchange.put(frame("a", 1), wait=True)))
    reader.start()
    exchange.close()
    reader.join(5)
    assert answers == [False]


def test_a_camera_that_comes_back_is_counted_on_and_done_means_out_of_the_models_hands():
    tally = Tally(dropped=7)
    exchange = FrameExchange(())
    exchange.add("a", tally)
    for sequence in range(3):
        exchange.put(frame("a", sequence), wait=False)
    assert (exchange.dropped("a"), tally.dropped) == (9, 9)
    assert not exchange.is_done("a")
    take(exchange)
    assert not exchange.is_waiting("a")
    assert not exchange.is_done("a"), "the model has it in hand"
    exchange.add("b", Tally())
    exchange.put(frame("b", 0), wait=False)
    take(exchange)
    assert exchange.is_done("a")
    exchange.remove("a")
    assert (exchange.dropped("a"), exchange.is_done("a")) == (9, True)
