import math
import threading
from itertools import pairwise
from typing import Any

from capture_support import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from edgevision.capture._pacing import NS_PER_S, FramePicker, MediaTime, Pacer


def picked(times_ns: Any, fps: float | None) -> Any:
    picker = FramePicker(fps)
    return [time for time in times_ns if picker.wanted(time)]


def test_ten_of_29_8_are_ten_a_second() -> None:
    interval_ns = NS_PER_S / 29.833333
    times = [round(index * interval_ns) for index in range(29833)]  # 1000 s
    assert abs(len(picked(times, 10)) - 10_000) <= 1


def test_a_camera_of_the_wanted_rate_that_jitters_loses_no_frame() -> None:
    times = [index * 100_000_000 + (-1) ** index * 20_000_000 for index in range(1000)]
    settled = times[20:]  # until then the camera's rate is not known well
    assert picked(times, 10)[-len(settled) :] == settled


def test_a_slower_camera_gives_all_it_has() -> None:
    times = [index * 200_000_000 for index in range(100)]
    assert picked(times, 10) == times


def test_no_rate_is_every_frame() -> None:
    assert picked([5, 6, 7], None) == [5, 6, 7]


def test_a_pause_is_not_made_up_for() -> None:
    step = 10_000_000  # 100 a second
    times = [index * step for index in range(100)] + [10 * NS_PER_S + index * step for index in range(100)]
    after = [time for time in picked(times, 10) if time >= 10 * NS_PER_S]
    assert len(after) == 10


@given(
    steps=st.lists(st.integers(1, 40_000_000), min_size=2, max_size=400),
    fps=st.floats(1, 25),
)
def test_the_rate_is_exact_for_any_source_that_is_faster(steps: Any, fps: float) -> None:
    times = [sum(steps[:index]) for index in range(len(steps))]
    count, seconds = len(picked(times, fps)), times[-1] / NS_PER_S
    assert math.floor(seconds * fps) <= count <= seconds * fps + 1.5


@given(steps=st.lists(st.integers(0, 3 * NS_PER_S), max_size=100), fps=st.floats(0.1, 1000))
def test_never_more_than_asked_for(steps: Any, fps: float) -> None:
    times = [sum(steps[:index]) for index in range(1, len(steps) + 1)]
    seconds = (times[-1] - times[0]) / NS_PER_S if times else 0
    assert len(picked(times, fps)) <= seconds * fps * (1 + 1e-6) + 1.5


def test_media_time_is_the_files_own_where_it_makes_sense() -> None:
    media = MediaTime()
    assert media.restart(25)
    assert [media.advance(position) for position in (0.0, 40.0, 120.0)] == [0, 40_000_000, 120_000_000]
    assert media.repaired == 0


def test_media_time_goes_on_over_a_loop() -> None:
    media = MediaTime()
    media.restart(25)
    media.advance(0)
    media.advance(40)
    media.restart(25)
    assert [media.advance(0), media.advance(40)] == [80_000_000, 120_000_000]
    assert media.repaired == 0


def test_media_time_of_a_file_without_times_and_rate_is_25_a_second() -> None:
    media = MediaTime()
    assert not media.restart(math.nan)
    assert [media.advance(0.0) for _ in range(3)] == [0, 40_000_000, 80_000_000]
    assert media.repaired == 2


@given(st.lists(st.floats() | st.floats(0, 1e5), max_size=50), st.floats())
def test_media_time_rises_whatever_a_file_says(positions: Any, fps: float) -> None:
    media = MediaTime()
    media.restart(fps)
    times = [media.advance(position) for position in positions]
    steps = [after - before for before, after in pairwise(times)]
    assert all(0 < step <= 60 * NS_PER_S for step in steps)


def test_frames_are_due_at_their_own_distance() -> None:
    clock = FakeClock()
    pacer = Pacer(clock, threading.Event())
    start = clock.now_ns
    due = []
    for media_ns in (0, 33_000_000, 100_000_000):
        assert pacer.wait_for(media_ns)
        due.append(clock.now_ns - start)
    assert due == [0, 33_000_000, 100_000_000]


@given(st.lists(st.tuples(st.integers(1_000_000, 100_000_000), st.integers(0, 500_000_000)), min_size=1, max_size=100))
def test_never_a_burst_however_the_reader_is_held_up(frames: Any) -> None:
    """Two frames never follow each other faster than they were taken; a reader that keeps up is not slowed down."""
    clock = FakeClock()
    pacer = Pacer(clock, threading.Event())
    media_ns, last_ns, last_busy_ns = 0, None, 0
    for step_ns, busy_ns in frames:
        media_ns += step_ns
        assert pacer.wait_for(media_ns)
        if last_ns is not None:
            assert clock.now_ns - last_ns >= step_ns - 1000
            assert clock.now_ns - last_ns <= max(step_ns, last_busy_ns) + 1000
        last_ns, last_busy_ns = clock.now_ns, busy_ns
        clock.now_ns += busy_ns


def test_waiting_ends_when_the_source_is_closed() -> None:
    closing = threading.Event()
    pacer = Pacer(FakeClock(), closing)
    assert pacer.wait_for(0)
    closing.set()
    assert not pacer.wait_for(NS_PER_S)
    assert not pacer.wait_for(0)
