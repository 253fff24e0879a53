"""What the tests have a child process do: answer, refuse, crash, hang, and eat memory."""

import ctypes
import sys
import threading

import numpy as np

from edgevision.errors import ManifestError, ModelError


def answer(job, content=b""):
    sys.stdout.write("noise on standard output\n")
    return {"job": job, "bytes": len(content), "last": content[-3:].decode()}


def refuse(job):
    raise ManifestError("m.yaml", []) if job.get("document") else ModelError("model 'm': refused")


def crash(job):
    ctypes.string_at(0)


def fail(job):
    raise KeyError("a bug")


def hang(job):
    threading.Event().wait()


def eat(job):
    return len([np.ones(10_000_000) for _ in range(100)])


def leave(job):
    raise SystemExit(3)
