"""`edgevision benchmark` as a user meets it: one short real run, a second one that goes on, and mistakes in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHORT = ("--duration", "0.3", "--repeats", "2", "--threads", "1", "--input-size", "320x240")


@pytest.fixture
def environ(tmp_path):
    return {**os.environ, "EDGEVISION_MODELS": str(tmp_path / "models")}


@pytest.fixture
def run(environ):
    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "edgevision", "benchmark", *map(str, arguments)],
            capture_output=True, text=True, timeout=120, check=False, env=environ,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


def test_a_real_run_and_a_second_one_that_goes_on(run, tmp_path):
    pytest.importorskip("matplotlib")
    files = {name: tmp_path / "out" / f"bench.{name}" for name in ("json", "md", "png")}
    more = ("--paced", "20", "--profile", "--json", files["json"])
    arguments = ("efficientnet-lite0", "--backend", "onnxrt", *SHORT, *more)
    done = run(*arguments, "--markdown", files["md"], "--plot", files["png"])
    assert done.returncode == 0, done.stderr
    found = json.loads(files["json"].read_text())
    (one,) = found["results"]
    assert one["model"]["sha256"]
    assert found["environment"]["packages"]["onnxruntime"]
    assert one["paced"]["fps_asked"] == 20
    assert one["profile"]["convolutions"]["integer"] > 40
    assert one["bare"]["ratio"]["low"] <= one["bare"]["ratio"]["ratio"] <= one["bare"]["ratio"]["high"]
    assert set(one["stages"]) == {"preprocess", "inference", "decode", "publish", "capture_decode"}
    assert "integer kernels" in done.stdout
    assert "# edgevision benchmark" in files["md"].read_text()
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    again = run(*arguments)
    assert again.returncode == 0
    assert "1 of 1 candidates are in" in again.stderr
    assert json.loads(files["json"].read_text())["results"] == found["results"]
    assert sorted(path.name for path in files["json"].parent.iterdir()) == ["bench.json", "bench.md", "bench.png"]


def test_ctrl_c_leaves_no_half_written_file_and_no_process(environ, tmp_path):
    file = tmp_path / "bench.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "edgevision", "benchmark", "efficientnet-lite0", "--duration", "600", "--json", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    deadline = time.monotonic() + 60
    worker = ""
    while not worker and time.monotonic() < deadline:
        if file.exists():  # from here on a worker is the only child
            worker = Path(children).read_text().strip()
    assert worker, "no worker was started"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert json.loads(file.read_text())["results"] == []
    while Path(f"/proc/{worker}").exists():  # one that was caught while starting ends by itself
        assert time.monotonic() < deadline, "the worker outlived its parent"


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (("nonsense",), 2, "unknown model 'nonsense'"),
        (("efficientnet-lite0", "--threads", "1,x"), 2, "--threads: found '1,x'"),
        (("efficientnet-lite0", "--input-size", "big"), 2, "--input-size: found 'big'"),
        (("efficientnet-lite0", "--providers", "warp"), 2, "unknown execution provider 'warp'"),
        (("efficientnet-lite0", "--plot", "a.bmp"), 2, "the suffix must be one of"),
        (("efficientnet-lite0", "--fresh"), 2, "--fresh starts the file of --json over"),
        (("efficientnet-lite0", "--json", "/proc/none/bench.json"), 8, "cannot be written"),
    ],
)
def test_mistakes_are_one_line(run, arguments, status, why):
    done = run(*arguments)
    assert done.returncode == status
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_provider_that_is_not_there_is_a_failed_candidate(run):
    done = run("efficientnet-lite0", "--backend", "onnxrt", "--providers", "rocm", *SHORT)
    assert done.returncode == 3
    assert "ROCMExecutionProvider" in done.stderr.splitlines()[-1]
