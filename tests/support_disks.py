"""A real disk of a test's own, which can fill up and stop answering: ext4 in a file, on a loop device (needs root)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import final


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {(done.stderr or done.stdout).strip()}")


@final
class Disk:
    """Mounted at `path` while entered; OSError where this machine does not let us."""

    def __init__(self, folder: Path, *, size_mb: int = 64) -> None:
        self.path = folder / "disk"
        self._image = folder / "disk.img"
        self._size_mb = size_mb
        self._frozen = False

    def __enter__(self) -> Disk:
        if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "fsfreeze", "mount"))):
            raise OSError("needs root, mount, mkfs.ext4 and fsfreeze")
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._size_mb * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", self._image)
        _run("mount", "-o", "loop", self._image, self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        try:
            _run("umount", self.path)
        except OSError:  # a test that failed has files open: it goes when they are closed
            _run("umount", "--lazy", self.path)
        self._image.unlink()

    def fill(self) -> None:
        """Leave no block free."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            for size in (2**20, 2**12, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        """Take the filler away."""
        (self.path / "filler").unlink(missing_ok=True)

    def freeze(self) -> None:
        """Whoever writes waits in the kernel until `thaw`."""
        self._frozen = True
        _run("fsfreeze", "-f", self.path)

    def thaw(self) -> None:
        """Let them go on."""
        if self._frozen:
            self._frozen = False
            _run("fsfreeze", "-u", self.path)
