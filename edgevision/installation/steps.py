"""Putting the files in place and taking them away: every step is printed as what is done, and what was written is recorded.

The record (`etc/edgevision/installed.json`) holds each file's digest. So a second run changes nothing, an upgrade renews what
is still ours and leaves what somebody has changed, and an uninstallation removes exactly what an installation wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevision.errors import StateError, UsageError
from edgevision.installation.files import Wanted

RECORD_PLACE = "etc/edgevision/installed.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """Does, or in a dry run only says."""

    root: Path
    dry_run: bool
    say: Callable[[str], None]

    @property
    def record(self) -> Path:
        """The file that says what was written."""
        return self.root / RECORD_PLACE

    def check_may(self) -> None:
        """Say early and clearly that it will not work.

        Raises:
            UsageError: not root, or no systemd runs here.
        """
        if self.root != Path("/") or self.dry_run:
            return
        if os.geteuid() != 0:
            raise UsageError("needs root: run it with sudo, or with --dry-run to see what it would do")
        if not Path("/run/systemd/system").is_dir():
            raise UsageError("systemd does not run this machine: use --prefix DIR to write the files elsewhere")

    def put(self, wanted: Iterable[Wanted]) -> None:
        """Write what is missing or ours and out of date; record it; remove what is ours and no longer wanted."""
        recorded, files = self._recorded(), list(wanted)
        written: dict[str, str] = {}
        for file in files:
            # Below the root, so that a package's record is right where the package is unpacked.
            name = str(file.path.relative_to(self.root))
            digest, there = _digest(file.content), _digest_of(file.path)
            known = recorded.get(name)
            if there == digest:
                self.say(f"keep    {file.path} (is as it should be)")
                written |= {name: digest} if known or not file.is_config else {}
            elif there is None:
                self._write(file)
                written[name] = digest
            elif file.is_config:
                self.say(f"keep    {file.path} (yours)")
                written |= {name: known} if known else {}
            elif there == known:
                self._write(file)
                written[name] = digest
            else:
                self.say(
                    f"keep    {file.path} (changed by somebody; a drop-in by systemctl edit would outlive upgrades)"
                )
                written |= {name: known} if known else {}
        for name in recorded.keys() - written.keys() - {str(file.path.relative_to(self.root)) for file in files}:
            self._remove(self.root / name, recorded[name])
        if written != recorded:
            text = json.dumps({"files": written}, indent=1).encode() + b"\n"
            self._write(Wanted(path=self.record, content=text))

    def take_away(self) -> None:
        """Remove what was recorded, but what somebody has changed since.

        Raises:
            UsageError: nothing is recorded.
        """
        recorded = self._recorded()
        if not recorded:
            raise UsageError(f"{self.record}: nothing is recorded as installed")
        for name, digest in recorded.items():
            self._remove(self.root / name, digest)
        self.say(f"remove  {self.record}")
        if not self.dry_run:
            self.record.unlink()

    def run(self, *command: str, may_fail: bool = False) -> None:
        """Run a program of the system; never with another root.

        Raises:
            StateError: it is missing or fails, and may not.
        """
        if self.root != Path("/"):
            return
        self.say(f"run     {' '.join(command)}")
        if self.dry_run:
            return
        program = shutil.which(command[0])
        if program is None:
            problem = f"{command[0]}: no such program on this machine"
        else:
            done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode == 0:
                return
            problem = f"{' '.join(command)}: failed with {done.returncode}: {' '.join(done.stderr.split())[:500]}"
        if not may_fail:
            raise StateError(problem)
        self.say(f"note    {problem}")

    def give_to(self, path: Path, group: str) -> None:
        """Let a group read a file that is root's."""
        if self.root != Path("/"):
            return
        self.say(f"group   {path}: {group}")
        if not self.dry_run:
            try:
                shutil.chown(path, "root", group)
            except (OSError, LookupError) as failure:
                raise StateError(f"{path}: cannot be given to the group {group}: {failure}") from failure

    def _write(self, file: Wanted) -> None:
        self.say(f"write   {file.path}")
        if self.dry_run:
            return
        beside = file.path.with_name(f".{file.path.name}.new")
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(file.content)
            beside.chmod(file.mode)
            beside.replace(file.path)
        except OSError as failure:
            raise StateError(f"{file.path}: cannot be written: {failure.strerror or failure}") from failure

    def _remove(self, path: Path, digest: str) -> None:
        there = _digest_of(path)
        if there is None:
            self.say(f"gone    {path}")
        elif there != digest:
            self.say(f"keep    {path} (changed by somebody)")
        else:
            self.say(f"remove  {path}")
            if not self.dry_run:
                path.unlink()

    def _recorded(self) -> dict[str, str]:
        if not self.record.is_file():
            return {}
        try:
            files = json.loads(self.record.read_bytes())["files"]
            return {str(path): str(digest) for path, digest in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as failure:
            raise StateError(f"{self.record}: is no record of an installation: {failure!r}; move it away") from failure


def systemd_version(output: Sequence[str]) -> int | None:
    """The version in the first line of `systemctl --version`; None where it tells none."""
    words = output[0].split() if output else []
    return int(words[1]) if len(words) > 1 and words[1].isdecimal() else None


def ask_systemd_version() -> int | None:
    """This machine's systemd; None without one."""
    program = shutil.which("systemctl")
    if program is None:
        return None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return systemd_version(done.stdout.splitlines())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(path: Path) -> str | None:
    try:
        return _digest(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise StateError(f"{path}: cannot be read: {failure.strerror or failure}") from failure
