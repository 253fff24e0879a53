"""What all tests share: where the test material lies, and what to say when it is not there."""

import logging
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from edgevision.__main__ import main

# A shared machine may be slow for a moment: no property fails for the time it took.
settings.register_profile("edgevision", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edgevision")

SHARED = Path(os.environ.get("EDGEVISION_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models, pictures and video."""
    if not (SHARED / "README.md").is_file():
        pytest.skip("needs the test material: set EDGEVISION_SHARED to its folder")
    return SHARED


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory):
    """The daemons that tests start keep their journals away from this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The mosquitto broker's binary."""
    binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("needs the mosquitto binary: apt-get install mosquitto")
    return binary


@dataclass(frozen=True, kw_only=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def loggers():
    """For what sets the process's logging up: afterwards it is as it was."""
    root, ours = logging.getLogger(), logging.getLogger("edgevision")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


@pytest.fixture
def command_line(tmp_path, monkeypatch, capsys, loggers):
    """The command line's own door, in this process: starting one for each call costs seconds."""
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["edgevision", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(returncode=int(ended.value.code or 0), stdout=said.out, stderr=said.err)

    return call
