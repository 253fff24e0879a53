"""`edgevision quantize` as a user meets it."""

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
