"""`edgevision quantize` as a user meets it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "host" / "quantize"))
from quantize_support import make_factory


@pytest.fixture
def run(command_line):
    return lambda *arguments: command_line("quantize", *arguments)


def test_table_verdict_and_places(run, tmp_path):
    factory = make_factory(tmp_path)
    arguments = (
        factory.model, "--calibration", factory.calibration, "--evaluate", factory.labelled, "--target", "x86",
        "--seconds", "0.1", "-o", tmp_path / "out",
    )  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    for words in ("the reference", "packaged", "3 of 3", "parts-int8-x86 for x86", "report.md"):
        assert words in done.stdout
    again = run(*arguments)
    assert again.returncode == 2
    assert "choose another name with --name" in again.stderr


def test_a_refusal_ends_with_4_and_names_the_report(run, tmp_path):
    factory = make_factory(tmp_path, fragile=True)
    done = run(
        factory.model, "--calibration", factory.calibration, "--evaluate", factory.labelled, "--target", "arm64",
        "--seconds", "0.1", "-o", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 4
    assert "REFUSED" in done.stdout
    assert "Traceback" not in done.stderr
    assert "report.md" in done.stderr


def test_ctrl_c_in_the_middle_keeps_what_is_finished_and_nothing_else(run, tmp_path):
    factory = make_factory(tmp_path)
    out = tmp_path / "out"
    arguments = (
        factory.model, "--calibration", factory.calibration, "--evaluate", factory.labelled, "--target", "x86",
        "--seconds", "0.1", "-o", out,
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "edgevision", "quantize", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        making: list[str] = []
        while len(making) < 2:
            line = process.stderr.readline()
            assert line, "it ended before a second recipe was begun"
            making += [line] if "making" in line else []
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert printed == ""
    left = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert {path.parts[0] for path in left} == {".candidates"}
    assert {path.suffix for path in left} == {".model", ".json"}
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    first = making[0].split("making ")[1].split()[0]
    assert f"{first}: found finished" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--target", "arm"), "did you mean 'arm64'"),
        ((), "--calibration DIR is missing"),
        (("--calibration", "nowhere"), "--calibration nowhere: is not there"),
        (("--prove", "nowhere.onnx"), "nowhere.onnx: no such file"),
    ],
)
def test_a_wrong_argument_ends_with_2_and_one_line(run, tmp_path, arguments, words):
    factory = make_factory(tmp_path)
    done = run(factory.model, "--evaluate", factory.labelled, "-o", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list((tmp_path / "out").rglob("*.onnx"))
