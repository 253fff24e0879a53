"""What all tests share: where the test material lies, and what to say when it is not there."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

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


@pytest.fixture(scope="session")
def mosquitto() -> str:
    """The mosquitto broker's binary."""
    binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("needs the mosquitto binary: apt-get install mosquitto")
    return binary
