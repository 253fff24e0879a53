"""One heap, whose unused pages go back to the machine: a daemon that runs for years must not hoard.

A reload loads a model beside the one whose place it takes. glibc gives each thread an arena of its own, and keeps the peaks of
them all: a daemon of 77 MB held 127 after twenty reloads; with the pages given back 86; with one arena besides 73, as at the
start. Small pieces come from each thread's own cache and Python's allocator, pictures from the kernel or shared memory, so
threads seldom meet in it. A film that begins again leaves holes of a picture's size: eight films of 1280x720 took a daemon from
172 to 185 MB in thirty rounds, and with the pages given back twice a minute
it stays at 175.
"""

from __future__ import annotations

import ctypes
import gc

_ARENA_MAX = -8
"""M_ARENA_MAX of mallopt(3)."""


def keep_one_heap() -> None:
    """Called before there are threads; a C library without these (musl) has no such hoard."""
    options = getattr(ctypes.CDLL(None), "mallopt", None)
    if options is not None:
        options(_ARENA_MAX, 1)


def give_pages_back() -> None:
    """Return the heap's unused pages; other threads' `malloc` waits meanwhile."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def give_memory_back() -> None:
    """Free what is garbage, and return the heap's unused pages."""
    gc.collect()
    give_pages_back()
