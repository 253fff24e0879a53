"""The devices that a model can be quantised for: which runtime will load it there, and what makes integers pay in it.

One target, one entry. What differs is not taste but arithmetic: x86 without VNNI adds two products in 16 bits and saturates,
ARM multiplies signed bytes, TensorRT wants zero points of 0, OpenVINO fuses an activation that ONNX Runtime does not.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgevision import registry
from edgevision.errors import UsageError
from edgevision.host.benchmark.machine import environment

AUTO = "auto"
LEAST_SHARE = 0.9
"""Of a model's convolutions that must run as integers on a target that gains nothing otherwise."""

_VNNI = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})


SATURATES = (
    "measured on a CPU with VNNI; without it sums of two products saturate, which cost YOLOX-nano up to 2.7 points: prove the "
    "packaged file there, with `edgevision quantize --prove`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of device."""

    name: str
    backend: str
    """That loads the model there, and that it is evaluated with here."""
    format: Literal["onnx", "tflite"]
    """Of the file that is packaged."""
    needs_integers: bool = True
    """Whether a convolution that stays float behind its quantisers is slower than none: then the share is a gate."""
    signed: bool = False
    """Whether activations are signed bytes there."""
    machines: tuple[str, ...] = ()
    """`platform.machine()` of the devices; empty: any."""
    what: str

    def is_here(self, features: Sequence[str], machine: str) -> bool:
        """Whether this machine is such a device, so that latency measured here is latency there."""
        if self.name == "x86":
            return machine in self.machines and not _VNNI & set(features)
        if self.name == "x86-vnni":
            return machine in self.machines and bool(_VNNI & set(features))
        if self.name in {"jetson", "litert-edgetpu"}:
            return False  # their accelerators are not what the model is measured on here
        return not self.machines or machine in self.machines

    def caveats(self, features: Sequence[str]) -> tuple[str, ...]:
        """What this machine cannot show of other devices of the target."""
        if self.name == "openvino" and _VNNI & set(features):
            return (SATURATES,)
        return ()


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="x86",
            backend="onnxrt",
            format="onnx",
            machines=("x86_64", "AMD64"),
            what="ONNX Runtime on x86 without VNNI: unsigned activations, weights that cannot saturate 16 bits",
        ),
        Target(
            name="x86-vnni",
            backend="onnxrt",
            format="onnx",
            machines=("x86_64", "AMD64"),
            what="ONNX Runtime on x86 with VNNI: unsigned activations, signed weights of 8 bits",
        ),
        Target(
            name="openvino",
            backend="openvino",
            format="onnx",
            what="OpenVINO, on Intel's and other CPUs, GPUs and NPUs",
        ),
        Target(
            name="arm64",
            backend="onnxrt",
            format="onnx",
            signed=True,
            machines=("aarch64", "arm64"),
            what="ONNX Runtime on 64-bit ARM: signed activations and weights",
        ),
        Target(
            name="jetson",
            backend="onnxrt",
            format="onnx",
            needs_integers=False,  # TensorRT fuses by itself, which cannot be counted without it
            signed=True,
            machines=("aarch64",),
            what="TensorRT on Jetson boards and NVIDIA GPUs: symmetric, explicit quantisers",
        ),
        Target(
            name="litert",
            backend="litert",
            format="tflite",
            signed=True,
            what="LiteRT with XNNPACK: .tflite in 8 bits, the detection tail in float",
        ),
        Target(
            name="litert-edgetpu",
            backend="litert",
            format="tflite",
            signed=True,
            what="Edge TPU: .tflite in which every operator, input and output is 8 bits",
        ),
    )
}


def choose_target(name: str, suffix: str, *, root: Path = Path("/")) -> Target:
    """The target by its name; `auto` looks at this machine's CPU.

    Args:
        name: as the user gave it.
        suffix: of the source's file, `.onnx` or `.tflite`, which `auto` keeps to.
        root: another folder in tests.

    Raises:
        UsageError: nobody knows the name.
    """
    if name == AUTO:
        return TARGETS[_here(root)] if suffix == ".onnx" else TARGETS["litert"]
    check_target_name(name)
    return TARGETS[name]


def check_target_name(name: str) -> None:
    """Refuse an unknown target before anything is read; raises UsageError."""
    if name not in (AUTO, *TARGETS):
        raise UsageError(f"--target: {registry.unknown_name('target', name, (AUTO, *TARGETS))}")


def _here(root: Path) -> str:
    machine = platform.machine()
    if machine in {"x86_64", "AMD64"}:
        return "x86-vnni" if _VNNI & set(environment(root)["features"]) else "x86"
    if machine in {"aarch64", "arm64"}:
        return "jetson" if (root / "etc/nv_tegra_release").exists() else "arm64"
    raise UsageError(f"--target auto: knows x86-64 and 64-bit ARM, and this machine is {machine}; name the target")
