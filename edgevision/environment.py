"""The one place that reads the environment and knows our folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

MODELS_VARIABLE = "EDGEVISION_MODELS"
MIRROR_VARIABLE = "EDGEVISION_MIRROR"


def variables() -> Mapping[str, str]:
    """The environment, for `${NAME}` in a config."""
    return os.environ


def default_state_dir() -> Path:
    """Where the daemon keeps its state unless the config says otherwise: the system's folder for root, else the user's."""
    # systemd's StateDirectory=; of several, separated by colons, the first is ours (systemd.exec(5)).
    if named := os.environ.get("STATE_DIRECTORY"):
        return Path(named.partition(":")[0])
    if os.geteuid() == 0:
        return Path("/var/lib/edgevision")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgevision"


def runtime_dir() -> Path | None:
    """Where the daemon puts its health file: systemd's RuntimeDirectory=, or what a container sets; None: nowhere."""
    named = os.environ.get("RUNTIME_DIRECTORY")
    return Path(named.partition(":")[0]) if named else None


def notify_socket() -> str | None:
    """Where systemd listens for `Type=notify` (sd_notify(3)); None outside systemd."""
    return os.environ.get("NOTIFY_SOCKET") or None


def watchdog_interval_ns(pid: int) -> int | None:
    """How often systemd's watchdog wants to be fed (sd_watchdog_enabled(3)); None where it watches nobody, or another."""
    interval_us, meant_for = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", str(pid))
    return int(interval_us) * 1000 if interval_us.isdecimal() and int(interval_us) and meant_for == str(pid) else None


def kernel_boot_id(proc: Path = Path("/proc")) -> str:
    """This boot of the machine, so that a power cut can be told from a crash; empty where the kernel does not tell."""
    file = proc / "sys" / "kernel" / "random" / "boot_id"
    return file.read_text(encoding="ascii").strip() if file.is_file() else ""


def user_models_dir(state_dir: Path | None = None) -> Path:
    """The user's own models: EDGEVISION_MODELS, else `models` in the state folder."""
    named = os.environ.get(MODELS_VARIABLE)
    return Path(named) if named else (state_dir or default_state_dir()) / "models"


def mirror() -> str | None:
    """Where model files are pulled from in place of their own addresses: a folder or an address; None: nowhere else."""
    return os.environ.get(MIRROR_VARIABLE) or None


def shipped_models_dir() -> Path:
    """The models that the package carries: inside an installed wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "data" / "models"
    return installed if installed.is_dir() else package.parent / "models"


def shipped_dir(name: str) -> Path:
    """A folder beside the package that the wheel carries too: `systemd`, `deploy`."""
    package = Path(__file__).resolve().parent
    installed = package / "data" / name
    return installed if installed.is_dir() else package.parent / name
