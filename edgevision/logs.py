"""Log lines: one line each, key=value or JSON, to standard error, where systemd's journal reads them.

A line is `event key=value ...`: the message is a short fixed text, and what varies goes in `extra={"fields": {...}}` or, for
short texts, into the message itself. A stack trace is printed only for what is a bug of ours.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Literal, TextIO, cast, get_args

from edgevision.errors import UsageError
from edgevision.messages.times import timestamp
from edgevision.registry import unknown_name

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class _LineFormatter(logging.Formatter):
    """Common to both formats: the record as a flat mapping."""

    def entries(self, record: logging.LogRecord) -> dict[str, Any]:
        """What a line says, in order."""
        found: dict[str, Any] = {
            "time": timestamp(int(record.created * 1e6) * 1000),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        found.update(getattr(record, "fields", {}))
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return found


class TextFormatter(_LineFormatter):
    """`time=... level=info logger=... message="..." camera=infeed`; a bug's stack trace is one escaped value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return " ".join(f"{key}={_quoted(value)}" for key, value in self.entries(record).items())


class JsonFormatter(_LineFormatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return json.dumps(self.entries(record), ensure_ascii=False, default=str)


def _quoted(value: Any) -> str:
    text = str(value)
    plain = text and all(char.isprintable() and char not in ' "=\\' for char in text)
    return text if plain else json.dumps(text, ensure_ascii=False)


def configure(*, level: LogLevel = "info", style: LogFormat = "text", stream: TextIO | None = None) -> None:
    """Set up the process's logging; called once, by the command line."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # third parties speak up only when something is wrong
    logging.getLogger("edgevision").setLevel(level.upper())


def checked_level(level: str) -> LogLevel:
    """A level by its name; raises UsageError for an unknown one."""
    return cast("LogLevel", _checked("log level", level, get_args(LogLevel)))


def checked_format(style: str) -> LogFormat:
    """A format by its name; raises UsageError for an unknown one."""
    return cast("LogFormat", _checked("log format", style, get_args(LogFormat)))


def _checked(what: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(unknown_name(what, value, known))
    return value
