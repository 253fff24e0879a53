"""`edgevision compare` as a CI meets it: exit statuses and what is printed."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "host" / "benchmark"))

from benchmark_support import document as whole_document
from benchmark_support import result

from edgevision.host.benchmark import document


@pytest.fixture
def run(tmp_path):
    def call(first, second, *arguments):
        document.write(tmp_path / "a.json", first)
        document.write(tmp_path / "b.json", second)
        done = subprocess.run(
            [sys.executable, "-m", "edgevision", "compare", "a.json", "b.json", *arguments],
            capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


def test_equal_files_pass_and_a_slower_one_fails(run, tmp_path):
    first, same, slower = (
        whole_document(result(seed=seed, ours_ms=ms)) for seed, ms in ((1, 10.0), (2, 10.0), (3, 11.5))
    )
    done = run(first, same, "--fail-on", "5%", "--json", "found.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "equal" in done.stdout
    assert json.loads((tmp_path / "found.json").read_text())["regressions"] == 0
    done = run(first, slower, "--fail-on", "5%")
    assert done.returncode == 1
    assert done.stderr == "edgevision: error: slower by more than 5 % (p50): m onnxrt 1 thread\n"
    assert run(first, slower, "--fail-on", "30%").returncode == 0


def test_files_that_cannot_be_compared_are_status_2(run, tmp_path):
    first = whole_document(result())
    other = copy.deepcopy(first)
    other["environment"]["cpu"] = "Another"
    done = run(first, other)
    assert done.returncode == 2
    assert "other machine: cpu is" in done.stderr
    assert run(first, other, "--force").returncode == 0
    assert run(first, first, "--fail-on", "much").returncode == 2
    assert run(first, first, "--metric", "p51").returncode == 2
    (tmp_path / "c.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "edgevision", "compare", "a.json", "c.json"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
