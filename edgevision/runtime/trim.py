"""What a reload leaves unused goes back to the machine.

A model is loaded beside the one that it takes the place of, so the heap is twice as large for a moment, and glibc keeps such
peaks in each of its arenas: a daemon of 77 MB held 130 after twenty reloads (benchmarks/soak.py shows it). Asked, it lets go.
"""

from __future__ import annotations

import ctypes
import gc


def give_memory_back() -> None:
    """Free what is garbage, and return the heap's unused pages; a C library without `malloc_trim` (musl) has no such hoard."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
