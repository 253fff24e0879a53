"""Finished candidates on disk, so that a second run, or one that was interrupted, does not do the work again.

A candidate is known by everything that it follows from: the float model's bytes, the recipe, the calibration pictures, and
the versions of the tools. A file is taken again only if its sha256 is still what was noted beside it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevision._version import __version__
from edgevision.errors import StateError
from edgevision.host.evaluate.files import write_json, write_whole

RECIPES = 2
"""Counts up where a recipe of the same name makes another model than before, so that nothing older is found finished."""
TOOLS = ("numpy", "onnx", "onnxruntime", "onnxslim", "nncf", "openvino", "litert-quantizer", "ai-edge-litert")


def tool_versions() -> dict[str, str]:
    """What the candidates are made with; a package that is not installed is left out."""
    found = {"edgevision": __version__}
    for name in TOOLS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Store:
    """A folder of finished candidates."""

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        """`common` is what all candidates of a run follow from: plain values for JSON."""
        self.folder = folder
        self._common = dict(common) | {"tools": tool_versions(), "recipes": RECIPES}

    def _key(self, recipe: Mapping[str, Any]) -> str:
        text = json.dumps({"common": self._common, "recipe": dict(recipe)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, recipe: Mapping[str, Any]) -> bytes | None:
        """The candidate that was made so, if it is there and whole."""
        path = self.folder / f"{self._key(recipe)}.model"
        try:
            noted = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            content = path.read_bytes()
        except (OSError, ValueError):  # not there, or not whole: it is made again
            return None
        if not isinstance(noted, dict) or noted.get("sha256") != hashlib.sha256(content).hexdigest():
            return None
        return content

    def put(self, recipe: Mapping[str, Any], content: bytes) -> None:
        """Keep a candidate; raises StateError where it cannot be written, and then nothing half-written stays."""
        path = self.folder / f"{self._key(recipe)}.model"
        write_whole(path, content)
        note = {"recipe": dict(recipe), "common": self._common, "sha256": hashlib.sha256(content).hexdigest()}
        try:
            write_json(path.with_suffix(".json"), note)
        except StateError:
            path.unlink(missing_ok=True)
            raise
