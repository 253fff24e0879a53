"""The memory that carries pixels from a reader process to the daemon: a ring of slots without a name.

Nothing can be left behind: the memory is a memfd, which lives as long as somebody holds it and stands in no folder. Nothing
can be torn: a slot belongs to the reader until it is sent and to the daemon until the last array that looks into it is gone;
then, and only then, it is given back. The reader writes a picture once; the daemon looks at it where it lies, read-only.
The memory is sealed against shrinking, so that not even a reader gone wild can pull it away from under the daemon.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Tell(Protocol):
    """Sends a packet to the daemon, with file descriptors where it needs them."""

    def __call__(self, packet: Mapping[str, Any], *, descriptors: Sequence[int] = ()) -> None:
        """Send it."""
        ...


SLOTS = 8
"""With the model, waiting for it, in the snapshot encoder, waiting for that, in the reader's hand, in a rule's, on the way,
being written. The one given back last is used first: slots that are not needed are never touched and cost no memory."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class SlotWriter:
    """The reader's side."""

    def __init__(self, tell: Tell, *, slots: int = SLOTS) -> None:
        """`tell` sends a packet to the daemon. The memory is made when the first picture tells how much is needed."""
        self._tell = tell
        self._slots = slots
        self._ring = 0
        self._slot_bytes = 0
        self._memory: mmap.mmap | None = None
        self._free: list[int] = []
        self._changed = threading.Condition()
        self.left_out = 0
        """Pictures that found no free slot."""

    def write(self, image: NDArray[np.uint8], *, wait: bool) -> tuple[int, int] | None:
        """Write a picture into a free slot.

        Args:
            image: (H, W, 3) uint8.
            wait: whether to wait for a free slot (files) or to leave the picture out (cameras).

        Returns:
            Ring and slot; None where no slot was free.
        """
        if image.nbytes > self._slot_bytes:
            self._make(image.nbytes)
        with self._changed:
            while wait and not self._free:
                self._changed.wait()
            if not self._free:
                self.left_out += 1
                return None
            slot = self._free.pop()
        assert self._memory is not None  # noqa: S101  for mypy: made above
        room = np.frombuffer(self._memory, np.uint8, count=image.nbytes, offset=slot * self._slot_bytes)
        np.copyto(room.reshape(image.shape), image)
        return self._ring, slot

    def release(self, ring: int, slot: int) -> None:
        """The daemon no longer looks into a slot; those of earlier rings are not used again."""
        with self._changed:
            if ring == self._ring:
                self._free.append(slot)
                self._changed.notify()

    def _make(self, picture_bytes: int) -> None:
        """A new, larger ring; the old one lives until the daemon has let go of its last picture."""
        slot_bytes = -(-picture_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        size = slot_bytes * self._slots
        descriptor = os.memfd_create("edgevision-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            memory = mmap.mmap(descriptor, size)
            with self._changed:
                self._ring += 1
                self._slot_bytes, self._memory = slot_bytes, memory
                self._free = list(range(self._slots))
            packet = {"is": "ring", "ring": self._ring, "slots": self._slots, "slot_bytes": slot_bytes}
            self._tell(packet, descriptors=[descriptor])
        finally:
            os.close(descriptor)


class SlotReader:
    """The daemon's side."""

    def __init__(self, give_back: Callable[[int, int], None]) -> None:
        """`give_back(ring, slot)` is called, from whichever thread it happens in, when a picture is no longer looked at."""
        self._give_back = give_back
        self._ring = 0
        self._slots = 0
        self._slot_bytes = 0
        self._memory: mmap.mmap | None = None

    def open(self, descriptor: int, *, ring: int, slots: int, slot_bytes: int) -> None:
        """Take over a ring; the descriptor stays the caller's.

        Raises:
            ValueError: it is not what a reader makes.
        """
        size = slots * slot_bytes
        if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS != _SEALS or os.fstat(descriptor).st_size != size:
            raise ValueError(f"a ring of {slots} slots of {slot_bytes} bytes is not sealed or of another size")
        self._memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        self._ring, self._slots, self._slot_bytes = ring, slots, slot_bytes

    def close(self) -> None:
        """Let go of the memory; pictures that are still looked at keep it until they are done."""
        self._memory = None

    def look(self, *, ring: int, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        """The picture in a slot: (height, width, 3), read-only, where it lies.

        Raises:
            ValueError: there is no such slot, or it is too small.
        """
        count = height * width * 3
        fits = ring == self._ring and 0 <= slot < self._slots and height > 0 and width > 0 and count <= self._slot_bytes
        if self._memory is None or not fits:
            raise ValueError(f"no picture of {width}x{height} lies in slot {slot} of ring {ring}")
        # Every array made of this one, however cut, keeps exactly this one alive (numpy follows `base` to the last array):
        # when it dies nobody looks into the slot any more.
        pixels: NDArray[Any] = np.frombuffer(self._memory, np.uint8, count=count, offset=slot * self._slot_bytes)
        weakref.finalize(pixels, self._give_back, ring, slot).atexit = False
        return pixels.reshape(height, width, 3)
