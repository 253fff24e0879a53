"""What is to be looked at: read from a config as far as it can be read, because a broken one is when a doctor is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgevision import child, config, documents, model_store
from edgevision.config.secrets import Secrets
from edgevision.doctor.findings import Finding, fault, ok
from edgevision.environment import default_state_dir, user_models_dir, variables
from edgevision.errors import ConfigError, EdgevisionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The parts of a config, raw and with secrets put in; without a config, this machine's own."""

    findings: tuple[Finding, ...]
    """The config's faults."""
    device: str
    state_dir: Path
    models: dict[str, dict[str, Any]]
    """The sections under `models`; without a config, every model that is here."""
    named: bool
    """Whether `models` are those of a config, which have to be here."""
    cameras: list[dict[str, Any]]
    """The cameras' sections."""
    mqtt: dict[str, Any] = field(repr=False)
    """The broker's section; empty where there is none."""

    @property
    def models_dir(self) -> Path:
        """Where the user's models are."""
        return user_models_dir(self.state_dir)


def read_plan(file: Path | None, *, deadline_s: float) -> Plan:
    """`make_plan` in a process of its own: a config, or a file it names, may be a pipe, or on a network disk that is away."""
    try:
        told = child.call(
            "edgevision.doctor.plan:in_child", {"file": None if file is None else str(file)}, deadline_s=deadline_s
        )
    except child.ChildGoneError as failure:
        fix = "is it, or a file or folder that it names, a pipe, or on a network disk that is away?"
        finding = fault("config", str(file or "this machine"), f"reading it {failure}", fix)
        return _plan({}, (finding,), folders=())
    return Plan(
        **{
            **told,
            "findings": tuple(Finding(**one) for one in told["findings"]),
            "state_dir": Path(told["state_dir"]),
        }
    )


def in_child(job: dict[str, Any]) -> dict[str, Any]:
    """What the child process calls."""
    plan = make_plan(None if job["file"] is None else Path(job["file"]))
    return {**asdict(plan), "state_dir": str(plan.state_dir)}


def make_plan(file: Path | None) -> Plan:
    """Read a config; whatever is wrong with it becomes findings and not an error."""
    if file is None:
        return _plan({}, ())
    try:
        document = documents.read(file, error=ConfigError)
    except ConfigError as failure:
        return _plan({}, _faults(failure))
    try:
        good = config.load(file)
    except ConfigError as failure:
        findings = _faults(failure)
    else:
        counts = f"device {good.device}, {len(good.cameras)} camera(s), {len(good.models)} model(s)"
        findings = (ok("config", str(file), counts),)
    data = document.data
    if isinstance(data, dict):
        data = Secrets(document, variables(), file.parent).document().data
    return _plan(data if isinstance(data, dict) else {}, findings)


def _faults(failure: ConfigError) -> tuple[Finding, ...]:
    found = []
    for one in failure.faults:
        where = f"{failure.file}:{one.line}"
        what = f"{one.key}: {one.problem}" if one.key else one.problem
        found.append(fault("config", where, what, "mend that line; `edgevision check FILE` looks again"))
    return tuple(found)


def _plan(data: dict[str, Any], findings: tuple[Finding, ...], *, folders: Sequence[Path] | None = None) -> Plan:
    named = data.get("state_dir")
    state_dir = Path(named) if isinstance(named, str) and named else default_state_dir()
    models = _mapping(data.get("models"))
    sections = {str(key): value for key, value in models.items() if isinstance(value, dict)}
    given = bool(sections)
    if not given:
        found = _folders(user_models_dir(state_dir)) if folders is None else folders
        sections = {folder.name: {"model": str(folder)} for folder in found}
    cameras = data.get("cameras")
    return Plan(
        findings=findings,
        device=str(data.get("device", "doctor")),
        state_dir=state_dir,
        models=sections,
        named=given,
        cameras=[camera for camera in cameras if isinstance(camera, dict)] if isinstance(cameras, list) else [],
        mqtt=_mapping(data.get("mqtt")),
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _folders(models_dir: Path) -> list[Path]:
    try:
        return list(model_store.list_folders(models_dir))
    except (OSError, EdgevisionError):  # the check of the folders says what is wrong with it
        return []
