"""What the tests of the command line share."""

import logging
import sys
from dataclasses import dataclass

import pytest

from edgevision.__main__ import main


@dataclass(frozen=True, kw_only=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command_line(tmp_path, monkeypatch, capsys):
    """The command line's own door, in this process: starting one for each call costs seconds."""
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    root, ours = logging.getLogger(), logging.getLogger("edgevision")
    handlers, level, our_level = root.handlers[:], root.level, ours.level

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgevision", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(returncode=int(ended.value.code or 0), stdout=said.out, stderr=said.err)

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)
