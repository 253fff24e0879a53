"""The cameras of this machine with their modes, and the sources that a config names: there, allowed, and answering."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from edgevision import registry
from edgevision.capture._diagnose import DEFAULT_PORTS, check_file, why_no_stream
from edgevision.capture._urls import redact_url
from edgevision.capture.base import SourceContext
from edgevision.doctor import v4l2
from edgevision.doctor.findings import Finding, fault, ok, parted
from edgevision.errors import EdgevisionError

_MODES_SHOWN = 12
_KNOCK_S = 5.0


def none(job: dict[str, Any]) -> Iterator[Finding]:
    """What is said where the kernel knows no camera."""
    yield ok("cameras", "V4L2", f"no video device in {Path(job['root'])}sys/class/video4linux")


def device(job: dict[str, Any]) -> Iterator[Finding]:
    """One V4L2 device: who it is, and what it offers."""
    root, name = Path(job["root"]), str(job["name"])
    path = root / "dev" / name
    subject = f"/dev/{name}"
    label = _label(root, name)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        yield fault("cameras", subject, f"{label}: the kernel knows it, and it is not in /dev",
                    "hand it to the container: devices: [/dev/video0]")  # fmt: skip
        return
    except PermissionError:
        yield fault(
            "cameras", subject, f"{label}: no permission", f"usermod -aG video USER (the group that owns {subject})"
        )
        return
    except OSError as failure:
        yield fault("cameras", subject, f"{label}: {failure.strerror}", "unplug it and plug it in again")
        return
    try:
        card = v4l2.query(descriptor)
        if not card.captures:
            yield ok("cameras", subject, f"{card.card}: takes no pictures (a metadata, output or codec node)")
            return
        found = [str(mode) for mode in v4l2.modes(descriptor)]
    except OSError as failure:
        yield fault("cameras", subject, f"{label}: does not answer as a V4L2 device: {failure.strerror}",
                    "unplug it and plug it in again")  # fmt: skip
        return
    finally:
        os.close(descriptor)
    more = f" and {len(found) - _MODES_SHOWN} more" if len(found) > _MODES_SHOWN else ""
    modes = "; ".join(found[:_MODES_SHOWN]) or "the driver lists no modes"
    lasting = _lasting_name(root, name)
    yield ok("cameras", subject, f"{card.card} ({card.driver}){f', {lasting}' if lasting else ''}: {modes}{more}")


def _label(root: Path, name: str) -> str:
    try:
        return (root / "sys/class/video4linux" / name / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "video device"


def _lasting_name(root: Path, name: str) -> str:
    """The name that stays the same when cameras are plugged in another order."""
    for kind in ("by-id", "by-path"):
        for link in sorted((root / "dev/v4l" / kind).glob("*")):
            if Path(os.path.realpath(link)).name == name:
                return f"/dev/v4l/{kind}/{link.name}"
    return ""


def source(job: dict[str, Any]) -> Iterator[Finding]:
    """One camera of a config: its plug-in, its SDK, and whether what it names is there and answers."""
    camera = job["camera"]
    subject, given = str(camera.get("name", "camera")), camera.get("source")
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        return  # the config's own check says so, with its line
    try:
        plugin = registry.load("capture", given["type"])
        options = plugin.Options.model_validate({key: value for key, value in given.items() if key != "type"})
        # Making a source opens nothing, and asks for its SDK.
        plugin.create(options, SourceContext(camera=subject)).close()
    except ValidationError:
        return
    except EdgevisionError as failure:
        found, fix = parted(str(failure))
        yield fault("cameras", subject, found, fix)
        return
    yield _reach(subject, options)


def _reach(subject: str, options: Any) -> Finding:
    """Knock at what a source names, where its options have an address; nothing is read: a running daemon is not disturbed."""
    url, kind = getattr(options, "url", None), getattr(options, "kind", None)
    if kind == "device":
        return _device(subject, f"/dev/video{url}" if isinstance(url, int) else str(url))
    if kind == "file":
        try:
            check_file(Path(str(url)))
        except EdgevisionError as failure:
            found, fix = parted(str(failure))
            return fault("cameras", subject, found, fix)
        return ok("cameras", subject, f"{url} is there")
    parts = urlsplit(str(url)) if isinstance(url, str) else None
    if parts is None or not parts.hostname:
        return ok("cameras", subject, "its plug-in and SDK are here; its source was not opened")
    port = parts.port or DEFAULT_PORTS.get(parts.scheme.lower(), 0)
    try:
        socket.create_connection((parts.hostname, port), timeout=_KNOCK_S).close()
    except OSError:
        found, fix = parted(why_no_stream(str(url), timeout_s=_KNOCK_S))
        return fault("cameras", subject, f"{redact_url(str(url))}: {found}", fix)
    return ok("cameras", subject, f"{parts.hostname}:{port} answers; the stream itself was not opened")


def _device(subject: str, path: str) -> Finding:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        there = ", ".join(sorted(str(one) for one in Path("/dev").glob("video[0-9]*"))) or "none"
        return fault("cameras", subject, f"{path} is not there; video devices present: {there}",
                     "plug the camera in, hand it to the container, or correct `url`")  # fmt: skip
    except OSError as failure:
        return fault(
            "cameras", subject, f"{path}: {failure.strerror}", f"usermod -aG video USER (the group that owns {path})"
        )
    try:
        card = v4l2.query(descriptor)
    except OSError as failure:
        return fault(
            "cameras", subject, f"{path} does not answer as a V4L2 camera: {failure.strerror}", "correct `url`"
        )
    finally:
        os.close(descriptor)
    if not card.captures:
        fix = "most cameras take pictures on their first node: correct `url`"
        return fault("cameras", subject, f"{path} takes no pictures (a metadata or output node of {card.card})", fix)
    return ok("cameras", subject, f"{path} is {card.card}")
