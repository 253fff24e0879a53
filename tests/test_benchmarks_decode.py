"""The decode benchmark: every line decodes what it says, and the figures come out as a table and as JSON."""

import importlib.util
import json
import sys
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "decode.py"
spec = importlib.util.spec_from_file_location("benchmarks_decode", FILE)
assert spec is not None
assert spec.loader is not None
decode = importlib.util.module_from_spec(spec)
sys.modules["benchmarks_decode"] = decode  # its dataclasses look themselves up there
spec.loader.exec_module(decode)


def test_every_line_finds_its_objects():
    cases = decode.cases()
    assert {one.family for one in cases} >= {"yolov5", "yolov8", "yolov8_seg", "yolov8_pose", "yolov10", "nanodet"}
    for one in cases:
        found = one.call()
        assert one.objects * 0.5 <= found <= max(one.candidates, one.objects), one.what


def test_the_figures_are_printed_and_written(tmp_path, monkeypatch, capsys):
    path = tmp_path / "deep" / "decode.json"
    monkeypatch.setattr(sys, "argv", ["decode.py", "--seconds", "0.01", "--json", str(path)])
    decode.main()
    rows = json.loads(path.read_text())["results"]
    assert len(rows) == len(decode.cases())
    assert all(0 < row["p10_ms"] <= row["p50_ms"] <= row["p99_ms"] for row in rows)
    assert "yolov8_seg" in capsys.readouterr().out
