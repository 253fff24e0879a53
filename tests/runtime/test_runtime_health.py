"""The state machine of a camera's truth, with times that the test owns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.config import HealthSection
from edgevision.errors import StateError
from edgevision.runtime.baseline import Baseline, BaselineFile
from edgevision.runtime.health import Health, Measures
from edgevision.runtime.watch import PictureWatch
from edgevision.types import Frame

NS = 1_000_000_000
GOOD = {"dark_share": 0.1, "bright_share": 0.1, "difference": 2.0, "sharpness": 1.0}
BAD = {
    "dark": {"dark_share": 0.99},
    "overexposed": {"bright_share": 0.99},
    "frozen": {"difference": 0.0},
    "blurred": {"sharpness": 0.1},
}


def play(frames, *, late_after_s=2.0, **options):
    """Verdicts for (seconds, measures)."""
    health = Health(HealthSection(**options), late_after_s=late_after_s)
    return [health.see(Measures(mono_ns=round(at_s * NS), **{**GOOD, **seen})) for at_s, seen in frames]


def changes(verdicts, times):
    found, last = [], "live"
    for verdict, at_s in zip(verdicts, times, strict=True):
        if verdict.state != last:
            found.append((at_s, verdict.state))
            last = verdict.state
    return found


@pytest.mark.parametrize("state", ["dark", "overexposed", "blurred"])
def test_a_fault_is_confirmed_and_cleared_after_its_time_and_never_trusted_meanwhile(state):
    times = [n / 10 for n in range(100)]
    frames = [(at_s, BAD[state] if 2 <= at_s < 5 else {}) for at_s in times]
    verdicts = play(frames)
    assert changes(verdicts, times) == [(3.0, state), (7.0, "live")]
    assert [at_s for at_s, verdict in zip(times, verdicts, strict=True) if not verdict.trusted] == [
        at_s for at_s in times if 2 <= at_s < 7
    ]
    reasons = {verdict.reason for verdict in verdicts if verdict.state == state}
    assert len(reasons) == 1, "a reason that changed with every frame would be published with every frame"


def test_the_same_picture_is_frozen_after_its_time_and_live_again_after_change():
    times = [n / 10 for n in range(300)]
    verdicts = play([(at_s, BAD["frozen"] if 2 <= at_s < 15 else {}) for at_s in times])
    assert changes(verdicts, times) == [(11.9, "frozen"), (17.0, "live")]


def test_a_pause_is_late_at_once_and_cleared_by_steady_frames():
    times = [0, 0.1, 2.5, 2.6, 4.4, 4.5, 4.6]
    verdicts = play([(at_s, {}) for at_s in times])
    assert changes(verdicts, times) == [(2.5, "late"), (4.6, "live")]
    assert "2.4 s between two frames" in verdicts[2].reason


def test_the_cause_is_told_before_what_follows_from_it():
    times = [n / 10 for n in range(200)]
    covered = {"dark_share": 1.0, "difference": 0.0, "sharpness": None}
    assert changes(play([(at_s, covered) for at_s in times]), times) == [(1.0, "dark")]


@pytest.mark.parametrize("key", ["dark_share", "overexposed_share", "frozen_after_s", "blurred_below"])
def test_every_check_has_its_off_switch(key):
    state = {
        "dark_share": "dark",
        "overexposed_share": "overexposed",
        "frozen_after_s": "frozen",
        "blurred_below": "blurred",
    }[key]
    frames = [(n / 10, BAD[state]) for n in range(200)]
    assert {verdict.state for verdict in play(frames)} == {"live", state}
    assert {(verdict.state, verdict.trusted) for verdict in play(frames, **{key: None})} == {("live", True)}
    late: list[tuple[int, dict[str, float]]] = [(0, {}), (60, {})]
    assert {verdict.state for verdict in play(late, late_after_s=None)} == {"live"}


steps = st.tuples(st.floats(0.01, 3.0), st.sampled_from([{}, *BAD.values()]))


@given(st.lists(steps, max_size=200), st.floats(0, 3), st.floats(0.1, 3))
def test_no_state_flaps_and_no_bad_frame_is_trusted(walk, confirm_s, clear_s):
    at_s, frames = 0.0, []
    for step_s, seen in walk:
        at_s += step_s
        frames.append((at_s, seen))
    verdicts = play(frames, confirm_s=confirm_s, clear_s=clear_s)
    last_bad_s = None
    for (now_s, seen), verdict in zip(frames, verdicts, strict=True):
        assert verdict.trusted <= (verdict.state == "live")
        if "dark_share" in seen or "bright_share" in seen:
            assert not verdict.trusted
            last_bad_s = now_s
        if verdict.state == "live" and last_bad_s is not None and "difference" not in seen:
            live_before = [v.state for (at, _), v in zip(frames, verdicts, strict=True) if at < now_s]
            if live_before and live_before[-1] in {"dark", "overexposed"}:
                assert now_s - last_bad_s >= clear_s - 1e-6, "a fault ends only after it has been gone for clear_s"


@given(st.lists(steps, max_size=200))
def test_one_bad_frame_among_good_ones_never_changes_the_state(walk):
    frames, at_s = [], 0.0
    for number, (_, seen) in enumerate(walk):
        at_s += 0.3
        frames.append((at_s, seen if number % 2 else {}))
    assert {verdict.state for verdict in play(frames)} <= {"live"}


def test_after_a_restart_the_pause_is_not_late():
    health = Health(HealthSection(), late_after_s=2.0)
    health.see(Measures(mono_ns=0))
    health.restart()
    assert health.see(Measures(mono_ns=60 * NS)).state == "live"


class WallClock:
    def time_ns(self):
        return 1_700_000_000 * NS

    def monotonic_ns(self):
        raise AssertionError("frames bring their own times")

    def wait(self, event, seconds):
        raise AssertionError("nothing waits here")


def chessboard(size=(480, 640), square=16):
    rows, columns = np.indices(size) // square
    return np.repeat(((rows + columns) % 2 * 200 + 25).astype(np.uint8)[..., None], 3, axis=2)


def blurred(image):
    import cv2

    return np.asarray(cv2.GaussianBlur(image, (0, 0), 5), np.uint8)


class Filming:
    """Shows pictures to a watch, ten a second, each with a little noise."""

    def __init__(self, folder, **options):
        self.file = BaselineFile(path=folder / "cameras" / "a" / "baseline.json")
        section = HealthSection(baseline_after_s=5, **options)
        self.watch = PictureWatch("a", section, late_after_s=2.0, baseline=self.file, clock=WallClock())
        self.now_ns, self.noise = 0, np.random.default_rng(0)

    @property
    def trouble(self):
        return self.watch.focus.trouble

    def show(self, image, seconds):
        verdicts = []
        for _ in range(round(seconds * 10)):
            self.now_ns += NS // 10
            noisy = image + self.noise.integers(0, 3, image.shape, np.uint8)
            frame = Frame(image=noisy, camera="a", sequence=0, captured_at_ns=0, captured_mono_ns=self.now_ns)
            verdicts.append(self.watch.see(frame))
        return verdicts


def test_the_first_good_time_makes_the_baseline_and_a_slipped_lens_is_blurred(tmp_path):
    filming = Filming(tmp_path)
    dark = np.zeros((480, 640, 3), np.uint8)
    filming.show(chessboard(), 3)
    assert filming.show(dark, 3)[-1].state == "dark"
    assert filming.show(chessboard(), 4)[-1].state == "live"
    assert filming.file.load() is None, "a time broken by darkness makes no baseline"
    filming.show(chessboard(), 5)
    made = filming.file.load()
    assert made is not None
    assert (made.width, made.height, made.made_at) == (640, 480, "2023-11-14T22:13:20.000000Z")
    assert filming.show(blurred(chessboard()), 4)[-1].state == "blurred"
    assert filming.show(chessboard(), 5)[-1].state == "live"
    dimmed = (chessboard() * 0.5).astype(np.uint8)
    assert {verdict.state for verdict in filming.show(dimmed, 5)} == {"live"}, "less light is not less focus"
    # A new start, the lens already slipped: the baseline is the old one.
    assert Filming(tmp_path).show(blurred(chessboard()), 4)[-1].state == "blurred"
    assert filming.file.load() == made


def test_a_damaged_baseline_is_one_line_and_switches_the_check_off(tmp_path, caplog):
    filming = Filming(tmp_path)
    filming.file.path.parent.mkdir(parents=True)
    filming.file.path.write_text('{"sharpness": ')
    with pytest.raises(StateError, match=r"baseline\.json: is damaged; delete it"):
        filming.file.load()
    filming = Filming(tmp_path)
    assert {verdict.state for verdict in filming.show(chessboard(), 8)} == {"live"}
    assert [record.message for record in caplog.records] == ["camera has no baseline"]
    assert filming.trouble == f"blurred is off: {filming.file.path}: is damaged; delete it, and a new baseline is made"
    assert filming.file.path.read_text() == '{"sharpness": '


def test_a_baseline_of_another_size_is_told_once(tmp_path, caplog):
    filming = Filming(tmp_path)
    filming.file.save(Baseline(version=1, sharpness=0.1, width=64, height=48, made_at="x"))
    filming = Filming(tmp_path)
    assert filming.trouble == ""
    assert {verdict.state for verdict in filming.show(blurred(chessboard()), 5)} == {"live"}
    assert [record.message for record in caplog.records] == ["camera baseline does not fit"]
    assert "640x480" in caplog.records[0].fields["reason"]
    assert filming.trouble.startswith(
        f"blurred is off: {filming.file.path} was made of pictures of 64x48, these are 640x480"
    )
    # The camera is set to the size that it had.
    filming.show(chessboard((48, 64)), 2)
    assert filming.trouble == ""


def test_a_baseline_that_cannot_be_kept_serves_until_the_end(tmp_path, caplog):
    (tmp_path / "cameras" / "a" / "baseline.new").mkdir(parents=True)  # where the new file would be written
    filming = Filming(tmp_path)
    filming.show(chessboard(), 6)
    assert [record.message for record in caplog.records if record.message == "camera baseline is not kept"]
    assert filming.show(blurred(chessboard()), 4)[-1].state == "blurred"


def test_a_baseline_that_is_taken_away_or_measured_anew_is_noticed_without_a_restart(tmp_path, caplog):
    caplog.set_level("INFO")
    filming = Filming(tmp_path)
    filming.show(chessboard(), 6)
    first = filming.file.load()
    assert first is not None
    assert filming.show(blurred(chessboard()), 4)[-1].state == "blurred"
    filming.watch.focus.look_at_file()
    assert filming.show(blurred(chessboard()), 2)[-1].state == "blurred", "its own file is no news"
    # Somebody says that this is how it should be: it is blurred against nothing any more, and a new baseline is learnt.
    assert filming.file.clear()
    assert not filming.file.clear()
    filming.watch.focus.look_at_file()
    verdicts = filming.show(blurred(chessboard()), 9)
    assert (verdicts[0].trusted, verdicts[-1].state) == (False, "live")
    second = filming.file.load()
    assert second is not None
    assert second.sharpness < first.sharpness / 3
    # Somebody measures the better focus beside the daemon.
    filming.watch.focus.look_at_file()
    filming.file.save(first)
    filming.watch.focus.look_at_file()
    assert filming.show(blurred(chessboard()), 4)[-1].state == "blurred"
    told = [record.message for record in caplog.records]
    assert told == [
        "camera baseline made",
        "camera baseline taken away: a new one is made",
        "camera baseline made",
        "camera baseline changed: it is taken over",
    ]


def test_a_baseline_that_becomes_damaged_is_told_once_and_mended_by_a_good_one(tmp_path, caplog):
    filming = Filming(tmp_path)
    filming.show(chessboard(), 6)
    good = filming.file.load()
    assert good is not None
    filming.file.path.write_text("{")
    for _ in range(3):
        filming.watch.focus.look_at_file()
    assert {verdict.state for verdict in filming.show(blurred(chessboard()), 8)} == {"live"}
    told = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["camera has no baseline"]
    assert "is damaged" in filming.trouble
    filming.file.save(good)
    filming.watch.focus.look_at_file()
    assert filming.trouble == ""
    assert filming.show(blurred(chessboard()), 4)[-1].state == "blurred"


def test_a_baseline_that_is_not_ours_to_read_is_taken_over_when_it_is(tmp_path, monkeypatch):
    Filming(tmp_path).show(chessboard(), 6)
    load = BaselineFile.load

    def refuse(file):
        raise StateError(f"{file.path}: cannot be read: Permission denied")

    monkeypatch.setattr(BaselineFile, "load", refuse)
    filming = Filming(tmp_path)
    assert "Permission denied" in filming.trouble
    monkeypatch.setattr(BaselineFile, "load", load)
    filming.file.path.chmod(0o640)
    filming.watch.focus.look_at_file()
    assert filming.trouble == ""
    assert filming.show(blurred(chessboard()), 4)[-1].state == "blurred"


def test_a_state_folder_that_could_not_be_entered_is_looked_at_again(tmp_path):
    (tmp_path / "cameras").write_text("a file, where a folder should be")
    filming = Filming(tmp_path)
    assert "Not a directory" in filming.trouble
    filming.watch.focus.look_at_file()
    (tmp_path / "cameras").unlink()
    filming.watch.focus.look_at_file()
    assert filming.trouble == ""
    filming.show(chessboard(), 8)
    assert filming.file.load() is not None


def test_a_baseline_is_learnt_anew_where_nothing_was_sharp(tmp_path, monkeypatch):
    filming = Filming(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("edgevision.picture.sharpness", lambda _: 0.0)
        filming.show(chessboard(), 8)
    assert filming.file.load() is None
    filming.show(chessboard(), 8)
    assert filming.file.load() is not None
