"""A watched folder: whole files only, each once, in order, over restarts, and whatever else is put in."""

import os
import subprocess
import threading
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from capture_support import FakeClock, jpeg, number_of, picture

from edgevision.capture import hot_folder
from edgevision.capture.base import SourceContext
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.errors import CaptureError

ENOUGH = 60
"""Looks at a folder without anything new: 12 s of the test's own time."""


def put(folder: Path, name: str, number: int, *, mtime_s: float | None = None) -> Path:
    path = folder / name
    path.write_bytes(jpeg(picture(number)))
    if mtime_s is not None:
        os.utime(path, (mtime_s, mtime_s))
    return path


class Watch:
    """Reads a folder until nothing happens any more; `steps` are done at the n-th look that finds nothing."""

    def __init__(self, folder: Path, *, steps: dict[int, Any] | None = None, looks: int = ENOUGH, **options: Any):
        self.clock = FakeClock()
        self.idles = 0
        self.faults: list[str] = []
        self._steps = steps or {}
        self._looks = looks
        context = SourceContext(camera="line-1", fps=options.pop("fps", None), clock=self.clock, idle=self._idle)
        self.source = hot_folder.create(hot_folder.Options(path=str(folder), **options), context)

    def _idle(self, fault: str) -> None:
        self.idles += 1
        self.faults.append(fault)
        if self.idles in self._steps:
            self._steps[self.idles]()
        if self.idles >= self._looks:
            self.source.close()

    def run(self, *, fault: str = "", finish: bool = True) -> list[tuple[str | None, int]]:
        """Name and number of every picture; each is done as soon as it is there."""
        seen = []
        for frame in self.source.frames():
            seen.append((frame.origin, number_of(frame.image)))
            if finish:
                assert frame.done is not None
                frame.done(fault)
        return seen


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def test_pictures_come_in_natural_order_and_are_moved_when_they_are_done(tmp_path):
    for number in (10, 2, 1):
        put(tmp_path, f"part{number}.jpg", number)
    assert Watch(tmp_path).run() == [("part1.jpg", 1), ("part2.jpg", 2), ("part10.jpg", 10)]
    assert names(tmp_path) == names(tmp_path / "taken") == names(tmp_path / "failed") == []
    assert names(tmp_path / "done") == ["part1.jpg", "part10.jpg", "part2.jpg"]


def test_oldest_first_and_deleted(tmp_path):
    for name, number, mtime_s in (("a.jpg", 1, 3000), ("b.jpg", 2, 1000), ("c.jpg", 3, 2000)):
        put(tmp_path, name, number, mtime_s=mtime_s)
    watch = Watch(tmp_path, order="mtime", when_done="delete")
    assert [number for _, number in watch.run()] == [2, 3, 1]
    assert names(tmp_path) == names(tmp_path / "done") == names(tmp_path / "taken") == []


def test_a_picture_says_when_its_file_was_written_and_a_share_whose_clock_is_ahead_says_now(tmp_path):
    put(tmp_path, "a.jpg", 1, mtime_s=1_600_000_000)
    put(tmp_path, "b.jpg", 2, mtime_s=1_900_000_000)
    watch = Watch(tmp_path, looks=10)
    old, ahead = [(frame.captured_at_ns, watch.clock.time_ns()) for frame in watch.source.frames()]
    assert old[0] == 1_600_000_000_000_000_000
    assert ahead[0] == ahead[1]


def test_a_file_that_still_grows_is_left_until_it_is_whole(tmp_path):
    content = jpeg(picture(7))
    growing = tmp_path / "slow.jpg"
    growing.write_bytes(content[:20])

    def grow(upto):
        return lambda: growing.write_bytes(content[:upto])

    # It stands still longer than settle_s in between, and a whole one overtakes it.
    steps = {9: grow(len(content) // 2), 12: lambda: put(tmp_path, "whole.jpg", 3), 20: grow(len(content))}
    assert Watch(tmp_path, steps=steps).run() == [("whole.jpg", 3), ("slow.jpg", 7)]
    assert names(tmp_path / "failed") == []


@pytest.mark.parametrize("length", [0, 10, 200])
def test_a_file_whose_end_never_comes_is_given_up_and_said(tmp_path, caplog, length):
    (tmp_path / "cut.jpg").write_bytes(jpeg(picture(7))[:length])
    watch = Watch(tmp_path, partial_s=5)
    steps_before = 5 / 0.2
    assert watch.run() == []
    assert watch.idles >= steps_before
    assert names(tmp_path / "failed") == ["cut.jpg"]
    assert watch.source.unreadable == 1
    assert "file is moved to `failed`" in caplog.text
    assert caplog.records[-1].fields["file"].endswith("/cut.jpg")


def test_a_file_that_is_renamed_into_place_is_taken(tmp_path):
    put(tmp_path, "a.jpg.part", 4)
    watch = Watch(tmp_path, steps={5: lambda: (tmp_path / "a.jpg.part").rename(tmp_path / "a.jpg")})
    assert watch.run() == [("a.jpg", 4)]


def test_what_was_taken_and_not_done_comes_again_and_what_was_done_does_not(tmp_path):
    for number in range(4):
        put(tmp_path, f"{number}.jpg", number)
    watch = Watch(tmp_path)
    frames = watch.source.frames()
    first, second = islice(frames, 2)
    assert first.done is not None
    first.done("")
    watch.clock.now_ns += 10**9
    next(frames)
    assert names(tmp_path / "done") == ["0.jpg"]
    assert names(tmp_path / "taken") == ["1.jpg", "2.jpg"]
    del frames, second  # as a kill would leave it
    assert Watch(tmp_path).run() == [("1.jpg", 1), ("2.jpg", 2), ("3.jpg", 3)]
    assert names(tmp_path / "done") == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]


def test_a_file_stays_for_a_moment_after_its_result_so_that_the_disk_has_it_too(tmp_path):
    put(tmp_path, "a.jpg", 1)
    places = []
    steps = {number: lambda: places.append(names(tmp_path / "taken")) for number in range(1, 30)}
    watch = Watch(tmp_path, steps=steps, looks=30)
    watch.run()
    # Looks of 0.2 s each: half a second is three of them.
    assert [len(found) for found in places].count(1) == 3
    assert places[-1] == []


def test_a_result_that_comes_out_after_the_end_still_moves_its_file(tmp_path):
    put(tmp_path, "a.jpg", 1)
    watch = Watch(tmp_path, looks=5)
    (frame,) = list(watch.source.frames())
    assert names(tmp_path / "taken") == ["a.jpg"]
    assert frame.done is not None
    frame.done("")
    assert names(tmp_path / "done") == ["a.jpg"]
    assert Watch(tmp_path).run() == []


def test_a_picture_that_the_model_fails_on_goes_to_failed(tmp_path, caplog):
    put(tmp_path, "a.jpg", 1)
    watch = Watch(tmp_path)
    assert watch.run(fault="model m: boom") == [("a.jpg", 1)]
    assert names(tmp_path / "failed") == ["a.jpg"]
    assert caplog.records[-1].fields["reason"] == "model m: boom"
    assert watch.source.unreadable == 0


def test_files_of_which_none_can_be_used_are_no_quiet_folder_until_one_can(tmp_path):
    def spoil():
        (tmp_path / "bad.jpg").write_text("not a picture at all, but long enough")

    watch = Watch(tmp_path, steps={5: spoil, 30: lambda: put(tmp_path, "good.jpg", 1)})
    assert watch.run() == [("good.jpg", 1)]
    told = [fault for fault, _ in groupby(watch.faults)]
    assert (told[0], len(told), told[2]) == ("", 3, "")
    assert told[1].startswith("'bad.jpg' is moved to `failed`: ")


def test_a_name_that_comes_again_replaces_nothing(tmp_path):
    put(tmp_path, "image.jpg", 1)
    steps = {10 * n: lambda n=n: put(tmp_path, "image.jpg", 1 + n) for n in (1, 2)}
    assert [number for _, number in Watch(tmp_path, steps=steps).run()] == [1, 2, 3]
    kept = names(tmp_path / "done")
    assert len(kept) == 3
    assert all(name.startswith("image.") and name.endswith(".jpg") for name in kept)


def test_a_name_that_comes_again_while_the_first_is_worked_on_waits(tmp_path):
    put(tmp_path, "image.jpg", 1)
    held: list[Any] = []
    steps = {5: lambda: put(tmp_path, "image.jpg", 2), 30: lambda: held[0].done("")}
    for frame in Watch(tmp_path, steps=steps).source.frames():
        held.append(frame)
        assert number_of(frame.image) == len(held)
    assert len(held) == 2


def test_a_name_of_the_longest_kind_that_comes_again(tmp_path):
    name = "n" * 251 + ".jpg"
    put(tmp_path, name, 1)
    assert len(Watch(tmp_path, steps={9: lambda: put(tmp_path, name, 2)}).run()) == 2
    assert len(names(tmp_path / "done")) == 2


def test_a_name_that_is_no_text_is_told_as_far_as_it_can_be(tmp_path):
    path = os.fsencode(tmp_path) + b"/p\xff\n.jpg"
    Path(os.fsdecode(path)).write_bytes(jpeg(picture(3)))
    assert Watch(tmp_path).run() == [("p\ufffd\n.jpg", 3)]


def test_what_is_no_picture_goes_to_failed_or_is_left_alone_and_nothing_outside_is_read(tmp_path, caplog):
    folder, outside = tmp_path / "watched", tmp_path / "outside.jpg"
    folder.mkdir()
    put(tmp_path, "outside.jpg", 9)
    (folder / "link.jpg").symlink_to(outside)
    os.mkfifo(folder / "fifo.png")
    (folder / "text.png").write_text("not a picture at all, but long enough")
    (folder / "large.jpg").write_bytes(bytes(3000))
    (folder / "notes.txt").write_text("mine")
    (folder / ".hidden.jpg").write_text("mine")
    (folder / "inside").mkdir()
    put(folder / "inside", "deeper.jpg", 8)
    put(folder, "good.jpg", 1)
    watch = Watch(folder, max_bytes=2000)
    assert watch.run() == [("good.jpg", 1)]
    assert {path.name for path in (folder / "failed").iterdir()} == {"large.jpg", "link.jpg", "text.png", "fifo.png"}
    assert watch.source.unreadable == 4
    assert outside.exists()
    assert names(folder) == ["notes.txt"]
    assert (folder / "inside" / "deeper.jpg").exists()
    reasons = {Path(r.fields["file"]).name: r.fields["reason"] for r in caplog.records}
    assert "above max_bytes (2000)" in reasons["large.jpg"]
    assert "symbolic link" in reasons["link.jpg"]
    assert "ends in none of" in reasons["notes.txt"]


def test_a_file_that_somebody_takes_away_is_no_fault(tmp_path):
    put(tmp_path, "a.jpg", 1)
    put(tmp_path, "b.jpg", 2)
    watch = Watch(tmp_path)
    frames = watch.source.frames()
    next(frames)
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "taken" / "a.jpg").unlink()
    watch._looks = watch.idles + 3
    assert list(frames) == []


def test_a_folder_is_watched_once(tmp_path):
    put(tmp_path, "a.jpg", 1)
    frames = Watch(tmp_path).source.frames()
    next(frames)
    with pytest.raises(CaptureError, match="is watched by another camera or daemon"):
        next(Watch(tmp_path).source.frames())
    frames.close()  # type: ignore[attr-defined]
    assert Watch(tmp_path).run() == [("a.jpg", 1)]


def test_fps_paces_and_loses_nothing(tmp_path):
    for number in range(5):
        put(tmp_path, f"{number}.jpg", number)
    watch = Watch(tmp_path, fps=2.0)
    times = []
    for frame in watch.source.frames():
        assert frame.done is not None
        times.append(frame.captured_mono_ns)
        frame.done("")
    assert [after - before for before, after in pairwise(times)] == [500_000_000] * 4


def test_what_is_missing_or_no_folder_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "done").symlink_to(tmp_path)
    for path, words in (
        (tmp_path / "none", "No such file or directory; make the folder"),
        (tmp_path / "file", "Not a directory; give a folder"),
        (tmp_path / "odd", "odd/done: .*(symbolic link is not followed|give a folder)"),
    ):
        with pytest.raises(CaptureError, match=words):
            next(Watch(path).source.frames())


def test_a_share_that_is_not_mounted_or_no_longer_is_a_fault(tmp_path):
    with pytest.raises(CaptureError, match=r"nothing is mounted at .*share \(mount_point\)"):
        next(Watch(tmp_path, mount_point=str(tmp_path / "share")).source.frames())
    assert list(tmp_path.iterdir()) == []
    folder = tmp_path / "folder"
    folder.mkdir()

    def replace():
        folder.rename(tmp_path / "away")
        folder.mkdir()

    with pytest.raises(CaptureError, match="another folder is in its place"):
        Watch(folder, steps={3: replace}).run()
    with pytest.raises(CaptureError, match="cannot be looked through: No such file or directory"):
        Watch(folder, steps={3: lambda: subprocess.run(["rm", "-r", str(folder)], check=True)}).run()


@pytest.fixture
def disk(tmp_path):
    """A file system of its own with room for 24 files and folders."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=24", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_disk_that_is_full_or_read_only_is_told_before_a_result_is_made(disk):
    assert Watch(disk, mount_point=str(disk), looks=3).run() == []
    for number in range(30):
        try:
            put(disk, f"{number}.jpg", number)
        except OSError:
            break
    with pytest.raises(CaptureError, match="No space left on device; the disk is full: make room"):
        Watch(disk).run()
    kept = names(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(CaptureError, match=r"Read-only file system; mount it writable \(as a service: ReadWritePaths="):
        Watch(disk).run()
    assert names(disk) == kept
    assert names(disk / "done") == []
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    (disk / kept.pop()).unlink()
    assert len(Watch(disk).run()) == len(kept)


def test_in_a_process_of_its_own_it_says_that_nothing_is_due_and_hears_what_is_done(tmp_path):
    options = {"path": str(tmp_path), "poll_s": 0.01, "settle_s": 0.02}
    limits = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)
    reader = Reader(Job(camera="a", type="hot_folder", options=options), limits, live=False)
    idle, quiet = threading.Event(), []

    def note(fault):
        quiet.append(fault)
        idle.set()

    source = reader.source(note)
    seen = []

    def read():
        for frame in source.frames():
            assert frame.done is not None
            seen.append((frame.origin, number_of(frame.image)))
            frame.done("" if len(seen) < 3 else "boom")

    thread = threading.Thread(target=read)
    thread.start()
    assert idle.wait(20)
    for number in range(3):
        put(tmp_path, f"{number}.jpg", number)
    pause = threading.Event()
    for _ in range(1000):
        if (tmp_path / "failed").exists() and names(tmp_path / "failed"):
            break
        pause.wait(0.01)
    source.close()
    thread.join(10)
    reader.close()
    assert seen == [("0.jpg", 0), ("1.jpg", 1), ("2.jpg", 2)]
    assert names(tmp_path / "done") == ["0.jpg", "1.jpg"]
    assert names(tmp_path / "failed") == ["2.jpg"]
    assert set(quiet) == {""}
