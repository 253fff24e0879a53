"""The only builder: config and manifests become cameras, models, scenes and sinks.

Here alone the stages meet. Everything is made by name through the registry, so a new plug-in needs no edit here.
"""

from __future__ import annotations

from edgevision.assembly.building import ModelSettings
from edgevision.assembly.cameras import SourceMaker, make_scene, make_sinks, make_source, settings_for, stall_after_s
from edgevision.assembly.identify import Described, describe, identify
from edgevision.assembly.models import choose_backend, load_model
from edgevision.assembly.probing import Prober
from edgevision.assembly.suggest import Suggested, described_already, suggest

__all__ = [
    "Described",
    "ModelSettings",
    "Prober",
    "SourceMaker",
    "Suggested",
    "choose_backend",
    "describe",
    "described_already",
    "identify",
    "load_model",
    "make_scene",
    "make_sinks",
    "make_source",
    "settings_for",
    "stall_after_s",
    "suggest",
]
