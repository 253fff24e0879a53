"""The heap: asked of a process of its own, because glibc's arenas are the whole process's."""

import subprocess
import sys

import pytest

from edgevision.runtime import heap

HOARD = """
import ctypes, sys, threading
from edgevision.runtime.heap import give_memory_back, keep_one_heap
if "one" in sys.argv:
    keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def own_mb():
    return sum(int(l.split()[1]) for l in open("/proc/self/smaps_rollup") if l.startswith("Anonymous:")) / 1024

def arenas():
    return open("/proc/self/maps").read().count("---p 00000000 00:00 0")

barrier = threading.Barrier(6)

def work():
    pieces = [libc.malloc(8000) for _ in range(1500)]
    ctypes.memset(pieces[0], 1, 8000)
    for piece in pieces:
        ctypes.memset(piece, 1, 8000)
    barrier.wait()
    for number, piece in enumerate(pieces):
        if number % 50:  # one in fifty stays: the heap cannot shrink from its end
            libc.free(piece)
    barrier.wait()
    barrier.wait()

before, before_arenas = own_mb(), arenas()
threads = [threading.Thread(target=work) for _ in range(5)]
[thread.start() for thread in threads]
barrier.wait()
barrier.wait()
held = own_mb() - before
give_memory_back()
print(held, own_mb() - before, arenas() - before_arenas)
barrier.wait()
"""


@pytest.mark.skipif(not hasattr(__import__("ctypes").CDLL(None), "malloc_trim"), reason="not glibc")
def test_unused_pages_go_back_to_the_machine_and_threads_share_one_heap():
    def run(*arguments):
        done = subprocess.run([sys.executable, "-c", HOARD, *arguments], capture_output=True, text=True, check=True)
        return tuple(map(float, done.stdout.split()))

    held_mb, after_mb, several = run()
    assert held_mb > 30
    assert after_mb < held_mb / 3
    *_, one = run("one")
    assert one < several, "threads got no arenas of their own"


def test_without_glibc_nothing_is_asked(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    heap.keep_one_heap()
    heap.give_memory_back()
