"""The command line as a user meets it: real processes, exit statuses, and no traceback for a user's mistake."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import edgevision
from edgevision.cli import COMMANDS
from edgevision.demo import show
from edgevision.demo.feed import CameraFeed, Feed

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


@pytest.fixture
def run(tmp_path):
    def call(*arguments, **more):
        environ = {**os.environ, "EDGEVISION_MODELS": str(tmp_path / "models"), **more}
        done = subprocess.run(
            [sys.executable, "-m", "edgevision", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environ,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


def test_help_names_every_command_and_each_has_examples(run):
    assert all(name in run("--help").stdout for name in COMMANDS)
    for name in COMMANDS:
        done = run(name, "--help")
        assert done.returncode == 0
        if name != "models":
            assert "Example" in done.stdout
    assert run("--version").stdout.strip() == f"edgevision {edgevision.__version__}"


def test_the_package_and_its_help_need_no_camera_runtime_broker_or_sdk():
    code = """
import sys
import edgevision, edgevision.cli
from typer.testing import CliRunner
result = CliRunner().invoke(edgevision.cli.app, ["--help"])
assert result.exit_code == 0, result.output
heavy = {"cv2", "onnxruntime", "ai_edge_litert", "paho", "numpy", "amqtt"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_three_lines_of_python():
    code = f"""
import edgevision
found = edgevision.load_model("efficientnet-lite0").predict({str(PHOTOS / "coffee.jpg")!r})
print(found.labels[found.class_id[0]])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.strip() == "espresso"


def test_predict_as_json_as_table_and_as_pictures(run, tmp_path):
    done = run("predict", "efficientnet-lite0", PHOTOS, "--json", "--save", tmp_path / "drawn")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert [Path(line["file"]).name for line in lines] == sorted(path.name for path in PHOTOS.glob("*.jpg"))
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {
        f"{path.stem}_jpg.jpg" for path in PHOTOS.glob("*.jpg")
    }
    table = run("predict", "efficientnet-lite0", PHOTOS / "coffee.jpg", "--backend", "litert", "--confidence", "0.5")
    assert "espresso" in table.stdout
    assert "cup" not in table.stdout


def test_names_with_brackets_are_shown_as_they_are(command_line, tmp_path, monkeypatch):
    (tmp_path / "crack [").mkdir()
    (tmp_path / "crack [" / "edge] part[left].jpg").write_bytes((PHOTOS / "coffee.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    done = command_line("predict", "efficientnet-lite0", "crack [/edge] part[left].jpg")
    assert done.returncode == 0, done.stderr
    assert "crack [/edge] part[left].jpg" in done.stdout
    models = tmp_path / "[a] [/b]"
    (models / "mine[left]").mkdir(parents=True)
    (models / "mine[left]" / "model.yaml").write_text("name: mine")
    monkeypatch.setenv("EDGEVISION_MODELS", str(models))
    done = command_line("models", "list")
    assert done.returncode == 0, done.stderr
    assert "mine[left]" in done.stdout


def test_the_demos_table_shows_labels_as_they_are():
    feed = Feed("127.0.0.1", 1, "t/#")
    feed.cameras["c"] = CameraFeed(label="crack [/edge]")
    target = io.StringIO()
    Console(file=target, width=160).print(show.table(feed, 1))
    assert "crack [/edge]" in target.getvalue()


def test_pictures_of_equal_names_are_all_saved(command_line, tmp_path):
    for camera in ("cam1", "cam2", "cam3"):
        (tmp_path / camera).mkdir()
        (tmp_path / camera / "p.jpg").write_bytes((PHOTOS / "coffee.jpg").read_bytes())
    (tmp_path / "cam3" / "p#1.jpg").write_bytes((PHOTOS / "coffee.jpg").read_bytes())
    folders = [tmp_path / camera for camera in ("cam1", "cam2", "cam3")]
    for _ in range(2):  # the second call writes over what the first one wrote
        done = command_line("predict", "efficientnet-lite0", *folders, "--save", tmp_path / "drawn", "--json")
        assert done.returncode == 0, done.stderr
        drawn = {path.name for path in (tmp_path / "drawn").iterdir()}
        assert drawn == {"p_jpg.jpg", "p_jpg-2.jpg", "p_jpg-3.jpg", "p#1_jpg.jpg"}


def test_predict_goes_on_past_a_bad_picture_and_says_so(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes((PHOTOS / "coffee.jpg").read_bytes())
    (tmp_path / "in" / "b.jpg").write_bytes(b"no picture")
    done = run("predict", "efficientnet-lite0", tmp_path / "in", "--json")
    assert done.returncode == 6
    assert len(done.stdout.splitlines()) == 1
    assert "b.jpg" in done.stderr


def test_predict_in_tiles(command_line, shared):
    model, picture = shared / "models" / "yolox_nano.onnx", shared / "images" / "cats_and_dogs.jpg"
    asked = ("predict", model, picture, "--json", "--tile", "300x300", "--tile-levels", "1", "--tile-overlap", "0.3")
    done = command_line(*asked, "--tile-merge", "nms")
    assert done.returncode == 0, done.stderr
    assert "cat" in {found["label"] for found in json.loads(done.stdout)["predictions"]}
    for words, said in (
        (["--tile", "300"], "'300' is no size; give `model`, or width and height"),
        (["--tile", "9x9"], "each from 16 to 16384"),
        (["--tile", "model", "--tile-merge", "soft"], "'soft' is neither ios nor nms"),
        (["--tile-overlap", "0.3"], "need --tile WxH"),
    ):
        done = command_line("predict", model, picture, *words)
        assert done.returncode == 2
        assert said in done.stderr
    done = command_line("predict", model, picture, "--tile", "16x16")
    assert done.returncode == 6
    assert "tiling.max_tiles is 256" in done.stderr


def test_predict_on_a_video(run, shared):
    video = shared / "video" / "bottle-detection.mp4"
    done = run("predict", "efficientnet-lite0", video, "--fps", "0.5", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert 18 <= len(lines) <= 21  # 40 s at one frame in 2 s
    assert (lines[0]["width"], lines[0]["height"]) == (640, 360)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["predict", "nothing", PHOTOS], 2, "unknown model 'nothing'"),
        (["predict", "efficientnet-lite0", "/nowhere.jpg"], 2, "no such file"),
        (["predict", "efficientnet-lite0", "pyproject.toml"], 6, "pyproject.toml"),
        (["predict", "efficientnet-lite0", "README.md", "--backend", "onnx"], 2, "known: "),
        (["predict", "yolox-nano", PHOTOS], 4, "are not there"),
        (["predict", "efficientnet-lite0", PHOTOS, "systemd"], 2, "systemd: holds no picture"),
        (["predict", "efficientnet-lite0"], 2, "Missing argument"),
        (["models", "show", "efficient-net-lite0"], 2, "did you mean 'efficientnet-lite0'"),
        (["models", "add", "/nowhere.onnx", "--like", "yolox-nano"], 2, "no such file"),
        (["schema", "results"], 2, "did you mean 'result'"),
        (["check", "/nowhere.yaml"], 2, "No such file"),
        (["run", "-c", "/nowhere.yaml"], 2, "No such file"),
        (["demo", "--source", "/nowhere.mp4"], 2, "no such file"),
        (["demo", "--model", "/nowhere.onnx"], 2, "no such file"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_a_users_mistake_is_one_clear_error(run, arguments, status, words):
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert words in done.stderr


def test_models_commands(run):
    listed = json.loads(run("models", "list", "--json").stdout)
    assert {"efficientnet-lite0", "yolox-nano"} <= {row["name"] for row in listed}
    shown = run("models", "show", "efficientnet-lite0").stdout
    assert "Apache-2.0" in shown
    assert "top-1" in shown
    assert run("models", "verify").returncode == 0


def test_verify_finds_an_altered_file(run, tmp_path, shared):
    assert (
        run("models", "add", shared / "models" / "yolox_nano.onnx", "--like", "yolox-nano", "--name", "mine").returncode
        == 0
    )
    weights = tmp_path / "models" / "mine" / "yolox_nano.onnx"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = run("models", "verify", "mine")
    assert done.returncode == 4
    assert "truncated or altered" in done.stdout


def test_schemas_are_written_and_are_schemas(run, tmp_path):
    import jsonschema

    done = run("schema", "-o", tmp_path / "out")
    assert done.returncode == 0
    files = sorted((tmp_path / "out").glob("*.schema.json"))
    assert len(files) == 6
    for file in files:
        jsonschema.Draft202012Validator.check_schema(json.loads(file.read_text()))
    assert json.loads((tmp_path / "out" / "asyncapi.json").read_text())["asyncapi"] == "3.0.0"


def test_the_demo_shows_what_arrived(run):
    done = run("demo", "--seconds", "3", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary) == {
        "frames",
        "messages_received",
        "messages_lost",
        "top_labels",
        "latency_p50_ms",
        "latency_p99_ms",
        "fps",
    }
    assert summary["messages_lost"] == 0
    assert summary["frames"] > 5
    assert summary["messages_received"] > summary["frames"]
    assert "espresso" in summary["top_labels"]


def test_the_demo_with_another_backend_source_and_bare_model_file(run, shared):
    video = shared / "video" / "bottle-detection.mp4"
    model = shared / "models" / "yolox_nano.onnx"
    done = run(
        "demo", "--seconds", "4", "--json", "--model", model, "--source", video, "--backend", "onnxrt", "--fps", "5"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["frames"] > 3
    done = run("demo", "--seconds", "2", "--backend", "litert")
    assert "camera-1" in done.stdout, done.stderr
    assert "mosquitto_sub -h 127.0.0.1" in done.stdout


CONFIG = """\
device: box
sinks: [{{type: jsonl, path: {folder}/messages.jsonl}}]
models: {{m: {{model: efficientnet-lite0}}}}
cameras:
  - {{name: a, model: m, fps: 20, source: {{type: images, path: {photos}, loop: true}}}}
"""


def test_the_daemon_runs_until_it_is_told_and_ends_in_order(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(folder=tmp_path, photos=PHOTOS))
    daemon = subprocess.Popen(
        [sys.executable, "-m", "edgevision", "run", "-c", str(file), "--log-format", "json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert daemon.stderr is not None
    lines = []
    for line in daemon.stderr:
        lines.append(json.loads(line))
        if lines[-1].get("state") == "live":
            daemon.send_signal(signal.SIGTERM)
    daemon.stderr.close()
    assert daemon.wait(30) == 0
    written = [json.loads(line) for line in (tmp_path / "messages.jsonl").read_text().splitlines()]
    states = [line["payload"]["state"] for line in written if line["topic"] == "edgevision/box/status"]
    assert states == ["starting", "online", "stopping", "offline"]
    assert written[-1]["payload"]["reason"] == "stopped by SIGTERM"


def test_a_daemon_of_files_ends_when_they_have_ended(run, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(CONFIG.format(folder=tmp_path, photos=PHOTOS).replace(", loop: true", ""))
    done = run("run", "-c", file)
    assert done.returncode == 0
    assert 'reason="every source has ended"' in done.stderr


def test_check_tells_every_fault_and_opens_nothing(run, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(
        CONFIG.format(folder=tmp_path, photos="/nowhere")
        .replace("fps: 20", "fsp: 20")
        .replace("device: box", "device: b x")
    )
    done = run("check", file)
    assert done.returncode == 2
    assert f"{file}:1: device" in done.stderr
    assert f"{file}:5: cameras[0].fsp: unknown key; did you mean 'fps'?" in done.stderr
    assert not (tmp_path / "messages.jsonl").exists()
