"""What the user says of a model file himself: it takes the place of what a pattern or a proposal says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgevision import documents
from edgevision.errors import ManifestError, UsageError
from edgevision.manifest import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Keys of a model.yaml; None and empty are not said."""

    family: str | None = None
    size: tuple[int, int] | None = None
    """Width, height."""
    color: str | None = None
    resize: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    raw: bool = False
    """Raw pixels, 0-255: neither mean nor std."""
    activation: str | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Tensor name by role."""
    decoder: Mapping[str, Any] = field(default_factory=dict)
    """The decoder's options."""
    labels: tuple[str, ...] | None = None

    @property
    def input(self) -> dict[str, Any]:
        """Its keys of `input`."""
        given: dict[str, Any] = {
            "size": self.size,
            "color": self.color,
            "resize": self.resize,
            "mean": self.mean,
            "std": self.std,
        }
        said = {
            key: list(value) if isinstance(value, tuple) else value for key, value in given.items() if value is not None
        }
        return said | ({"mean": None, "std": None} if self.raw else {})


def changed(manifest: Manifest, told: Told, *, where: str) -> Manifest:
    """A manifest with what the user says in its place, for all its files.

    Raises:
        UsageError: what he says is no manifest's.
    """
    raw = manifest.model_dump(mode="json", exclude_unset=True)
    given = told.input
    if "resize" in given and given["resize"] != manifest.input.resize:
        raw["input"].pop("options", None)  # they are the other preprocessor's
    raw["input"] = {**raw["input"], **given}
    for section in raw["files"].values():
        own = {key: value for key, value in (section.get("input") or {}).items() if key not in given}
        section.pop("input", None)
        if own:
            section["input"] = own
        if told.outputs and section.get("outputs"):
            section["outputs"] = {**section["outputs"], **told.outputs}
    raw["outputs"] = {**raw["outputs"], **told.outputs}
    if told.family is not None and told.family != manifest.family:
        raw["decoder"] = {}
    raw["decoder"] = {**raw.get("decoder", {}), **told.decoder}
    raw |= {
        key: value for key, value in (("family", told.family), ("activation", told.activation)) if value is not None
    }
    if told.labels is not None:
        raw["labels"] = "labels.txt"
    if told != Told():
        raw["metrics"] = []  # what was measured was described otherwise
    return validated(raw, where)


def validated(raw: dict[str, Any], where: str) -> Manifest:
    """A manifest of what was said and proposed.

    Raises:
        UsageError: every fault, with its key.
    """
    document = documents.Document(file=where, data=raw, lines=dict.fromkeys(_places(raw), 1))
    try:
        return documents.validate(document, Manifest, error=ManifestError)
    except ManifestError as failure:
        faults = "; ".join(f"{fault.key}: {fault.problem}" for fault in failure.faults)
        raise UsageError(f"{where}: {faults}") from failure


def _places(data: Any, at: documents.Location = ()) -> Iterator[documents.Location]:
    """Every place of a document: without a line of its own, a key would not be named."""
    yield at
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield from _places(value, (*at, key))
