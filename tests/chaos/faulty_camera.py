"""A live source from an outside package that misbehaves on purpose, once or always: the tests install it as a plug-in."""

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from edgevision import registry
from edgevision.capture.images import read_image
from edgevision.errors import CaptureError
from edgevision.types import Frame


class Options(registry.Options):
    fault: str = "none"
    """none, block, segfault, leak, exit, raise, fail, deaf (holds the GIL), noise"""
    after: int = 10
    """Frames before it."""
    marker: Path | None = None
    """With it the fault comes once: it is made when the fault comes."""
    secret: str = ""
    photo: Path | None = None
    """Shown, with a sensor's noise, in place of noise alone."""
    cover: Path | None = None
    """While this file is there, the lens is covered."""
    width: int = 320
    fps: float = 30.0


def create(options, context):
    return FaultyCamera(options, context)


class FaultyCamera:
    live = True

    def __init__(self, options, context):
        self._options, self._context = options, context
        self._closing = threading.Event()
        self.unreadable = 0
        self._photo = None if options.photo is None else read_image(options.photo)

    def frames(self):
        options, random = self._options, np.random.default_rng(0)
        faulty = options.fault != "none" and not (options.marker and options.marker.exists())
        sequence = 0
        while not self._closing.wait(1 / options.fps):
            if faulty and sequence == options.after:
                if options.marker:
                    options.marker.touch()
                getattr(self, f"_{options.fault}")()
            self.unreadable = sequence // 10
            yield Frame(
                image=self._picture(random),
                camera=self._context.camera,
                sequence=sequence,
                captured_at_ns=time.time_ns(),
                captured_mono_ns=time.monotonic_ns(),
            )
            sequence += 1

    def _picture(self, random):
        if self._options.cover is not None and self._options.cover.exists():
            return random.integers(0, 4, (240, 320, 3), np.uint8)
        if self._photo is None:
            return random.integers(0, 255, (240, self._options.width, 3), np.uint8)
        return self._photo ^ random.integers(0, 2, self._photo.shape, np.uint8)

    def close(self):
        self._closing.set()

    def _block(self):
        threading.Event().wait()

    def _deaf(self):
        ctypes.PyDLL(None).pause()  # keeps the GIL: no thread of the process runs any more

    def _segfault(self):
        ctypes.string_at(0)

    def _leak(self):
        held = []
        while True:
            held.append(np.ones(4 << 20, np.uint8))
            self._closing.wait(0.005)

    def _exit(self):
        os._exit(3)

    def _raise(self):
        raise ZeroDivisionError("a bug in the plug-in")

    def _fail(self):
        raise CaptureError("the camera was unplugged")

    def _noise(self):
        for number in range(5000):
            sys.stderr.write(f"libcam: error {number} at http://user:hunter2@cam/x\n")
        sys.stderr.flush()
