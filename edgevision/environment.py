"""The one place that reads the environment and knows our folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

MODELS_VARIABLE = "EDGEVISION_MODELS"


def variables() -> Mapping[str, str]:
    """The environment, for `${NAME}` in a config."""
    return os.environ


def default_state_dir() -> Path:
    """Where the daemon keeps its state unless the config says otherwise: the system's folder for root, else the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/edgevision")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgevision"


def user_models_dir(state_dir: Path | None = None) -> Path:
    """The user's own models: EDGEVISION_MODELS, else `models` in the state folder."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named) if named else (state_dir or default_state_dir()) / "models"


def shipped_models_dir() -> Path:
    """The models that the package carries: inside an installed wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "data" / "models"
    return installed if installed.is_dir() else package.parent / "models"
