"""Wakes the sink's thread out of its wait for the socket."""

from __future__ import annotations

import os
import threading


class Waker:
    """A pipe whose reading end the thread waits for as well; `wake` and `nudge` from any thread."""

    def __init__(self) -> None:
        """Open the pipe."""
        # A pipe and not a socket pair: waking costs the pipeline's thread half as much.
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._lock = threading.Lock()
        self._ended = False
        self.sleeps = False
        """The thread waits for messages, and must be woken for one."""

    def nudge(self) -> None:
        """There is something to send: wake the thread if it sleeps."""
        if self.sleeps:
            self.sleeps = False
            self.wake()

    def wake(self) -> None:
        """Wake the thread whatever it waits for."""
        with self._lock:
            if self._ended:
                return
            try:
                os.write(self._write_fd, b"\0")
            except BlockingIOError:
                return  # so many wakes are unread that one more says nothing new

    def close(self) -> None:
        """Close the pipe; may be called twice."""
        with self._lock:
            if not self._ended:
                self._ended = True
                os.close(self.fd)
                os.close(self._write_fd)
