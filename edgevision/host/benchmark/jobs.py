"""What the worker can do: the interleaved latency run, the run alone (closed loop or paced), the profile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgevision import assembly, logs
from edgevision.assembly import ModelSettings
from edgevision.clock import SYSTEM_CLOCK, Clock
from edgevision.errors import ModelError, PluginError, UsageError
from edgevision.host.benchmark import layers, machine, memory
from edgevision.host.benchmark.figures import NS_PER_MS, summary, to_ms
from edgevision.host.benchmark.frames import frame_of, scene, scene_jpeg
from edgevision.host.benchmark.interleave import Loop, block, rounds, settling_s, turns
from edgevision.host.benchmark.loops import (
    BARE_BACKENDS,
    STAGES,
    EdgevisionLoop,
    Yardstick,
    bare_loop,
    reference_loop,
    weights,
)
from edgevision.host.benchmark.noise import undisturbed
from edgevision.host.benchmark.stability import LIMIT_S, warm_up
from edgevision.pipeline import Model

_IMPORTED_NS = time.monotonic_ns()
_JPEG_DECODES = 20
_YARDSTICK_S = 0.03
_QUIET_TURNS = 25
_TURNS_SHARE = 0.5
"""Turns go on for so much of the time that blocks take."""
_TELL_EVERY_S = 0.25


class Say(Protocol):
    """Tells the parent something."""

    def __call__(self, **line: Any) -> None:
        """One JSON line."""
        ...


def run(job: Mapping[str, Any], *, say: Say, ready_ns: int) -> dict[str, Any]:
    """Do a job; `ready_ns` is when the worker's first line ran."""
    logs.configure(level="warning")
    cv2.setNumThreads(1)  # as the daemon does
    memory.forget_peak()
    if job["job"] == "latency":
        return _latency(job, say=say, ready_ns=ready_ns)
    if job["job"] == "alone":
        return _alone(job, say=say)
    if job["job"] == "profile":
        return _profile(job)
    raise UsageError(f"no such job: {job['job']!r}")


def _load(job: Mapping[str, Any], fps: float | None) -> Model:
    options = {"providers": tuple(job["providers"])} if job["providers"] else None
    settings = ModelSettings(backend=job["backend"], threads=job["threads"], expected_fps=fps, backend_options=options)
    return assembly.load_model(job["model"], like=job["like"], settings=settings)


def _image(job: Mapping[str, Any]) -> NDArray[np.uint8]:
    width, height = job["size"]
    return scene(width, height)


def _input_tensor(model: Model, image: NDArray[np.uint8]) -> tuple[str, NDArray[Any]]:
    name = model.backend.inputs[0].name
    tensors = model.preprocessor(frame_of(image, time_ns=0, mono_ns=0)).tensors
    return name, np.array(tensors[name])


def _latency(job: Mapping[str, Any], *, say: Say, ready_ns: int) -> dict[str, Any]:
    """One repeat: cold start, warm-up, then edgevision, the bare loop and the yardstick in turns."""
    loading_ns = time.monotonic_ns()
    model = _load(job, None)
    loaded_ns = time.monotonic_ns()
    image = _image(job)
    loop = EdgevisionLoop(model, image)
    first_ns = _timed(loop)
    cold = {
        "process_ms": to_ms(ready_ns - job["spawned_ns"]),
        "import_ms": to_ms(_IMPORTED_NS - ready_ns),
        "load_ms": to_ms(loaded_ns - loading_ns),
        "first_frame_ms": to_ms(first_ns),
    }
    cold["total_ms"] = round(sum(cold.values()), 4)
    warmed = warm_up(loop, limit_s=min(LIMIT_S, job["duration_s"]))
    say(progress=warmed.seconds)
    settle_s = settling_s(job["threads"])
    yardstick = Yardstick(job["threads"])
    loops = {
        "edgevision": Loop(call=loop, settle_s=settle_s),
        "yardstick": Loop(call=yardstick, block_s=_YARDSTICK_S, settle_s=settle_s),
    }
    bare = _bare(job, model, image)
    if callable(bare["call"]):
        loops["bare"] = Loop(call=bare["call"])  # follows the yardstick, whose threads do not spin
        warm_up(bare["call"], limit_s=min(LIMIT_S, job["duration_s"]) / 2)
    loop.take_stages_ns()
    busy_s, cpu_s, wall_ns = machine.busy_s(), time.process_time(), time.monotonic_ns()
    found = rounds(loops, job["duration_s"], on_round=lambda seconds: say(progress=seconds))
    stages = loop.take_stages_ns()
    yardstick.close()
    block(Loop(call=loop, settle_s=settle_s))  # the bare loop's threads may spin still
    in_turns, identity = _turns(job, model, loop, image)
    say(progress=job["duration_s"] * _TURNS_SHARE)
    others = _others(busy_s, cpu_s, wall_ns)
    model.close()
    return {
        "model": {"name": model.name, "version": model.manifest.version, "sha256": model.sha256},
        "backend": model.backend_name,
        "cold_start": cold,
        "bare": {key: value for key, value in bare.items() if key != "call"},
        "warm_up": {"stable": warmed.stable, "windows": warmed.windows, "seconds": warmed.seconds},
        "yardstick": yardstick.identity,
        "reference": identity,
        "others_cores": others,
        "turns": {f"{name}_ns": spent.tolist() for name, spent in in_turns.items()},
        "rounds": [
            {
                "at_s": round(one.at_ns / 1e9, 3),
                **{f"{name}_ns": spent.tolist() for name, spent in one.samples_ns.items()},
            }
            for one in found
        ],
        "stages_ns": {stage: stages[:, column].tolist() for column, stage in enumerate(STAGES)},
        "capture_decode_ns": _jpeg_decodes(image),
    }


def _timed(call: Callable[[], object]) -> int:
    started_ns = time.monotonic_ns()
    call()
    return time.monotonic_ns() - started_ns


def _turns(
    job: Mapping[str, Any], model: Model, loop: EdgevisionLoop, image: NDArray[np.uint8]
) -> tuple[dict[str, NDArray[np.int64]], str | None]:
    """Edgevision, its twin and the reference model call by call, and what the reference is."""
    calls: dict[str, Callable[[], object]] = {"edgevision": loop}
    twin = _runtime_alone(job, model, image, twin=True)
    if callable(twin["call"]):
        calls["twin"] = twin["call"]
    reference = reference_loop(model.backend_name, job["threads"])
    if reference is not None:
        calls["reference"] = reference[0]
    spent = turns(list(calls.values()), job["duration_s"] * _TURNS_SHARE, enough=_enough_quiet)
    return {name: spent[:, column] for column, name in enumerate(calls)}, reference[1] if reference else None


def _enough_quiet(spent: NDArray[np.int64]) -> bool:
    """Whether enough turns of edgevision and its twin (the reference, where there is no twin) were undisturbed."""
    return spent.shape[1] < 2 or int(undisturbed(spent[:, 0], spent[:, 1]).sum()) >= _QUIET_TURNS


def _others(busy_s: float | None, cpu_s: float, wall_ns: int) -> float | None:
    """How many cores other processes kept busy since the three were read; None where the kernel does not tell."""
    now_s = machine.busy_s()
    if busy_s is None or now_s is None:
        return None
    own_s = time.process_time() - cpu_s
    return round(max(0.0, now_s - busy_s - own_s) / ((time.monotonic_ns() - wall_ns) / 1e9), 3)


def _bare(job: Mapping[str, Any], model: Model, image: NDArray[np.uint8]) -> dict[str, Any]:
    """The bare loop and how long it took to make it and to run first; or why there is none."""
    if not job["bare"]:
        return {"call": None, "said": "not asked for"}
    started_ns = time.monotonic_ns()
    made = _runtime_alone(job, model, image, twin=False)
    made_ns = time.monotonic_ns() - started_ns
    if callable(made["call"]):
        made |= {"load_ms": to_ms(made_ns), "first_inference_ms": to_ms(_timed(made["call"]))}
    return made


def _runtime_alone(job: Mapping[str, Any], model: Model, image: NDArray[np.uint8], *, twin: bool) -> dict[str, Any]:
    """`call`, the runtime alone; or None, and why in `said`."""
    backend = model.backend_name
    if backend not in BARE_BACKENDS:
        return {"call": None, "said": f"not available: no bare loop is known for backend {backend}"}
    if len(model.backend.inputs) != 1:
        names = ", ".join(spec.name for spec in model.backend.inputs)
        return {
            "call": None,
            "said": f"not available: the bare loop gives the picture alone, and the model has {names}",
        }
    name, tensor = _input_tensor(model, image)
    content = weights(job["model"], backend)
    providers = job["providers"] or ("CPUExecutionProvider",)
    try:
        call = bare_loop(content, backend, job["threads"], tensor, name, providers=providers, twin=twin)
    except PluginError as failure:
        return {"call": None, "said": f"not available: {failure}"}
    return {"call": call}


def _jpeg_decodes(image: NDArray[np.uint8]) -> list[int]:
    """Nanoseconds of decoding one frame of an MJPEG camera, several times."""
    content = scene_jpeg(image)
    cv2.imdecode(content, cv2.IMREAD_COLOR)
    return [_timed(lambda: cv2.imdecode(content, cv2.IMREAD_COLOR)) for _ in range(_JPEG_DECODES)]


def _alone(job: Mapping[str, Any], *, say: Say) -> dict[str, Any]:
    """Only edgevision runs here: what it takes of memory and processor, flat out or at a frame rate."""
    fps = job["fps"]
    image = _image(job)
    loop = EdgevisionLoop(_load(job, fps), image)
    limit_s = min(LIMIT_S, job["duration_s"])
    warmed = warm_up(loop, limit_s=limit_s)
    loop.take_stages_ns()
    say(progress=warmed.seconds)
    say(phase="timed")
    cpu_ns, wall_ns = time.process_time_ns(), time.monotonic_ns()
    if fps is None:
        spent, left_out = flat_out(loop, job["duration_s"], say=say), 0
    else:
        spent, left_out = paced(loop, fps, job["duration_s"], say=say)
    cpu_ns, wall_ns = time.process_time_ns() - cpu_ns, time.monotonic_ns() - wall_ns
    stages = loop.take_stages_ns()
    return {
        "fps_asked": fps,
        "fps": round(len(spent) / (wall_ns / 1e9), 3),
        "frames_left_out": left_out,
        "seconds": round(wall_ns / 1e9, 3),
        "latency": summary(np.array(spent, np.int64)),
        "stages_p50_ms": {stage: to_ms(float(np.median(stages[:, column]))) for column, stage in enumerate(STAGES)},
        "cpu_percent_of_a_core": round(100 * cpu_ns / wall_ns, 1),
        "cpu_ms_per_frame": round(cpu_ns / NS_PER_MS / len(spent), 4),
        **memory.resident(),
    }


def flat_out(
    call: Callable[[], object], seconds: float, *, say: Say, now_ns: Callable[[], int] = time.monotonic_ns
) -> list[int]:
    """Frame after frame for `seconds`, at least one; nanoseconds of each."""
    spent: list[int] = []
    began_ns = told_ns = done_ns = now_ns()
    while not spent or done_ns - began_ns < seconds * 1e9:
        started_ns = now_ns()
        call()
        done_ns = now_ns()
        spent.append(done_ns - started_ns)
        if done_ns - told_ns > _TELL_EVERY_S * 1e9:
            say(progress=(done_ns - told_ns) / 1e9)
            told_ns = done_ns
    return spent


def paced(
    call: Callable[[], object], fps: float, seconds: float, *, say: Say, clock: Clock = SYSTEM_CLOCK
) -> tuple[list[int], int]:
    """A frame every 1/fps seconds, as a camera gives them; a frame that comes while the model is busy is left out.

    Returns:
        Nanoseconds of each frame, and how many were left out.
    """
    never = threading.Event()
    period_ns, began_ns = 1e9 / fps, clock.monotonic_ns()
    spent: list[int] = []
    frame = left_out = 0
    frames = max(1, round(seconds * fps))
    while frame < frames:
        due_ns = began_ns + frame * period_ns
        clock.wait(never, max(0.0, (due_ns - clock.monotonic_ns()) / 1e9))
        started_ns = clock.monotonic_ns()
        call()
        done_ns = clock.monotonic_ns()
        spent.append(done_ns - started_ns)
        following = max(frame + 1, -(-int(done_ns - began_ns) // int(period_ns)))
        left_out += min(following, frames) - frame - 1
        say(progress=(min(following, frames) - frame) / fps)
        frame = following
    clock.wait(never, max(0.0, (began_ns + frames * period_ns - clock.monotonic_ns()) / 1e9))  # the last frame's time
    return spent, left_out


def _profile(job: Mapping[str, Any]) -> dict[str, Any]:
    model = _load(job, None)
    backend = model.backend_name
    if backend != "onnxrt":
        said = layers.NO_LITERT if backend == "litert" else f"not available: backend {backend} has no profiler here"
        return {"said": said}
    if len(model.backend.inputs) != 1:
        model.close()
        raise ModelError(f"{job['model']}: the profile gives the picture alone, and the model has more inputs")
    name, tensor = _input_tensor(model, _image(job))
    model.close()
    content = weights(job["model"], backend)
    providers = job["providers"] or ("CPUExecutionProvider",)
    try:
        return layers.profile(content, {name: tensor}, threads=job["threads"], providers=providers)
    except OSError as failure:
        raise ModelError(f"{job['model']}: the profile cannot be written: {failure}") from failure
