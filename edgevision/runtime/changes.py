"""What a new config changes against the one that runs: the plan of a reload, made before anything is touched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from edgevision.config import Config

AT_THE_START = ("inference_deadline_s", "publish_deadline_s", "safe_mode_after")
"""Of `supervision`: taken by parts when they are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Names of what must be made anew, come or go; all else keeps running."""

    identity: tuple[str, ...]
    """Keys after whose change nothing can stay as it is: every topic and message holds them."""
    models: frozenset[str]
    """Models to load, again or for the first time; their cameras restart with them."""
    gone_models: frozenset[str]
    cameras: frozenset[str]
    """Cameras to start, again or for the first time, on models that stay."""
    gone_cameras: frozenset[str]
    """Cameras to stop, those that start again among them, on models that stay."""
    mqtt: bool
    sinks: bool
    later: tuple[str, ...]
    """Keys whose new value counts from the next start on."""

    @property
    def empty(self) -> bool:
        """Nothing of ours changes; logging or supervision may."""
        parts = (self.identity, self.models, self.gone_models, self.cameras, self.gone_cameras)
        return not (any(parts) or self.mqtt or self.sinks)

    def __str__(self) -> str:
        """In words, for the log and the status."""
        if self.identity:
            return f"everything restarts, because {' and '.join(self.identity)} changed"
        words = []
        for what, names in (
            ("restarted models", self.models),
            ("ended models", self.gone_models),
            ("started cameras", self.cameras),
            ("ended cameras", self.gone_cameras - self.cameras),
        ):
            words += [f"{what}: {', '.join(sorted(names))}"] if names else []
        words += ["reconnected: mqtt"] if self.mqtt else []
        words += ["reopened: sinks"] if self.sinks else []
        words = words or ["no part changed"]
        words += [f"from the next start on: {', '.join(self.later)}"] if self.later else []
        return "; ".join(words)


def compare(old: Config, new: Config, *, replaced: Collection[str] = ()) -> Changes:
    """The plan from `old` to `new`, both as they run: without what safe mode leaves out.

    Args:
        old: runs.
        new: is to run.
        replaced: the config's names of models that run and whose folder holds another one by now.
    """
    identity = [key for key in ("device", "state_dir") if getattr(old, key) != getattr(new, key)]
    if (old.mqtt.topic if old.mqtt else None) != (new.mqtt.topic if new.mqtt else None):
        identity.append("mqtt.topic")
    was, will = _used_models(old), _used_models(new)
    models = frozenset(name for name, section in will.items() if was.get(name) != section or name in replaced)
    gone_models = frozenset(was.keys() - will.keys())
    remade = models | gone_models
    old_cameras = {camera.name: camera for camera in old.cameras if camera.model not in remade}
    new_cameras = {camera.name: camera for camera in new.cameras if camera.model not in remade}
    cameras = frozenset(name for name, section in new_cameras.items() if old_cameras.get(name) != section)
    gone = frozenset(name for name, section in old_cameras.items() if new_cameras.get(name) != section)
    return Changes(
        identity=tuple(identity),
        models=models,
        gone_models=gone_models,
        cameras=cameras,
        gone_cameras=gone,
        mqtt=old.mqtt != new.mqtt,
        sinks=old.sinks != new.sinks,
        later=tuple(
            f"supervision.{key}"
            for key in AT_THE_START
            if getattr(old.supervision, key) != getattr(new.supervision, key)
        ),
    )


def _used_models(config: Config) -> dict[str, object]:
    """The models that a camera uses, by name."""
    used = {camera.model for camera in config.cameras}
    return {name: section for name, section in config.models.items() if name in used}
