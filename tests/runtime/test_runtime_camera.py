import threading
from typing import Any

import numpy as np
import pytest

from edgevision.broker.options import BrokerOptions
from edgevision.capture._triggered import TriggerBox, Triggered
from edgevision.clock import SystemClock
from edgevision.errors import CaptureError
from edgevision.retry import Backoff
from edgevision.runtime.camera import Camera, CameraStatus
from edgevision.runtime.exchange import FrameExchange
from edgevision.runtime.health import Verdict
from edgevision.runtime.tally import Tally
from edgevision.types import Frame


class ScriptedSource:
    """Plays a script: frames by number, then an error, or an end."""

    live = True
    unreadable = 0

    def __init__(self, frames, failure=None):
        self._frames = frames
        self._failure = failure
        self.closed = False

    def frames(self):
        for sequence in range(self._frames):
            yield Frame(
                image=np.zeros((2, 2, 3), np.uint8), camera="a", sequence=sequence, captured_at_ns=0, captured_mono_ns=0
            )
        if self._failure is not None:
            raise self._failure

    def close(self):
        self.closed = True


class InstantClock(SystemClock):
    """Waits take no time, and are noted."""

    def __init__(self):
        self.waited_s = []
        self.now_ns = 0

    def monotonic_ns(self):
        return self.now_ns

    def wait(self, event, seconds):
        self.waited_s.append(seconds)
        return event.is_set()


def run(sources, clock=None, tally=None):
    clock = clock or InstantClock()
    told = []
    exchange = FrameExchange(["a"])
    status = CameraStatus("a", clock=clock, on_change=lambda s: told.append((s.state, s.reason)))
    remaining = iter(sources)
    camera = Camera(
        "a",
        make_source=lambda idle: next(remaining),
        exchange=exchange,
        status=status,
        stall_after_s=10,
        clock=clock,
        backoff=Backoff(first_s=1, max_s=30),
        tally=tally,
    )
    camera.start()
    assert camera.join(10)
    return camera, told, exchange, clock


def test_a_camera_that_dies_is_opened_again_and_numbers_go_on():
    sources = [
        ScriptedSource(0, CaptureError("no such device")),
        ScriptedSource(3, CaptureError("the stream broke off")),
        ScriptedSource(2),
    ]
    camera, told, exchange, clock = run(sources)
    assert [state for state, _ in told] == ["failed", "live", "failed", "live", "off"]
    assert told[0][1] == "no such device"
    assert (camera.captured, camera.restarts) == (5, 2)
    assert exchange.take().frame.sequence == 4
    assert len(clock.waited_s) == 2
    assert all(source.closed for source in sources)
    assert camera.stopped.is_set()


def test_the_wait_grows_while_it_stays_dead_and_starts_again_after_life():
    dead = [ScriptedSource(0, CaptureError("gone")) for _ in range(8)]
    _, _, _, clock = run([*dead, ScriptedSource(1, CaptureError("gone")), ScriptedSource(0)])
    assert clock.waited_s[6] >= 15
    assert clock.waited_s[8] <= 1


def test_a_bug_in_a_source_is_a_failed_camera_and_no_dead_thread(caplog):
    _, told, _, _ = run([ScriptedSource(1, ZeroDivisionError("bug")), ScriptedSource(0)])
    assert told[1][0] == "failed"
    assert "internal error" in told[1][1]
    assert "ZeroDivisionError" in caplog.text


def test_silence_is_a_stall_and_a_frame_ends_it():
    clock = InstantClock()
    told = []
    status = CameraStatus("a", clock=clock, on_change=lambda s: told.append(s.state))
    exchange = FrameExchange(["a"])
    gate, first = threading.Event(), threading.Event()

    class Source(ScriptedSource):
        def frames(self):
            yield from super().frames()
            first.set()
            assert gate.wait(10)
            yield from super().frames()

    camera = Camera(
        "a", make_source=lambda idle: Source(1), exchange=exchange, status=status, stall_after_s=10, clock=clock
    )
    camera.start()
    assert first.wait(10)
    camera.check_stalled()
    assert told == ["live"]
    clock.now_ns = 11_000_000_000
    camera.check_stalled()
    assert told == ["live"], "a frame that waits for the model is not the camera's fault"
    exchange.take()
    camera.check_stalled()
    camera.check_stalled()
    assert told == ["live", "stalled"]
    gate.set()
    assert camera.join(10)
    assert told == ["live", "stalled", "live", "off"]


def test_a_model_that_fails_on_the_last_frame_of_a_source_that_has_ended_is_no_dead_reader():
    camera, told, _, _ = run([ScriptedSource(1)])
    assert camera.stopped.is_set()
    camera.model_failed("the runtime failed")
    assert told[-1] == ("failed", "the runtime failed")
    assert not camera.has_died


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # it is the fault that is played
def test_a_reader_that_ends_without_a_word_has_died():
    def end():
        raise SystemExit  # what no handler in the reader takes for a fault of a source

    class Ending(ScriptedSource):
        def frames(self):
            yield from super().frames()
            end()

    camera, _, _, _ = run([Ending(1)])
    assert camera.has_died


def test_the_same_state_is_told_once_and_a_new_reason_again():
    told = []
    status = CameraStatus("a", clock=SystemClock(), on_change=lambda s: told.append((s.state, s.reason)))
    for reason in ("x", "x", "y"):
        status.set("failed", reason)
    since_ns = status.since_ns
    status.set("stalled", "z", only_from=("live",))
    assert told == [("failed", "x"), ("failed", "y")]
    assert status.since_ns == since_ns


class QuietSource(ScriptedSource):
    """Says what it is told to say, step by step, in the thread that reads it."""

    def __init__(self, idle, steps):
        super().__init__(0)
        self._idle = idle
        self._steps = steps

    def frames(self):
        for step in self._steps:
            if isinstance(step, str):
                self._idle(step)
            elif step == 0:
                yield from ScriptedSource(1).frames()
            else:
                step()


def watched(steps, clock, **limits):
    told = []
    status = CameraStatus("a", clock=clock, on_change=lambda s: told.append((s.state, s.reason)))
    exchange = FrameExchange(["a"])
    camera = Camera(
        "a",
        make_source=lambda idle: QuietSource(idle, steps),
        exchange=exchange,
        status=status,
        stall_after_s=10,
        clock=clock,
        **limits,
    )
    return camera, told, exchange


def test_a_source_that_says_that_nothing_is_due_is_live_and_never_late_or_stalled():
    clock = InstantClock()
    steps: list[Any] = []
    camera, told, _ = watched(steps, clock, late_after_s=2)

    def pass_time():
        clock.now_ns += 9_000_000_000
        camera.idle("")
        clock.now_ns += 1_000_000_000
        camera.check_stalled()

    steps += ["", pass_time, pass_time, pass_time]
    camera.start()
    assert camera.join(10)
    assert [state for state, _ in told] == ["live", "off"]
    assert told[0][1] == "the source is watched; no picture is due"


def test_a_source_that_goes_silent_after_it_said_so_is_stalled():
    clock = InstantClock()
    steps: list[Any] = []
    camera, told, _ = watched(steps, clock)

    def go_silent():
        clock.now_ns += 10_000_000_001
        camera.check_stalled()

    steps += ["", go_silent, ""]
    camera.start()
    assert camera.join(10)
    assert [state for state, _ in told] == ["live", "stalled", "live", "off"]


def test_a_source_that_works_and_gives_nothing_new_is_stalled_for_its_own_reason():
    clock = InstantClock()
    steps: list[Any] = []
    camera, told, exchange = watched(steps, clock)

    def pass_time():
        exchange.take()
        clock.now_ns += 10_000_000_001
        camera.check_stalled()

    steps += [0, "the same picture again", pass_time, 0]
    camera.start()
    assert camera.join(10)
    assert told[1] == ("stalled", "no frame for 10 s: the same picture again")
    assert [state for state, _ in told] == ["live", "stalled", "live", "off"]


def test_an_idle_source_does_not_make_a_failing_model_live():
    clock = InstantClock()
    steps: list[Any] = []
    camera, told, _ = watched(steps, clock)
    steps += ["", lambda: camera.model_failed("the model fails"), "", ""]
    camera.start()
    assert camera.join(10)
    assert [state for state, _ in told] == ["live", "failed", "off"]


def test_rules_begin_anew_after_a_blind_spell_that_an_idle_source_ended():
    clock = InstantClock()
    steps: list[Any] = []
    camera, _, exchange = watched(steps, clock)
    sights = []

    def go_blind():
        sights.append(exchange.take().spell)
        clock.now_ns += 10_000_000_001
        camera.check_stalled()

    steps += ["", 0, go_blind, "", 0, lambda: sights.append(exchange.take().spell)]
    camera.start()
    assert camera.join(10)
    assert sights == [0, 1]


class Patchy(ScriptedSource):
    """Frames with gaps: of those that are missing, some could not be decoded and some nobody had time for."""

    def __init__(self, sequences, unreadable, failure=None):
        super().__init__(0, failure)
        self._given = list(zip(sequences, unreadable, strict=True))

    def frames(self):
        for sequence, unreadable in self._given:
            self.unreadable = unreadable
            yield Frame(
                image=np.zeros((2, 2, 3), np.uint8), camera="a", sequence=sequence, captured_at_ns=0, captured_mono_ns=0
            )
        yield from super().frames()


def test_counts_go_on_over_sources_and_over_a_camera_that_is_made_anew():
    tally = Tally()
    first, _, exchange, _ = run([Patchy([0, 3, 4], [0, 1, 1], CaptureError("gone")), Patchy([2], [2])], tally=tally)
    # Of 0 to 4, 1 and 2 are missing: one of them was unreadable. The second source's first two were unreadable.
    assert (tally.captured, first.unreadable, tally.next_sequence) == (4, 3, 8)
    assert tally.dropped == 1
    assert exchange.take().frame.sequence == 7
    second, _, exchange, _ = run([Patchy([0], [0]), Patchy([0], [0])], tally=tally)
    assert (tally.captured, second.unreadable, tally.restarts) == (5, 3, 1)
    assert exchange.take().frame.sequence == 8


def test_a_trigger_that_got_no_picture_is_a_gap_and_not_a_frame_that_no_model_had_time_for():
    clock, tally = InstantClock(), Tally()
    triggers = TriggerBox(BrokerOptions(host="127.0.0.1"), "t", camera="a", deadline_s=1, clock=clock)

    class Pausing(ScriptedSource):
        """Asked for four pictures, it gives two: it is silent for 8 s between."""

        def frames(self):
            for second in (1, 9):
                triggers.add(b"part", clock.now_ns)
                clock.now_ns = second * 10**9
                triggers.add(b"part", clock.now_ns)
                yield Frame(
                    image=np.zeros((2, 2, 3), np.uint8),
                    camera="a",
                    sequence=0,
                    captured_at_ns=0,
                    captured_mono_ns=clock.now_ns,
                )

    camera = Camera(
        "a",
        make_source=lambda idle: Triggered(Pausing(0), triggers, idle=idle, clock=clock),
        exchange=FrameExchange(["a"]),
        status=CameraStatus("a", clock=clock, on_change=lambda _: None),
        stall_after_s=10,
        clock=clock,
        tally=tally,
    )
    camera.triggers = triggers
    camera.start()
    assert camera.join(10)
    assert (triggers.served, triggers.missed) == (2, 2)
    assert tally.next_sequence == 4, "a part that nobody looked at is a gap"
    assert tally.dropped == 0, "no model was short of time"


def test_what_was_told_as_unreadable_never_gets_less_even_if_the_reader_hangs_at_the_end():
    tally = Tally()
    told, gate = threading.Event(), threading.Event()

    class Hanging(Patchy):
        def frames(self):
            yield from super().frames()
            told.set()
            assert gate.wait(10)

    def make(source):
        return Camera(
            "a",
            make_source=lambda _idle: source,
            exchange=FrameExchange(["a"]),
            status=CameraStatus("a", clock=SystemClock(), on_change=lambda _: None),
            stall_after_s=10,
            clock=SystemClock(),
            tally=tally,
        )

    hanging = make(Hanging([5], [5]))
    hanging.start()
    assert told.wait(10)
    assert hanging.unreadable == 5
    hanging.stop()
    again = make(Patchy([1], [1]))
    assert again.unreadable == 5
    again.start()
    assert again.join(10)
    assert again.unreadable == 6
    gate.set()
    assert hanging.join(10)
    assert again.unreadable == 6


def test_each_loss_of_sight_begins_a_new_spell_and_frames_know_theirs():
    spells = []
    clock = InstantClock()
    status = CameraStatus("a", clock=clock, on_change=lambda s: spells.append((s.state, s.spell)))
    assert status.set("live", "x") == 0
    assert status.set("stalled", "y") == 1
    assert status.set("failed", "z") == 1
    assert status.set("live", "x") == 1
    assert status.set("dark", "x") == 2
    assert spells == [("live", 0), ("stalled", 1), ("failed", 1), ("live", 1), ("dark", 2)]
    _, _, exchange, _ = run([ScriptedSource(1, CaptureError("gone")), ScriptedSource(1)])
    assert exchange.take().spell == 1


def test_a_model_that_works_again_gives_back_the_pictures_own_state_and_not_live():
    clock = InstantClock()
    told = []
    status = CameraStatus("a", clock=clock, on_change=lambda s: told.append(s.state))

    class Dark:
        def restart(self):
            pass

        def see(self, frame):
            return Verdict(state="dark", reason="the lens is covered", trusted=False)

    gate, first = threading.Event(), threading.Event()

    class Source(ScriptedSource):
        def frames(self):
            yield from super().frames()
            first.set()
            assert gate.wait(10)
            yield from super().frames()

    camera = Camera(
        "a",
        make_source=lambda _idle: Source(1),
        exchange=FrameExchange(["a"]),
        status=status,
        stall_after_s=10,
        clock=clock,
        watch=Dark(),  # type: ignore[arg-type]
    )
    camera.start()
    assert first.wait(10)
    camera.model_failed("the runtime failed")
    camera.model_failed("the runtime failed")
    gate.set()
    assert camera.join(10)
    assert told == ["dark", "failed", "off"]
    told.clear()
    status.set("failed", "the runtime failed")
    camera.model_looked()
    assert told == ["failed", "dark"]
