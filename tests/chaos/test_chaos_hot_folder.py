"""A watched folder under a daemon that is killed: no picture is lost, and each is told by its name."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import yaml
from chaos_support import House, make
from support_brokers import wait_until

import edgevision

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


def names(folder):
    return sorted(path.name for path in folder.glob("*.jpg"))


def put(folder, name):
    """As a careful writer does it."""
    shutil.copy(PHOTOS / "coffee.jpg", folder / f".{name}")
    (folder / f".{name}").rename(folder / name)


def test_a_quiet_folder_is_live_and_its_pictures_are_named_in_results(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    source = {"type": "hot_folder", "path": str(folder), "settle_s": 0.05, "poll_s": 0.05}
    camera = {"name": "a", "source": source, "model": "m", "stall_after_s": 0.4}
    with House(make([camera])) as house:
        assert house.state("a", "live")["reason"] == "the source is watched; no picture is due"
        threading.Event().wait(0.8)  # twice its stall_after_s, in which nothing comes
        assert [content["camera_state"] for content in house.of("a/status")] == ["starting", "live"]
        put(folder, "one.jpg")
        assert house.result("a")["frame"]["origin"] == "one.jpg"
        wait_until(lambda: names(folder / "done") == ["one.jpg"])
        folder.rename(tmp_path / "away")
        reason = house.state("a", "failed")["reason"]
        assert "No such file or directory; make the folder" in reason
        folder.mkdir()
        seen = house.last_seq("a/status")
        assert house.state("a", "live", after=seen - 1)
        put(folder, "two.jpg")
        house.wait_for("a/results", lambda content: content["frame"]["origin"] == "two.jpg")
    # The frame in hand at the end is moved as well.
    assert names(folder) == names(folder / "taken") == []


def test_a_daemon_that_is_killed_again_and_again_loses_no_picture(tmp_path):
    folder, results = tmp_path / "in", tmp_path / "results.jsonl"
    folder.mkdir()
    config = {
        "device": "box",
        "state_dir": str(tmp_path / "state"),
        "sinks": [{"type": "jsonl", "path": str(results)}],
        "models": {"m": {"model": "efficientnet-lite0", "threads": 1}},
        "cameras": [
            {
                "name": "a",
                "model": "m",
                "source": {"type": "hot_folder", "path": str(folder), "settle_s": 0.02, "poll_s": 0.02},
            }
        ],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))

    def origins():
        lines = results.read_text().splitlines() if results.exists() else []
        contents = [json.loads(line)["payload"] for line in lines if line.endswith("}")]
        return [found["frame"]["origin"] for found in contents if found["schema"] == "edgevision/result/1"]

    wanted = [f"{number:03}.jpg" for number in range(60)]
    for begin, kill in ((0, True), (20, True), (40, False)):
        for name in wanted[begin : begin + 20]:
            put(folder, name)
        enough = 60 if not kill else len(set(origins())) + 5
        command = [sys.executable, "-m", "edgevision", "run", "-c", str(tmp_path / "config.yaml")]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
            try:
                wait_until(lambda enough=enough: len(set(origins())) >= enough, "some results", 60)  # type: ignore[misc]
                if not kill:
                    daemon.terminate()
                    assert daemon.wait(30) == 0
            finally:
                daemon.kill()
    assert names(folder / "done") == wanted
    assert names(folder) == names(folder / "taken") == names(folder / "failed") == []
    # Again is only what was in hand at a kill: with the model, waiting for it, and in the half second after its result.
    assert len(origins()) - len(wanted) <= 2 * 20
