"""`edgevision baseline`: the real command over real sources, beside a real daemon's watch."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

import edgevision
from edgevision.runtime.baseline import BaselineFile, as_owner_of

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


def write(folder, *cameras):
    text = f"device: box\nstate_dir: {folder}/state\nsinks: [{{type: memory}}]\nmodels: {{m: {{model: efficientnet-lite0}}}}\n"
    (folder / "c.yaml").write_text(text + "cameras:\n" + "".join(f"  - {json.dumps(camera)}\n" for camera in cameras))
    return folder / "c.yaml"


def synthetic(name="infeed", *, health=None, reader=None, **source):
    source = {"type": "synthetic", "width": 320, "height": 240, "live": True, **source}
    reader = reader or {"run": "thread"}
    return {"name": name, "model": "m", "fps": 20, "source": source, "reader": reader, "health": health or {}}


def test_it_is_measured_shown_and_cleared(tmp_path, command_line):
    config = write(tmp_path, synthetic(reader={"run": "process"}), synthetic("outfeed"))
    done = command_line("baseline", "-c", config)
    assert done.returncode == 0
    assert [line.split(":")[:2] for line in done.stdout.splitlines()] == [
        ["infeed", f" none yet in {tmp_path}/state/cameras/infeed/baseline.json"],
        ["outfeed", f" none yet in {tmp_path}/state/cameras/outfeed/baseline.json"],
    ]
    done = command_line("baseline", "-c", config, "--camera", "infeed", "--measure", "--seconds", 2)
    assert done.returncode == 0, done.stderr
    found = BaselineFile.of(tmp_path / "state", "infeed").load()
    assert found is not None
    assert (found.width, found.height) == (320, 240)
    assert (
        f"infeed: baseline made: sharpness {found.sharpness:.4f} at 320x240; a running daemon takes it" in done.stdout
    )
    assert done.stdout.count("infeed: sharpness ") >= 2, "it is told while it is measured"
    assert not BaselineFile.of(tmp_path / "state", "outfeed").path.exists()
    assert f"`blurred` below {found.sharpness / 4:.4f}" in command_line("baseline", "-c", config, "--show").stdout
    assert "infeed: cleared: a running daemon" in command_line("baseline", "-c", config, "--clear").stdout
    done = command_line("baseline", "-c", config, "--clear")
    assert (done.returncode, done.stdout.count("there was none")) == (0, 2)


def test_a_dark_camera_makes_none_and_the_old_one_stays(tmp_path, command_line):
    dark = {"dark_level": 255, "dark_share": 0.5, "confirm_s": 0}
    config = write(tmp_path, synthetic())
    command_line("baseline", "-c", config, "--measure", "--seconds", 1)
    before = BaselineFile.of(tmp_path / "state", "infeed").load()
    assert before is not None
    done = command_line("baseline", "-c", write(tmp_path, synthetic(health=dark)), "--measure", "--seconds", 1)
    assert done.returncode == 5
    assert "camera infeed: no 1 s of good pictures without a break within" in done.stderr
    assert "check the light and the lens" in done.stderr
    assert "not good: dark" in done.stdout
    assert BaselineFile.of(tmp_path / "state", "infeed").load() == before


def test_mistakes_are_one_line_each_with_the_fix(tmp_path, command_line):
    dead = {"name": "dead", "model": "m", "source": {"type": "opencv", "url": "/dev/video97"}}
    files = {"name": "files", "model": "m", "source": {"type": "images", "path": str(PHOTOS)}}
    off = synthetic("off", health={"blurred_below": None})
    ends = synthetic("ends", frames=5)
    config = write(tmp_path, dead, files, off, ends)
    shown = command_line("baseline", "-c", config).stdout
    assert "files: needs none: its source is a file, and health.check is live" in shown
    assert "off: needs none: health.blurred_below is null" in shown
    done = command_line("baseline", "-c", config, "--measure", "--seconds", 1)
    assert done.returncode == 5
    assert re.findall(r"camera (\w+):", done.stderr) == ["dead", "files", "off", "ends"]
    assert "/dev/video97" in done.stderr
    assert "if a running daemon has the camera, use --clear" in done.stderr
    assert "the source ended too soon" in done.stderr
    for arguments, words in (
        (("--camera", "infed"), "--camera: unknown camera 'infed'"),
        (("--measure", "--clear"), "give one of them"),
    ):
        done = command_line("baseline", "-c", config, *arguments)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_a_damaged_or_unreadable_baseline_is_named(tmp_path, command_line):
    config = write(tmp_path, synthetic(), synthetic("outfeed"))
    for camera, content in (("infeed", "{"), ("outfeed", None)):
        file = BaselineFile.of(tmp_path / "state", camera).path
        file.parent.mkdir(parents=True)
        file.write_text(content) if content else file.mkdir()
    done = command_line("baseline", "-c", config)
    assert done.returncode == 8
    assert "infeed/baseline.json: is damaged; delete it" in done.stderr
    assert "outfeed/baseline.json: cannot be read: Is a directory" in done.stderr
    assert "cannot be deleted" in command_line("baseline", "-c", config, "--camera", "outfeed", "--clear").stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act for another")
def test_root_acts_as_the_folders_owner_so_that_no_link_leads_out_of_it(command_line, request):
    # Not below pytest's own folder, which only root may enter.
    folder = Path(tempfile.mkdtemp(prefix="edgevision-"))
    request.addfinalizer(lambda: shutil.rmtree(folder))
    folder.chmod(0o755)
    config = write(folder, synthetic())
    state = folder / "state"
    state.mkdir()
    os.chown(state, 12345, 12345)
    assert command_line("baseline", "-c", config, "--measure", "--seconds", 1).returncode == 0
    file = BaselineFile.of(state, "infeed").path
    assert [path.stat().st_uid for path in (file, file.parent, file.parent.parent)] == [12345] * 3
    assert (os.geteuid(), os.getegid()) == (0, 0)
    precious = folder / "precious"
    precious.mkdir()
    (precious / "baseline.json").write_text("root's")
    file.unlink()
    file.parent.rmdir()
    file.parent.symlink_to(precious)
    done = command_line("baseline", "-c", config, "--clear")
    assert (done.returncode, "cannot be deleted: Permission denied" in done.stderr) == (8, True), done.stderr
    assert (precious / "baseline.json").read_text() == "root's"
    with as_owner_of(state / "not" / "there" / "yet"):
        assert os.geteuid() == 12345
