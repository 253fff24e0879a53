"""The parts of supervision, each with a clock, a folder and a kernel of its own."""

import json
import shutil
import socket
import subprocess
import sys
import threading

import pytest
from support_brokers import HandClock

from edgevision.runtime.crashes import CrashJournal, SafeMode, blame
from edgevision.runtime.progress import Board, Stuck
from edgevision.runtime.systemd import Notifier
from edgevision.runtime.wall_clock import clock_synchronised
from edgevision.runtime.watchman import Watchman


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """A socket as systemd opens it, and its name as systemd gives it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edgevision-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name[1:] if name.startswith("@") else name)
        server.settimeout(5)
        yield server, name


def test_systemd_is_told_in_its_own_words(systemd):
    server, name = systemd
    clock = HandClock()
    clock.now_ns = 5_000_000
    notifier = Notifier(address=name, watchdog_ns=10**9, clock=clock)
    notifier.ready()
    notifier.reloading()
    notifier.status("online:\n2 of 3")
    notifier.status("online: 2 of 3")
    notifier.alive()
    notifier.stopping(600.0)
    told = [server.recv(1000).decode() for _ in range(5)]
    assert told == [
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=5000",
        "STATUS=online: 2 of 3",
        "WATCHDOG=1",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=615000000",
    ]


def test_a_systemd_that_has_gone_is_said_once_and_no_more(tmp_path, caplog):
    notifier = Notifier(address=str(tmp_path / "nobody"))
    notifier.ready()
    notifier.stopping(20.0)
    assert [record.message for record in caplog.records] == ["systemd cannot be told"]


def test_the_watchdog_is_ours_only_where_systemd_means_us(monkeypatch):
    from edgevision.environment import watchdog_interval_ns

    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert watchdog_interval_ns(7) == 30_000_000_000
    monkeypatch.setenv("WATCHDOG_PID", "8")
    assert watchdog_interval_ns(7) is None
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert watchdog_interval_ns(8) is None


def test_work_that_lasts_is_stuck_and_waiting_is_not():
    clock = HandClock()
    board = Board(clock)
    model, sink = board.part("model:m", limit_s=10), board.part("sink:mqtt", limit_s=60)
    model.enter("inference")
    clock.now_ns = 9 * 10**9
    assert board.stuck() is None
    sink.enter("a round")
    clock.now_ns = 11 * 10**9
    assert str(board.stuck()) == "model:m is stuck in inference for 11.0 s (limit 10 s)"
    model.idle()
    assert board.stuck() is None
    clock.now_ns = 10**15
    assert str(board.stuck()).startswith("sink:mqtt")
    board.remove("sink:mqtt")
    assert board.stuck() is None
    model.ended = lambda: True
    assert "its thread has ended" in str(board.stuck())


def test_the_watchman_feeds_while_all_is_well_then_tells_and_leaves(tmp_path, systemd):
    server, name = systemd
    clock = HandClock()
    board = Board(clock)
    part = board.part("model:m", limit_s=10)
    told: list[Stuck] = []
    left: list[int] = []
    watchman = Watchman(
        board,
        notifier=Notifier(address=name, watchdog_ns=10**9, clock=clock),
        clock=clock,
        last_words=told.append,
        leave=left.append,
        health_dir=tmp_path,
    )
    part.enter("inference")
    assert watchman.look() is None
    assert server.recv(100) == b"WATCHDOG=1"
    assert json.loads((tmp_path / "health.json").read_text())["healthy"]
    clock.now_ns = 11 * 10**9
    stuck = watchman.look()
    assert (told, left) == ([stuck], [9])
    assert server.recv(200).startswith(b"STATUS=ends: model:m is stuck in inference")
    assert not json.loads((tmp_path / "health.json").read_text())["healthy"]
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.recv(100)  # it is fed no more


def test_a_health_file_that_cannot_be_written_is_tried_again_and_told_once(tmp_path, caplog):
    caplog.set_level("INFO")
    run = tmp_path / "run" / "box"
    clock = HandClock()
    watchman = Watchman(Board(clock), notifier=Notifier(), clock=clock, last_words=lambda stuck: None, health_dir=run)
    watchman.look()
    assert (run / "health.json").is_file(), "the folder is made where it is missing"
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").touch()  # no folder can be made in a file
    for _ in range(3):
        watchman.look()
    (tmp_path / "run").unlink()
    for _ in range(3):
        watchman.look()
    assert json.loads((run / "health.json").read_text())["healthy"]
    told = [record.message for record in caplog.records]
    assert told == ["health file cannot be written; it is tried again at every look", "health file is written again"]
    (run / "health.json").unlink()
    (run / "health.json").mkdir()
    watchman.stop()
    assert "health file cannot be removed" in caplog.text


class Kernel:
    """A /proc whose machine can be switched off."""

    def __init__(self, folder):
        self.root = folder
        self._file = folder / "sys" / "kernel" / "random" / "boot_id"
        self._file.parent.mkdir(parents=True)
        self.boot("one")

    def boot(self, name):
        self._file.write_text(name)


@pytest.fixture
def kernel(tmp_path):
    return Kernel(tmp_path / "proc")


@pytest.fixture
def begin(tmp_path, kernel):
    """Begins a run; one that is not ended is a crash."""
    journals = []

    def call(identity="c", **more):
        journal = CrashJournal(tmp_path / "state", "box", clock=HandClock(), after=3, proc=kernel.root)
        journals.append(journal)
        return journal, journal.begin(identity, **more)

    yield call
    for journal in journals:
        journal.end("clean", reason="the test is over")


def crash(begin, part="model:m", times=1, **more):
    for _ in range(times):
        journal, _ = begin(**more)
        journal.end("stuck", reason="x", part=part)


def test_three_crashes_in_a_row_leave_the_part_out_until_something_changes(begin):
    crash(begin, times=2)
    assert begin()[1] == SafeMode()
    begin()[0].end("stuck", reason="x", part="model:m")
    journal, safe = begin()
    assert safe.parts == ("model:m",)
    assert "--no-safe-mode" in safe.reason
    journal.end("clean", reason="SIGTERM")
    assert begin()[1].parts == ("model:m",), "a clean stop brings no part back"
    assert begin("another config")[1].parts == ()


def test_a_whole_start_forgets(begin):
    crash(begin, times=4)
    assert begin()[1].parts
    assert begin(whole=True)[1].parts == ()
    assert begin()[1].parts == ()


def test_what_crashes_in_safe_mode_is_left_out_too(begin):
    crash(begin, times=3)
    crash(begin, "camera:a", times=3)
    assert begin()[1].parts == ("model:m", "camera:a")


def test_a_power_cut_and_a_good_run_break_the_row(begin, kernel):
    crash(begin, times=2)
    begin()
    kernel.boot("two")
    crash(begin, times=2)
    journal, safe = begin()
    assert safe == SafeMode()
    journal.good()
    crash(begin, times=2)
    assert begin()[1] == SafeMode()


def test_a_crash_while_a_model_is_loaded_is_that_models(begin):
    for _ in range(3):
        journal, _ = begin()
        journal.doing("model:m")  # and the process is killed
    assert begin()[1].parts == ("model:m",)


def test_a_journal_that_is_torn_begins_anew_and_one_that_cannot_be_written_is_no_reason_not_to_run(tmp_path, caplog):
    (tmp_path / "runs-box.json").write_text('{"runs": [')
    journal = CrashJournal(tmp_path, "box", clock=HandClock(), after=3)
    assert journal.begin("c") == SafeMode()
    journal.end("clean", reason="")
    assert "begins anew" in caplog.text
    (tmp_path / "file").touch()
    journal = CrashJournal(tmp_path / "file" / "state", "box", clock=HandClock(), after=3)
    assert journal.begin("c") == SafeMode()
    journal.end("clean", reason="")
    assert "crashes will not be counted" in caplog.text


def test_a_stack_that_the_disk_does_not_give_or_take_is_no_reason_not_to_run(begin, tmp_path, caplog):
    dump, last = tmp_path / "state" / "crash-box.txt", tmp_path / "state" / "crash-box.last.txt"

    def told():
        found = [(record.message, record.fields["reason"]) for record in caplog.records if "stack" in record.message]
        assert all(record.fields["file"] == str(dump) for record in caplog.records if "stack" in record.message)
        caplog.clear()
        return found

    journal, _ = begin()
    journal.doing("model:m")  # and the process is killed
    dump.unlink()
    dump.symlink_to("/proc/self/mem")  # the kernel's own EIO to whoever reads it
    assert begin()[1] == SafeMode()
    assert told() == [("stack of the last crash cannot be read: it counts without", "Input/output error")]
    run = json.loads((tmp_path / "state" / "runs-box.json").read_text())["runs"][0]
    assert (run["end"], run["part"]) == ("crashed", "model:m")

    last.unlink()
    last.mkdir()
    begin()
    assert told() == [("stack of the last crash cannot be kept", "Is a directory")]
    last.rmdir()
    last.touch()
    dump.unlink()
    dump.mkdir()  # can neither be moved onto a file, nor be written as one
    journal, _ = begin()
    assert told() == [
        ("stack of the last crash cannot be kept", "Not a directory"),
        ("stack of a crash cannot be written: it would count without", "Is a directory"),
    ]
    journal.end("clean", reason="")


def test_a_real_segfault_is_laid_at_the_door_of_its_thread(tmp_path):
    """A real process, a real signal: the journal of the next start names the thread."""
    code = f"""
import ctypes, threading
from pathlib import Path
from edgevision.clock import SYSTEM_CLOCK
from edgevision.runtime.crashes import CrashJournal
journal = CrashJournal(Path({str(tmp_path)!r}), "box", clock=SYSTEM_CLOCK, after=1)
journal.begin("c")
go = threading.Event()
def crash():
    go.wait()
    ctypes.string_at(0)
def wait():
    threading.Event().wait()
threading.Thread(target=crash, name="camera:infeed").start()
threading.Thread(target=wait, name="model:m").start()
journal.running()
go.set()
threading.Event().wait()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
    assert done.returncode == -11
    journal = CrashJournal(tmp_path, "box", clock=HandClock(), after=1)
    assert journal.begin("c").parts == ("camera:infeed",)
    journal.end("clean", reason="")
    run = json.loads((tmp_path / "runs-box.json").read_text())["runs"][0]
    assert run["reason"] == "Fatal Python error: Segmentation fault"


def test_a_runtimes_own_thread_is_laid_at_the_only_model_that_was_inside():
    stack = """Fatal Python error: Aborted

Thread 0x00007f01 (most recent call first):
  File "/x/edgevision/inference/onnxrt.py", line 3 in run
Thread 0x00007f02 (most recent call first):
  File "/x/edgevision/runtime/exchange.py", line 3 in take
"""
    threads = {"7f01": "model:a", "7f02": "model:b"}
    assert blame(stack, threads) == "model:a"
    assert blame(stack.replace("runtime/exchange", "inference/litert"), threads) is None
    assert blame("", threads) is None


def test_the_clock_is_asked_of_the_kernel_and_then_of_timesyncd(tmp_path):
    assert clock_synchronised(kernel_state=lambda: 0) is True
    assert clock_synchronised(kernel_state=lambda: 5) is False
    assert clock_synchronised(root=tmp_path, kernel_state=lambda: None) is None
    mark = tmp_path / "run" / "systemd" / "timesync" / "synchronized"
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert clock_synchronised(root=tmp_path, kernel_state=lambda: None) is True
    assert clock_synchronised() in {True, False, None}


def test_a_sinks_thread_stamps_its_rounds(tmp_path):
    from edgevision.publish import jsonl, mqtt
    from edgevision.publish.base import SinkContext
    from edgevision.types import Message

    class Noted:
        def __init__(self):
            self.seen = threading.Event()

        def enter(self, doing):
            self.seen.set()

        def idle(self):
            pass

    for plugin, options in (
        (jsonl, jsonl.Options(path=tmp_path / "o.jsonl")),
        (mqtt, mqtt.Options(host="127.0.0.1", port=1)),
    ):
        noted = Noted()
        sink = plugin.create(options, SinkContext(device="d", progress=noted))
        sink.publish(Message(topic="t", payload=b"{}"))
        assert noted.seen.wait(10)
        sink.close(0.5)
