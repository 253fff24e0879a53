"""The comparison with peers: what can be tested without an hour of the machine."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "peers"))

suite = importlib.import_module("suite")
tables = importlib.import_module("tables")
agreement_of = importlib.import_module("agreement")
peer = importlib.import_module("peer")
turns = importlib.import_module("turns")
words_of = importlib.import_module("words")

BOX = (0.0, 0.0, 10.0, 10.0)

PEER = """
import os
from peer import Looker
REQUIREMENTS, TASKS, NOTE = (), ("yolox-onnx",), ""
def make(task, model, threads):
    print("noise on stdout")
    if threads == 7:
        raise ValueError("no seven threads in /somewhere/private/place.txt")
    calls = []
    def look(image):
        calls.append(0)
        if threads == 5 and len(calls) > 3:
            os._exit(3)
        return image.shape
    return Looker(look=look, tell=lambda shape: [(1, 0.5, None)])
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    import numpy as np

    (tmp_path / "made_up.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    np.save(tmp_path / "frames.npy", np.zeros((2, 4, 4, 3), np.uint8))
    np.save(tmp_path / "first.npy", np.zeros((4, 4, 3), np.uint8))

    def made(threads=1):
        return turns.Job(
            peer="made_up", python=Path(sys.executable), task="yolox-onnx", model=Path("m.onnx"), threads=threads,
            frames=tmp_path / "frames.npy", first=tmp_path / "first.npy",
        )  # fmt: skip

    return made


def process_state(worker):
    status = Path(f"/proc/{worker._process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0]


def test_every_peer_can_be_read_without_its_libraries():
    script = (
        "import sys, importlib; sys.path.insert(0, sys.argv[1]); import suite; from peer import PEERS\n"
        "for name in PEERS:\n    peer = importlib.import_module(name)\n"
        "    assert peer.REQUIREMENTS and peer.TASKS and peer.NOTE and peer.make, name\n"
        "print(sorted({'numpy', 'cv2', 'edgevision', 'onnxruntime'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", script, str(BENCHMARKS / "peers")], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_every_table_has_its_limit_and_its_careful_script():
    for task, names in peer.REFERENCE.items():
        for name in names:
            assert name in peer.PEERS
            assert task in importlib.import_module(name).TASKS


def test_a_peer_runs_in_turns_and_is_stopped_in_between(job):
    worker = turns.Worker(job())
    try:
        assert worker.start["start_s"] > worker.start["load_s"]
        assert worker.start["peak_mb"] > 5
        assert worker.ask(predict=True)["predictions"] == [[[1, 0.5, None]]] * 2
        spent, left = turns.rounds([worker], blocks=2, calls=3)
        assert (len(spent["made_up"]), left) == (2, {})
        assert process_state(worker) == "T"
    finally:
        worker.close()


def test_a_peer_that_fails_says_why_in_a_line_without_a_path(job):
    with pytest.raises(turns.Unavailable, match=r"^ValueError: no seven threads in place\.txt$"):
        turns.Worker(job(threads=7))


def test_a_peer_that_dies_on_the_way_leaves_and_the_rest_runs_on(job):
    workers = [turns.Worker(job()), turns.Worker(job(threads=5), name="dies")]
    try:
        spent, left = turns.rounds(workers, blocks=2, calls=3)
    finally:
        for worker in workers:
            worker.close()
    assert list(spent) == ["made_up"]
    assert left == {"dies": "exit status 3"}


def test_the_ratio_is_that_within_a_round():
    bare = [10.0, 20.0, 10.0, 40.0, 10.0]  # the machine's speed wanders
    found = turns.ratio([value * 1.1 for value in bare], bare)
    assert found == {"ratio": 1.1, "low": 1.1, "high": 1.1}
    noisy = turns.ratio([11, 13, 10, 12, 11, 12, 10, 13], [10.0] * 8)
    assert noisy["low"] < noisy["ratio"] < noisy["high"]


def test_agreement_counts_matched_boxes_of_the_same_class():
    assert agreement_of.iou(BOX, (5.0, 0.0, 15.0, 10.0)) == pytest.approx(1 / 3)
    assert agreement_of.one_picture([(1, 0.9, BOX)], [(1, 0.5, BOX)]) == 1
    assert agreement_of.one_picture([(2, 0.9, BOX)], [(1, 0.5, BOX)]) == 0
    assert agreement_of.one_picture([(1, 0.9, BOX), (1, 0.8, BOX)], [(1, 0.5, BOX)]) == pytest.approx(
        2 / 3
    )  # found twice
    assert agreement_of.agreement([[], [(1, 0.9, BOX)]], [[], []]) == 0  # an empty picture proves nothing
    assert agreement_of.agreement([[]], [[]]) is None


def test_agreement_of_classes_knows_ties():
    expected = [(3, 0.4, None), (4, 0.4, None), (5, 0.1, None)]
    assert agreement_of.one_picture([(4, 0.4, None)], expected) == 1
    assert agreement_of.one_picture([(5, 0.4, None)], expected) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cannot open /home/somebody/models/a.onnx: gone", "cannot open a.onnx: gone"),
        ("File '/opt/x/y.py', line 3", "File 'y.py', line 3"),
        ("two\n  lines", "two lines"),
        ("1/2 of it, N/A", "1/2 of it, N/A"),
    ],
)
def test_results_hold_no_paths(text, expected):
    assert words_of.plain(text) == expected


def test_the_host_has_a_plain_name():
    assert set(words_of.host_name()) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--yolox-onnx", "missing.onnx"], "--yolox-onnx: missing.onnx is no file"),
        (["--pictures", "nowhere"], "--pictures: nowhere is no folder"),
        (["--threads", "1,x"], "'1,x' is no list of thread counts such as 1,2"),
        (["--blocks", "0"], "--blocks: 0 must be above 0"),
        (["--quantisation"], "--quantisation needs --yolox-onnx, --calibration and --coco"),
        (["--host", "../x"], "--host: '../x' must be a plain name"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        suite.checked(suite.parser(), words)
    assert message in capsys.readouterr().err


def test_the_table_tells_what_ran_and_what_did_not_and_why():
    table = {
        "task": "yolox-onnx", "model": "a.onnx", "threads": 1, "compared_with": "careful_onnxrt",
        "peers": [
            {"peer": "fast", "note": "n", "ratio": 1.1, "low": 1.0, "high": 1.2, "median_ms": 5.0, "start_s": 0.5,
             "peak_mb": 80.4, "agreement": 0.9, "versions": {"fastlib": "1.2"}},
            {"peer": "broken", "note": "n", "unavailable": "no wheel"},
        ],
    }  # fmt: skip
    results = {
        "host": "h", "environment": {"cpu": "c", "cores": 2, "python": "3"}, "quick": True, "frames": 3,
        "tables": [table], "quantisation": [], "overhead": [], "daemon": None, "left_out": ["ssd-tflite: no file"],
    }  # fmt: skip
    text = tables.markdown(results)
    assert "| fast | 1.100 (1.000-1.200) | 5.00 | 0.50 | 80 | 0.900 |" in text
    assert "- fast: n (fastlib 1.2)" in text
    assert "- broken: no wheel" in text
    assert "- ssd-tflite: no file" in text
    assert "not to be quoted" in text
