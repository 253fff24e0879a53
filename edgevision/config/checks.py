"""What no single value of a config shows: names that must agree with each other, and with the models on this machine.

These checks look at the raw document, so that they find their faults beside the others and not only after them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgevision import documents, model_store, registry
from edgevision.capture.base import SourceContext
from edgevision.config.sections import Config
from edgevision.documents import Document, Location
from edgevision.environment import default_state_dir, user_models_dir
from edgevision.errors import EdgevisionError, Fault
from edgevision.events.base import RuleContext
from edgevision.messages import Deliveries
from edgevision.model_store import ModelFolder


def cross_check(document: Document, config: Config | None) -> Iterator[Fault]:
    """Every fault that lies between values; `config` is None where single values are wrong as well."""
    models, cameras = _part(document.data, "models", dict), _part(document.data, "cameras", list)
    folders: dict[str, ModelFolder] = {}
    for key, section in models.items():
        if isinstance(section, dict) and isinstance(section.get("model"), str):
            yield from _check_model(document, key, section, folders)
    yield from _check_files(document)
    yield from _check_durable(document)
    first: dict[str, int] = {}
    for index, camera in enumerate(cameras):
        if not isinstance(camera, dict):
            continue
        at: Location = ("cameras", index)
        name, model = camera.get("name"), camera.get("model")
        if isinstance(name, str) and first.setdefault(name, index) != index:
            problem = f"{name!r} is also the name of cameras[{first[name]}]: each needs its own"
            yield _fault(document, (*at, "name"), problem)
        if isinstance(model, str) and model not in models:
            problem = registry.unknown_name("model", model, sorted(models)) + " (the names under `models`)"
            yield _fault(document, (*at, "model"), problem)
        folder = folders.get(str(model))
        yield from _check_trigger(document, index, config)
        yield from _check_rules(document, index, camera, config, folder)
        what = _part(camera, "snapshot", dict).get("what")
        for kind, task, needs in (
            ("crops", "detection", "crops need boxes"),
            ("mask", "segmentation", "a mask needs classes of pixels"),
        ):
            if what == kind and folder and folder.manifest.task != task:
                problem = f"{needs}, and {folder.manifest.name} does {folder.manifest.task}; use `what: frame`"
                yield _fault(document, (*at, "snapshot", "what"), problem)
        if "masks" in camera and folder and folder.manifest.task != "segmentation":
            problem = (
                f"masks are a segmentation's, and {folder.manifest.name} does {folder.manifest.task}; take them away"
            )
            yield _fault(document, (*at, "masks"), problem)


def _check_trigger(document: Document, index: int, config: Config | None) -> Iterator[Fault]:
    """Whether a camera that is triggered gives pictures all the while; a file waits, and would give an old one."""
    if config is None or config.cameras[index].trigger is None:
        return
    section = config.cameras[index]
    try:
        # Making a source opens nothing.
        source = registry.load("capture", section.source.type).create(
            section.source.options, SourceContext(camera=section.name)
        )
    except EdgevisionError:
        return  # its SDK is missing here, which is told when the camera is opened
    if not source.live:
        problem = f"needs a camera or stream, and `{section.source.type}` is read as a file here; take `trigger` out"
        yield _fault(document, ("cameras", index, "trigger"), problem)
    source.close()


def _check_files(document: Document) -> Iterator[Fault]:
    """The files of secrets and certificates that the broker's section and the cameras' sources name."""
    mqtt = _part(document.data, "mqtt", dict)
    tls = _part(mqtt, "tls", dict)
    named: list[tuple[Location, Any]] = [(("mqtt", "password_file"), mqtt.get("password_file"))]
    named += [(("mqtt", "tls", key), tls.get(key)) for key in ("ca_file", "cert_file", "key_file")]
    for index, camera in enumerate(_part(document.data, "cameras", list)):
        source = _part(camera, "source", dict)
        named += [(("cameras", index, "source", key), source.get(key)) for key in ("password_file", "ca_file")]
    for at, name in named:
        if isinstance(name, str) and not Path(name).is_file():
            yield _fault(document, at, f"{name}: no such file")


def _check_durable(document: Document) -> Iterator[Fault]:
    """Whether what is to outlive an outage can be acknowledged, and has a place on the disk."""
    mqtt = _part(document.data, "mqtt", dict)
    asked = [kind for kind in (*Deliveries.model_fields,) if _part(mqtt, kind, dict).get("durable") is True]
    for kind in asked:
        at: Location = ("mqtt", kind, "durable")
        if _part(mqtt, kind, dict).get("qos", 0) == 0:
            problem = "needs an acknowledgement, which QoS 0 has not; set `qos: 1` beside it, or take `durable` away"
            yield _fault(document, at, problem)
        if kind in {"telemetry", "image"}:
            problem = f"{kind} cannot be sent as history; set `durable` for results, events and status only"
            yield _fault(document, at, problem)
    named = _part(document.data, "state_dir", str)
    if named and Path(named).exists() and not Path(named).is_dir():
        yield _fault(document, ("state_dir",), f"{named} is not a folder; durable messages and models are kept there")


def _fault(document: Document, at: Location, problem: str) -> Fault:
    return Fault(key=documents.dotted(at), line=document.line(at), problem=problem)


def _part(data: Any, key: str, kind: type) -> Any:
    """A part of raw data, or an empty one where it is absent or of another kind."""
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, kind) else kind()


def _check_rules(
    document: Document,
    index: int,
    camera: dict[str, Any],
    config: Config | None,
    folder: ModelFolder | None,
) -> Iterator[Fault]:
    at: Location = ("cameras", index)
    rules = [rule for rule in _part(camera, "rules", list) if isinstance(rule, dict)]
    names = [rule.get("name", rule.get("type")) for rule in rules]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield _fault(document, (*at, "rules", number), f"two rules are named {name!r}: give each its own `name`")
    if config is None or folder is None:
        return
    # Making a rule opens nothing and is the one check that knows what the rule wants of the model's labels.
    for number, section in enumerate(config.cameras[index].rules):
        try:
            context = RuleContext(camera=str(camera["name"]), name=section.name, labels=model_store.labels(folder))
            registry.load("events", section.rule.type).create(section.rule.options, context)
        except EdgevisionError as failure:
            yield _fault(document, (*at, "rules", number), str(failure))


def _check_model(
    document: Document, key: str, section: dict[str, Any], folders: dict[str, ModelFolder]
) -> Iterator[Fault]:
    """Whether the model exists, and has the backend and the labels that the config names."""
    at: Location = ("models", key)
    named = _part(document.data, "state_dir", str)
    state_dir = Path(named) if named else default_state_dir()
    try:
        folder = model_store.find(section["model"], user_models_dir(state_dir))
    except EdgevisionError as failure:
        yield _fault(document, (*at, "model"), str(failure).replace("\n", "; "))
        return
    folders[key] = folder
    files = folder.manifest.files
    if folder.manifest.pattern:
        problem = (
            f"{folder.manifest.name} is a pattern without a file; add yours: edgevision models add FILE --like NAME"
        )
        yield _fault(document, (*at, "model"), problem)
        return
    backend = section.get("backend") or next(iter(files))
    if backend not in registry.available("inference"):
        problem = registry.unknown_name("backend", str(backend), registry.available("inference"))
        yield _fault(document, (*at, "backend"), problem)
        return
    if folder.manifest.find_file(backend) is None:
        yield _fault(
            document, (*at, "backend"), f"{folder.manifest.name} has no file for {backend}; it has {', '.join(files)}"
        )
    if section.get("tiling") is not None and folder.manifest.task != "detection":
        problem = f"tiling puts boxes together, and {folder.manifest.name} does {folder.manifest.task}; take it away"
        yield _fault(document, (*at, "tiling"), problem)
    options_model = registry.load("inference", backend).Options
    try:
        options_model.model_validate(_part(section, "options", dict))
    except ValidationError as failure:
        yield from documents.faults(document, failure, options_model, (*at, "options"))
    yield from _check_labels(document, at, section, folder)


def _check_labels(document: Document, at: Location, section: dict[str, Any], folder: ModelFolder) -> Iterator[Fault]:
    places = [(label, (*at, "classes", index)) for index, label in enumerate(_part(section, "classes", list))]
    places += [(label, (*at, "class_confidence", label)) for label in _part(section, "class_confidence", dict)]
    if not places:
        return
    try:
        labels = model_store.labels(folder)
    except EdgevisionError as failure:
        yield _fault(document, at, str(failure))
        return
    for label, place in places:
        if label not in labels:
            near = documents.near(str(label), labels)
            hint = f"did you mean {near!r}? " if near else ""
            known = f"edgevision models show {folder.manifest.name} lists them"
            yield _fault(document, place, f"{folder.manifest.name} has no label {label!r}; {hint}{known}")
