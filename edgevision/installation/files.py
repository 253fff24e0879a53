"""What an installation consists of: the files of `systemd/` at their places, made to fit this machine, and a first config.

The files lie in the package as they are installed, but for the program's path, and for keys that an older systemd does not
know. Nothing here writes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgevision.environment import shipped_dir
from edgevision.errors import StateError, UsageError

PLACES = {
    "edgevision.service": "etc/systemd/system/edgevision.service",
    "edgevision@.service": "etc/systemd/system/edgevision@.service",
    "sysusers.d-edgevision.conf": "etc/sysusers.d/edgevision.conf",
    "tmpfiles.d-edgevision.conf": "etc/tmpfiles.d/edgevision.conf",
    "70-edgevision.rules": "etc/udev/rules.d/70-edgevision.rules",
}
"""Where each file of `systemd/` goes, below the root."""
CONFIG_PLACE = "etc/edgevision/edgevision.yaml"
_PACKAGED_PROGRAM = "/usr/bin/edgevision"
_SINCE_254 = re.compile(r"^Restart(Steps|MaxDelaySec)=.*\n", re.MULTILINE)
_EXEC_RELOAD = re.compile(r"^ExecReload=.*\n", re.MULTILINE)
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  what ProtectHome and PrivateTmp hide


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One file as it should be."""

    path: Path
    content: bytes
    mode: int = 0o644
    is_config: bool = False
    """The user's: written where there is none, and never again."""


def wanted_files(
    root: Path, *, program: Path, systemd_version: int | None, config: Path | None = None
) -> Iterator[Wanted]:
    """Every file of an installation below `root`.

    Args:
        root: `/`, or another folder for a package or a test.
        program: the `edgevision` that the units start.
        systemd_version: for which systemd; None for a new one.
        config: the first config; by default the annotated sample.

    Raises:
        UsageError: the service could not see the program.
        StateError: a file cannot be read.
    """
    if root == Path("/"):
        _check_seen(program)
    for name, place in PLACES.items():
        text = _read(shipped_dir("systemd") / name).decode().replace(_PACKAGED_PROGRAM, str(program))
        if systemd_version is not None and systemd_version < 254:
            text = _SINCE_254.sub("", text)
        if systemd_version is not None and systemd_version >= 253:
            # systemd then sends SIGHUP itself, and `systemctl reload` waits until the new config is taken over or refused.
            text = _EXEC_RELOAD.sub("", text.replace("Type=notify\n", "Type=notify-reload\n"))
        yield Wanted(path=root / place, content=text.encode())
    source = config or shipped_dir("deploy") / "edgevision.yaml"
    yield Wanted(path=root / CONFIG_PLACE, content=_read(source), mode=0o640, is_config=True)


def _check_seen(program: Path) -> None:
    hidden = tuple(map(Path, _HIDDEN))
    for path in (program, program.resolve(), _interpreter(program)):
        if path is not None and any(path.is_relative_to(folder) for folder in hidden):
            runs = "" if path == program else f" needs {path}, and"
            raise UsageError(
                f"{program}:{runs} the service cannot see programs in {', '.join(_HIDDEN)}: install edgevision in a place of "
                "its own, with the system's Python: /usr/bin/python3 -m venv /opt/edgevision"
            )


def _interpreter(program: Path) -> Path | None:
    """What `#!` names, after all links: the Python of a virtual environment is often one to somebody's home."""
    try:
        with program.open("rb") as stream:
            line = stream.readline(4096)
    except OSError:
        return None  # who starts it will say so
    return Path(os.fsdecode(line[2:].split()[0])).resolve() if line.startswith(b"#!") and line[2:].split() else None


def this_program() -> Path:
    """The `edgevision` beside the Python that runs.

    Raises:
        UsageError: there is none.
    """
    program = Path(sys.executable).parent / "edgevision"
    if not program.is_file():
        raise UsageError(f"{program}: no such program: say where it is with --program")
    return program


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as failure:
        raise StateError(f"{file}: cannot be read: {failure.strerror or failure}") from failure
