"""edgevision with LiteRT: all that the daemon does for a frame between the camera and the sink's queue."""

from __future__ import annotations

from pathlib import Path

from peer import EDGEVISION, Looker

REQUIREMENTS = EDGEVISION
TASKS = ("yolox-tflite", "ssd-tflite", "mobilenet-tflite")
NOTE = "makes the JSON message too and hands it to a sink"


def make(task: str, model: Path, threads: int) -> Looker:
    """Load the model."""
    import ours

    return ours.make(task, model, threads)
