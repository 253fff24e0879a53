"""A whole daemon, readers in processes and all, killed at random moments; `benchmarks/kills.py` does it 200 times."""

import sys
from pathlib import Path

from chaos_support import LONG

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import kills  # type: ignore[import-not-found]


def test_nothing_that_was_saved_is_lost_and_nothing_is_left_behind(mosquitto, tmp_path):
    found = kills.run(tmp_path, kills=20 if LONG else 2, seed=2, binary=mosquitto)
    assert kills.problems(found) == []
    assert found["saved"] > 0
    assert found["exit_status"] == 0
