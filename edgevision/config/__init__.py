"""The daemon's config: YAML in, frozen values out, or every fault at once with file, line and fix.

The document is read with its places (`documents`), secrets are put in (`secrets`), the whole is checked against the models
in `sections`, and then what no single value shows (`checks`). Nothing is opened: no camera, no broker, no weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from edgevision import documents, model_store
from edgevision._version import __version__
from edgevision.config.checks import cross_check
from edgevision.config.secrets import Secrets
from edgevision.config.sections import (
    CameraSection,
    Choice,
    Config,
    LoggingSection,
    MasksSection,
    ModelSection,
    MqttSection,
    RuleSection,
    SnapshotSection,
    SupervisionSection,
)
from edgevision.config.watching import HealthSection, ReaderSection, TriggerSection
from edgevision.environment import variables
from edgevision.errors import ConfigError, Fault

__all__ = [
    "CameraSection",
    "Choice",
    "Config",
    "HealthSection",
    "LoggingSection",
    "MasksSection",
    "ModelSection",
    "MqttSection",
    "ReaderSection",
    "RuleSection",
    "SnapshotSection",
    "SupervisionSection",
    "TriggerSection",
    "digest",
    "from_document",
    "load",
]


def load(path: Path, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read and check a config file.

    Raises:
        ConfigError: every fault in it.
    """
    return from_document(documents.read(path, error=ConfigError), environ=environ, folder=path.parent)


def from_document(document: documents.Document, *, folder: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Check a config that has been read; `folder` is where relative paths of secrets begin."""
    found: list[Fault] = []
    if isinstance(document.data, dict):
        resolver = Secrets(document, variables() if environ is None else environ, folder)
        document = resolver.document()
        found += resolver.faults
    config: Config | None = None
    try:
        config = documents.validate(document, Config, error=ConfigError)
    except ConfigError as failure:
        # What a file or variable that is missing leaves empty is no second fault.
        told = {fault.key.removesuffix("_file") for fault in found}
        found += [fault for fault in failure.faults if fault.key not in told]
    found += cross_check(document, config)
    if found or config is None:
        raise ConfigError(document.file, found)
    return config


def digest(config: Config) -> str:
    """What a start depends on, in hex: our version, the config's values, and the models' manifests with their digests.

    Raises:
        EdgevisionError: a model has gone since the config was loaded.
    """
    parts = [__version__.encode(), repr(config).encode()]
    folders = [model_store.find(section.model, config.models_dir) for section in config.models.values()]
    parts += [folder.manifest.model_dump_json().encode() for folder in folders]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
