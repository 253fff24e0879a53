"""A plug-in is a file: `load("decode", "yolox")` is `edgevision/decode/yolox.py`, and nothing else has to be edited.

A plug-in module holds `Options`, a pydantic model of what the user may set, and `create(...)`, which returns the stage's
protocol (see the stage's `base.py`). A module is imported only when it is named, and imports its SDK only inside
`create`, so that a config can be checked on a machine without the SDK. Packages outside join through the entry point group
`edgevision.<stage>`, whose value is the module.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, TypeAlias, cast

from pydantic import BaseModel, ConfigDict

from edgevision.errors import PluginError, UsageError

_log = logging.getLogger(__name__)

Stage: TypeAlias = Literal["capture", "preprocess", "inference", "decode", "events", "publish"]
STAGES: tuple[Stage, ...] = ("capture", "preprocess", "inference", "decode", "events", "publish")


class Options(BaseModel):
    """Base of every plug-in's options: frozen; unknown keys, infinities and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class Plugin(Protocol):
    """What a plug-in module holds; the arguments of `create` are told by the stage's `base.py`."""

    Options: type[Options]

    def create(self, *args: Any, **kwargs: Any) -> Any:
        """Make the stage's object."""
        ...


@cache
def _outside(stage: Stage) -> dict[str, tuple[EntryPoint, ...]]:
    """Entry points by name; more than one where packages offer different modules under one name."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"edgevision.{stage}"):
        others = found.get(point.name, ())
        if point.name in _inside(stage):
            # Told in one text: the log may not be set up yet.
            _log.warning(
                "%s plug-in %r of package %s is not used: edgevision has one of this name",
                stage,
                point.name,
                _package(point),
            )
        elif point.value not in {other.value for other in others}:
            found[point.name] = (*others, point)
    return found


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


@cache
def _inside(stage: Stage) -> frozenset[str]:
    folder = Path(__file__).parent / stage
    return frozenset(path.stem for path in folder.glob("*.py") if path.stem != "base" and not path.stem.startswith("_"))


def available(stage: Stage) -> tuple[str, ...]:
    """Names of all plug-ins of a stage, sorted: our own files and those of installed packages."""
    return tuple(sorted(_inside(stage) | _outside(stage).keys()))


def load(stage: Stage, name: str) -> Plugin:
    """Import the plug-in `name` of `stage`.

    Raises:
        UsageError: nothing has this name; the message lists what there is.
        PluginError: it exists but cannot be imported, or is not a plug-in.
    """
    if name in _inside(stage):
        module: Any = importlib.import_module(f"edgevision.{stage}.{name}")
    elif name in _outside(stage):
        module = _import(stage, name, _outside(stage)[name])
    else:
        raise UsageError(unknown_name(f"{stage} type", name, available(stage)))
    if not (isinstance(getattr(module, "Options", None), type) and callable(getattr(module, "create", None))):
        raise PluginError(f"{stage} plug-in {name!r} is no plug-in: {module!r} must hold `Options` and `create`")
    return cast("Plugin", module)


def origin(stage: Stage, name: str) -> dict[str, str]:
    """The package that brings an outside plug-in, and its version; empty for our own and for what nobody knows."""
    points = _outside(stage).get(name, ())
    return {point.dist.name: point.dist.version for point in points if point.dist is not None}


def _import(stage: Stage, name: str, points: tuple[EntryPoint, ...]) -> Any:
    """What an outside package's entry point names."""
    if len(points) > 1:
        packages = " and ".join(f"{_package(point)} ({point.value})" for point in points)
        raise PluginError(f"{stage} plug-in {name!r} is offered by {packages}: uninstall all but one")
    try:
        return points[0].load()
    except Exception as error:  # somebody else's code: whatever it raises, its package is named and the others go on
        raise PluginError(
            f"{stage} plug-in {name!r} of package {_package(points[0])} ({points[0].value}) cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error


def reads(backend: str) -> tuple[str, ...]:
    """Suffixes of the model files that a backend understands whoever they were made for; none where nobody knows it.

    Raises:
        PluginError: the backend cannot be imported.
    """
    if backend not in available("inference"):
        return ()
    return tuple(getattr(load("inference", backend), "READS", ()))


def unknown_name(what: str, name: str, known: tuple[str, ...] | list[str]) -> str:
    """The text for a name that nobody knows: the nearest one first, then all."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {what} {name!r}; {hint}known: {', '.join(known) if known else 'none'}"


def require(module: str, *, package: str, purpose: str) -> ModuleType:
    """Import an SDK, or say in one line which package brings it.

    Args:
        module: dotted name to import.
        package: what to give to pip, `edgevision[onnxrt]`.
        purpose: what needs it, for the message.

    Raises:
        PluginError: it is not installed, or is installed and broken; the two are told apart.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            raise PluginError(f"{purpose} needs {module}: pip install '{package}'") from error
        raise PluginError(f"{purpose} needs {module}, which is installed but cannot be imported: {error}") from error
