"""Secrets and machine-dependent values in a config: `${NAME}` from the environment, `url_file: path` for `url`.

A config file is copied, mailed and committed; what is put in here never stands in it, and is never logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevision import documents
from edgevision.errors import Fault

MAX_SECRET_BYTES = 64 << 10


class Secrets:
    """Puts `${NAME}` and the contents of `*_file` in, and notes what is missing."""

    _VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
    _FILE_KEYS = frozenset({"username", "url", "key_password"})
    """Keys that may be written as `<key>_file`. `password_file` belongs to mqtt itself, which reads it for each connection."""

    def __init__(self, document: documents.Document, environ: Mapping[str, str], folder: Path) -> None:
        self.faults: list[Fault] = []
        self._document = document
        self._environ = environ
        self._folder = folder
        self._lines = dict(document.lines)

    def document(self) -> documents.Document:
        """The same document with every secret in its place."""
        data = self._walk(self._document.data, ())
        return documents.Document(file=self._document.file, data=data, lines=self._lines)

    def _walk(self, value: Any, at: documents.Location) -> Any:
        if isinstance(value, str):
            return self._VARIABLE.sub(lambda match: self._variable(match, at), value)
        if isinstance(value, list):
            return [self._walk(item, (*at, index)) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        walked: dict[str, Any] = {}
        for key, entry in value.items():
            plain = key.removesuffix("_file")
            inner = self._walk(entry, (*at, key))
            if plain == key or plain not in self._FILE_KEYS:
                walked[key] = inner
            elif plain in value:
                self._fault((*at, key), f"give either `{plain}` or `{key}`, not both")
            else:
                self._lines[(*at, plain)] = self._document.line((*at, key))
                walked[plain] = self._content(inner, (*at, key))
        return walked

    def _variable(self, match: re.Match[str], at: documents.Location) -> str:
        name, default = match.group(1), match.group(2)
        value: str | None = self._environ.get(name, default)
        if value is None:
            self._fault(at, f"the environment has no {name}: set it, or give a default as ${{{name}:-...}}")
            return ""
        return value

    def _content(self, name: Any, at: documents.Location) -> str:
        path = self._folder / str(name)
        try:
            with path.open("rb") as stream:
                return stream.read(MAX_SECRET_BYTES).decode().strip("\r\n")
        except (OSError, UnicodeDecodeError) as failure:
            self._fault(at, f"{path} cannot be read: {getattr(failure, 'strerror', None) or failure}")
            return ""

    def _fault(self, at: documents.Location, problem: str) -> None:
        self.faults.append(Fault(key=documents.dotted(at), line=self._document.line(at), problem=problem))
