"""Cameras that die, hang, talk nonsense and change their mind, at the other end of a real network connection."""

import time
from pathlib import Path

import pytest
from chaos_support import House, camera, install_plugin, make, nothing_left, only_long, seconds_since
from support_cameras import NEEDS, RtspCamera, has_gstreamer, nonsense_camera, silent_camera
from support_proxy import Proxy

import edgevision

PHOTO = Path(edgevision.__file__).parent / "data" / "photos" / "coffee.jpg"
STALL_S = 2.0
DEADLINE_S = 1.5 * STALL_S
GOOD = {"type": "synthetic", "live": True, "width": 160, "height": 120}


needs_rtsp = pytest.mark.skipif(not has_gstreamer(), reason=NEEDS)


def two(source):
    return make([camera("hit", source), camera("good", GOOD, fps=15)])


def goes_on(house, before, since_s):
    """The other camera's frames came meanwhile, without a gap in its state."""
    assert house.service.stations["good"].camera.captured - before > 0.6 * 15 * since_s
    assert {result["camera_state"] for result in house.of("good/results")} == {"live"}


@needs_rtsp
def test_a_camera_that_is_killed_is_told_and_is_back_within_seconds_with_another_picture_size():
    with nothing_left(), RtspCamera() as rtsp, House(two(rtsp.source)) as house:
        house.result("hit")
        house.state("good", "live")
        before, began_s = house.service.stations["good"].camera.captured, time.monotonic()
        reader = house.reader("hit").pid
        told = house.last_seq("hit/status")
        rtsp.kill()
        failed = house.state("hit", "failed", after=told)
        assert seconds_since(began_s) < 2 * DEADLINE_S
        assert "ended the stream" in failed["reason"]
        # It is tried in vain first, and keeps its reader for that.
        refused = house.state("hit", "failed", after=failed["seq"])
        assert "Connection refused" in refused["reason"]
        assert house.reader("hit").pid == reader
        rtsp.start(size="320x240")
        back_s = time.monotonic()
        house.state("hit", "live", after=refused["seq"])
        result = house.result("hit", after=house.last_seq("hit/results"))
        assert seconds_since(back_s) < 5
        assert (result["frame"]["width"], result["frame"]["height"]) == (320, 240)
        assert house.reader("hit").pid == reader
        goes_on(house, before, seconds_since(began_s))


@needs_rtsp
def test_a_camera_that_hangs_is_stalled_then_failed_and_is_back_within_seconds():
    with RtspCamera() as rtsp, House(two(rtsp.source)) as house:
        house.result("hit")
        house.state("good", "live")
        before, began_s = house.service.stations["good"].camera.captured, time.monotonic()
        told = house.last_seq("hit/status")
        rtsp.freeze()
        stalled = house.state("hit", "stalled", "failed", after=told)
        assert seconds_since(began_s) < 2 * STALL_S
        assert not stalled["trusted"]
        house.state("hit", "failed", after=stalled["seq"] - 1)
        assert seconds_since(began_s) < 2 * DEADLINE_S
        told = house.last_seq("hit/status")
        rtsp.thaw()
        back_s = time.monotonic()
        house.state("hit", "live", after=told)
        assert seconds_since(back_s) < 5
        goes_on(house, before, seconds_since(began_s))


@needs_rtsp
def test_a_camera_that_comes_back_with_another_codec_is_read_as_before():
    with RtspCamera() as rtsp, House(two(rtsp.source)) as house:
        house.result("hit")
        house.state("good", "live")
        before, began_s = house.service.stations["good"].camera.captured, time.monotonic()
        reader, told = house.reader("hit").pid, house.last_seq("hit/status")
        rtsp.kill()
        rtsp.start(size="320x240", codec="vp8")
        back_s = time.monotonic()
        failed = house.state("hit", "failed", after=told)
        live = house.state("hit", "live", after=failed["seq"])
        result = house.wait_for("hit/results", lambda result: result["captured_at"] > live["since"])
        assert seconds_since(back_s) < 5
        assert (result["frame"]["width"], result["frame"]["height"]) == (320, 240)
        assert house.reader("hit").pid == reader
        goes_on(house, before, seconds_since(began_s))


@needs_rtsp
@only_long
def test_a_line_that_garbles_or_goes_half_open_costs_its_own_camera_seconds():
    """The camera's server is well; what is between us and it is not."""
    with RtspCamera() as rtsp, Proxy(rtsp.port) as line:
        source = {"type": "opencv", "url": f"rtsp://127.0.0.1:{line.port}/cam"}
        with House(two(source)) as house:
            house.result("hit")
            house.state("good", "live")
            before, began_s = house.service.stations["good"].camera.captured, time.monotonic()
            told = house.last_seq("hit/status")
            line.swallow()
            silent_s = time.monotonic()
            stalled = house.state("hit", "stalled", after=told)
            assert seconds_since(silent_s) < 2 * STALL_S
            house.state("hit", "failed", after=stalled["seq"])
            assert seconds_since(silent_s) < 2 * DEADLINE_S
            line.garble(every=50)
            tries = house.service.stations["hit"].camera.restarts
            with house.sink.told:
                assert house.sink.told.wait_for(
                    lambda: house.service.stations["hit"].camera.restarts > tries + 1 or line.accepted > 3, 20
                )
            told = house.last_seq("hit/status")
            line.through()
            back_s = time.monotonic()
            live = house.state("hit", "live", after=told - 1)
            house.wait_for("hit/results", lambda result: result["trusted"] and result["captured_at"] > live["since"])
            assert seconds_since(back_s) < 5
            goes_on(house, before, seconds_since(began_s))


def test_a_camera_that_takes_the_call_and_never_answers_is_failed_with_a_reason_and_tried_again():
    with silent_camera() as silent:
        source = {"type": "opencv", "url": f"rtsp://127.0.0.1:{silent.port}/x", "open_timeout_s": 1}
        with House(two(source)) as house:
            house.state("good", "live")
            before, began_s = house.service.stations["good"].camera.captured, time.monotonic()
            failed = house.state("hit", "failed")
            assert "no video within 1 s (open_timeout_s)" in failed["reason"]
            with house.sink.told:
                assert house.sink.told.wait_for(lambda: silent.answered >= 2, 15)
            assert house.reader("hit").is_running()
            goes_on(house, before, seconds_since(began_s))


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_talks_nonsense_is_failed_with_a_reason_and_tried_again(scheme):
    with nonsense_camera() as nonsense:
        port = nonsense.port
        with House(two({"type": "opencv", "url": f"{scheme}://127.0.0.1:{port}/x", "open_timeout_s": 2})) as house:
            house.state("good", "live")
            failed = house.state("hit", "failed")
            assert f"127.0.0.1:{port}" in failed["reason"]
            assert "\n" not in failed["reason"]
            before, began_s = house.service.stations["good"].camera.captured, time.monotonic()
            with house.sink.told:
                assert house.sink.told.wait_for(lambda: house.service.stations["hit"].camera.restarts >= 2, 15)
            assert nonsense.answered >= 2
            goes_on(house, before, seconds_since(began_s))


def test_a_camera_whose_lens_is_covered_answers_unknown_and_never_disappeared(tmp_path, monkeypatch):
    """Presence was told; then the picture goes black: that is no disappearance."""
    install_plugin(tmp_path, monkeypatch)
    cover = tmp_path / "cover"
    one = camera(
        "a",
        {"type": "faulty", "photo": str(PHOTO), "cover": str(cover)},
        fps=15,
        rules=[{"type": "presence", "label": "espresso", "frames": 2}],
        health={"confirm_s": 0.5, "clear_s": 0.5},
    )
    with House(make([one])) as house:
        appeared = house.wait_for("a/events", lambda event: event["kind"] == "appeared")
        cover.touch()
        dark = house.state("a", "dark")
        assert "check the light and the lens" in dark["reason"]
        assert not dark["trusted"]
        unknown = house.wait_for("a/events", lambda event: True, after=appeared["seq"])
        assert (unknown["kind"], unknown["trusted"], unknown["rule"]) == ("unknown", False, "presence")
        darkened = house.wait_for("a/results", lambda result: result["camera_state"] == "dark")
        assert not darkened["trusted"]
        results = house.of("a/results")
        # From the first covered frame on nothing is trusted, although the state takes its time.
        first = next(result for result in results if not result["trusted"])
        assert first["camera_state"] == "live"
        assert not any(result["trusted"] for result in results[first["seq"] - 1 : darkened["seq"]])
        cover.unlink()
        house.state("a", "live", after=dark["seq"])
        again = house.wait_for("a/events", lambda event: True, after=unknown["seq"])
        assert (again["kind"], again["trusted"]) == ("appeared", True)
        assert [event["kind"] for event in house.of("a/events")] == ["appeared", "unknown", "appeared"]
