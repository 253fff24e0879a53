"""A source in a process of its own: its pictures, the memory that carries them, and how it is started and kept."""

import gc
import os
import threading
from collections.abc import Generator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgevision.capture import synthetic
from edgevision.capture.base import SourceContext
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.capture.reader.link import Link, pair
from edgevision.capture.reader.slots import SlotReader, SlotWriter
from edgevision.errors import CaptureError

LIMITS = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)


def reader(*, live=True, type="synthetic", limits=LIMITS, fps=200.0, **options):  # noqa: A002  the config's own word
    if type == "synthetic":
        options = {"live": live, "width": 64, "height": 48, **options}
    return Reader(Job(camera="a", type=type, options=options, fps=fps), limits, live=live)


def test_pictures_are_those_of_the_source_read_only_and_stay_while_they_are_held():
    source = reader(live=False, pace="max", frames=40).source()
    # Six are held, so two slots go round among the others.
    frames, held = [], []
    for frame in source.frames():
        frames.append((frame.sequence, frame.image.sum()))
        if frame.sequence < 6:
            held.append(frame)
        assert not frame.image.flags.writeable
    drawn = synthetic.SyntheticSource(synthetic.Options(width=64, height=48), SourceContext(camera="a"))
    assert frames == [(number, drawn.draw(number).sum()) for number in range(40)]
    for frame in held:
        assert np.array_equal(frame.image, drawn.draw(frame.sequence))
        assert np.asarray(cv2.resize(frame.image, (20, 20))).shape == (20, 20, 3)


def test_a_camera_that_finds_every_slot_held_drops_and_goes_on_when_one_is_free():
    source = reader().source()
    frames = source.frames()
    held = list(islice(frames, 8))
    assert [frame.sequence for frame in held] == list(range(8))
    del held[0]
    gc.collect()
    late = next(frames)
    assert late.sequence >= 8
    source.close()
    assert list(frames) == []


def test_rotation_roi_and_unreadable_cross_too():
    job = Job(camera="a", type="synthetic", options={"width": 64, "height": 48}, rotation=90, roi=(0, 0, 0.5, 1))
    source = Reader(job, LIMITS, live=True).source()
    frames = source.frames()
    assert isinstance(frames, Generator)
    frame = next(frames)
    assert frame.image.shape == (64, 48, 3)
    assert frame.roi == (0, 0, 24, 64)
    assert source.unreadable == 0
    frames.close()


def test_a_source_that_fails_keeps_its_process_and_close_ends_it():
    made = reader(type="opencv", url="/dev/video98")
    pids = []
    for _ in range(3):
        source = made.source()
        frames = source.frames()
        with pytest.raises(CaptureError, match="/dev/video98: cannot be opened"):
            next(frames)
        pids.append(made._idle.pid)
    assert len(set(pids)) == 1
    made.close()
    assert not Path(f"/proc/{pids[0]}").exists()
    made.close()


CHATTY = """
import os

from edgevision import registry
from edgevision.errors import CaptureError


class Options(registry.Options):
    pass


class Chatty:
    live, unreadable = True, 0

    def frames(self):
        for number in range(150):
            os.write(2, b"the library's word %d\\n" % number)
        raise CaptureError("its reason stands in the log before this")
        yield

    def close(self):
        pass


def create(options, context):
    return Chatty()
"""


def test_what_a_library_says_is_logged_in_every_try_of_a_process_that_is_kept(tmp_path, monkeypatch, caplog):
    (tmp_path / "chatty.py").write_text(CHATTY)
    information = tmp_path / "chatty-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[edgevision.capture]\nchatty = chatty\n")
    monkeypatch.syspath_prepend(tmp_path)
    made = reader(type="chatty")
    try:
        for _ in range(3):
            caplog.clear()
            with pytest.raises(CaptureError, match="stands in the log before this"):
                list(made.source().frames())
            told = [record.fields["text"] for record in caplog.records if "text" in getattr(record, "fields", {})]
            assert "the library's word 0" in told
    finally:
        made.close()


def test_a_first_frame_that_does_not_come_in_time_is_a_fault_that_names_its_key():
    limits = Limits(frame_s=0.2, first_frame_s=0.01, memory_bytes=512 << 20)
    with pytest.raises(CaptureError, match=r"did not open for 0\.01 s \(reader\.open_deadline_s\) and was killed"):
        list(reader(limits=limits).source().frames())


def test_a_file_that_ends_ends():
    assert len(list(reader(live=False, pace="max", frames=5).source().frames())) == 5


def test_closed_before_it_was_opened_starts_nothing():
    source = reader().source()
    source.close()
    assert list(source.frames()) == []
    assert source.pid is None


def test_close_from_another_thread_ends_frames():
    source = reader().source()
    frames = source.frames()
    next(frames)
    closer = threading.Thread(target=source.close)
    closer.start()
    list(frames)
    closer.join()


class Slots:
    """Both sides of the memory in this process, over a real line."""

    def __init__(self):
        self.ours, theirs = pair()
        self.theirs = Link(theirs)
        self.writer = SlotWriter(self.theirs.send, slots=3)
        self.given_back: list[tuple[int, int]] = []
        self.reader = SlotReader(lambda ring, slot: self.given_back.append((ring, slot)))

    def carry(self, image):
        before = self.writer._ring
        written = self.writer.write(image, wait=False)
        assert written is not None
        ring, slot = written
        if ring != before:
            received = self.ours.receive()
            assert received is not None
            packet, (descriptor,) = received
            self.reader.open(descriptor, **{key: packet[key] for key in ("ring", "slots", "slot_bytes")})
            os.close(descriptor)
        return self.reader.look(ring=ring, slot=slot, height=image.shape[0], width=image.shape[1])

    def close(self):
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def slots():
    made = Slots()
    yield made
    made.close()


def test_a_slot_comes_back_when_the_last_array_that_looks_into_it_is_gone(slots):
    seen = slots.carry(np.full((4, 5, 3), 9, np.uint8))
    part = seen[1:2, ::2].T
    del seen
    assert slots.given_back == []
    assert part.min() == part.max() == 9
    del part
    assert slots.given_back == [(1, 2)]


def test_larger_pictures_get_a_new_ring_and_the_old_stay_readable(slots):
    small = slots.carry(np.full((4, 5, 3), 1, np.uint8))
    large = slots.carry(np.full((400, 500, 3), 2, np.uint8))
    again = slots.carry(np.full((4, 5, 3), 3, np.uint8))
    assert [array.min() for array in (small, large, again)] == [1, 2, 3]
    del small
    slots.writer.release(*slots.given_back[0])
    assert len(slots.writer._free) == 1, "a slot of the old ring is none of the new one"


def test_what_no_reader_makes_is_refused(slots):
    descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 8192)
    with pytest.raises(ValueError, match="not sealed"):
        slots.reader.open(descriptor, ring=1, slots=2, slot_bytes=4096)
    os.close(descriptor)
    slots.carry(np.zeros((4, 5, 3), np.uint8))
    for wrong in ({"ring": 2}, {"slot": 3}, {"slot": -1}, {"height": 4000}, {"height": 0}, {"height": -4, "width": -5}):
        with pytest.raises(ValueError, match="no picture"):
            slots.reader.look(**{"ring": 1, "slot": 0, "height": 4, "width": 5, **wrong})


def test_the_reader_cannot_pull_the_memory_away(slots):
    slots.writer.write(np.zeros((4, 5, 3), np.uint8), wait=False)
    received = slots.ours.receive()
    assert received is not None
    _, (descriptor,) = received
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
