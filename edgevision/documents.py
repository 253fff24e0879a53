"""YAML documents that are read with their places, so that every fault names its line.

The config and every model.yaml are read here. All faults of a document are found at once; an unknown key gets a "did you
mean"; a value that may be a secret is never repeated in a message. Documents are hostile until checked: the size is
bounded, only plain YAML is built (no tags, no objects), and anchors cannot blow a small file up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from edgevision.errors import DocumentError, Fault

Location: TypeAlias = tuple[int | str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)

MAX_BYTES = 1 << 20
MAX_NODES = 100_000
"""Values after aliases are followed: a "billion laughs" document is refused, not expanded."""
MAX_DEPTH = 32

_SECRET_KEY = re.compile(r"password|secret|token|credential|url$", re.IGNORECASE)


class NestedFaultsError(ValueError):
    """Raised inside a pydantic validator: the faults of a part that another model has checked."""

    def __init__(self, error: ValidationError, model: type[BaseModel]) -> None:
        """Carry the part's error and the model that found it."""
        super().__init__(str(error))
        self.error = error
        self.model = model


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Plain data and where each value stands."""

    file: str
    data: Any
    """dicts, lists, strings, numbers, booleans, None"""
    lines: Mapping[Location, int]
    """1-based line of every key and list item"""

    def line(self, location: Location) -> int:
        """The line of a value, or of the nearest thing around it that exists."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read(path: Path, *, error: type[DocumentError]) -> Document:
    """Read a YAML file.

    Raises:
        DocumentError: of the type `error`: it cannot be read, is too large, or is not YAML; one line each.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as failure:
        raise error(file, [_whole(f"cannot be read: {failure.strerror or failure}")]) from failure
    if len(content) > MAX_BYTES:
        raise error(file, [_whole(f"is larger than {MAX_BYTES} bytes, which is the limit")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        line = content.count(b"\n", 0, failure.start) + 1
        raise error(file, [_whole(f"is not UTF-8 text: byte 0x{content[failure.start]:02x}", line)]) from failure
    return parse(text, file=file, error=error)


def parse(text: str, *, file: str, error: type[DocumentError]) -> Document:
    """Build a document from YAML text; raises as `read` does."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as failure:
        mark = failure.problem_mark or failure.context_mark
        problem = " ".join(part for part in (failure.context, failure.problem) if part)
        raise error(file, [_whole(f"is not YAML: {problem}", mark.line + 1 if mark else 1)]) from failure
    except (yaml.YAMLError, RecursionError) as failure:
        raise error(file, [_whole(f"is not YAML: {str(failure).splitlines()[0]}")]) from failure
    builder = _Builder()
    data = builder.build(root, ()) if root is not None else None
    if builder.faults:
        raise error(file, builder.faults)
    return Document(file=file, data=data, lines=builder.lines)


class _Builder:
    """Turns composed nodes into plain data, noting lines and finding what YAML lets pass: double keys, odd tags."""

    def __init__(self) -> None:
        self.lines: dict[Location, int] = {}
        self.faults: list[Fault] = []
        self._nodes = 0
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, location: Location) -> Any:
        self._nodes += 1
        line = node.start_mark.line + 1
        self.lines.setdefault(location, line)
        if self._nodes > MAX_NODES or len(location) > MAX_DEPTH:
            if not any(fault.problem.startswith("holds more") for fault in self.faults):
                limits = f"holds more than {MAX_NODES} values or {MAX_DEPTH} levels, which is the limit"
                self.faults.append(_whole(limits, line))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
        try:
            # A bare date is text to us, as are all tags beyond YAML's own plain types.
            value = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as failure:
            problem = str(getattr(failure, "problem", failure))
            self.faults.append(Fault(key=dotted(location), line=line, problem=f"is no plain value: {problem}"))
            return None
        return value if value is None or isinstance(value, str | int | float | bool) else node.value

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        built: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<: *defaults`
                for part in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    value = self.build(part, location)
                    inherited = {**(value if isinstance(value, dict) else {}), **inherited}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.faults.append(Fault(key=dotted(location), line=line, problem="a key must be plain text"))
                continue
            key = str(key_node.value)
            if key in built:
                where = dotted((*location, key))
                first = self.lines[(*location, key)]
                self.faults.append(
                    Fault(key=where, line=line, problem=f"stands twice (first on line {first}): keep one")
                )
                continue
            self.lines[(*location, key)] = line
            built[key] = self.build(value_node, (*location, key))
        return {**inherited, **built}


def validate(document: Document, model: type[ModelT], *, error: type[DocumentError]) -> ModelT:
    """Check a document against a pydantic model.

    Raises:
        DocumentError: of the type `error`, with every fault and its line.
    """
    if not isinstance(document.data, dict):
        found = "nothing" if document.data is None else f"a {_plain_type(document.data)}"
        raise error(document.file, [_whole(f"must hold keys and values, found {found}")])
    try:
        return model.model_validate(document.data)
    except ValidationError as failure:
        raise error(document.file, list(faults(document, failure, model))) from failure


def faults(document: Document, error: ValidationError, model: type[BaseModel], at: Location = ()) -> Iterator[Fault]:
    """Every fault of a pydantic error in plain words, `at` being where the checked part stands in the document."""
    for detail in error.errors(include_url=False):
        nested = detail.get("ctx", {}).get("error")
        location = at + detail["loc"]
        if isinstance(nested, NestedFaultsError):
            yield from faults(document, nested.error, nested.model, location)
            continue
        key = _existing(document, location, keep_last=detail["type"] in {"missing", "extra_forbidden"})
        yield Fault(key=dotted(key), line=document.line(location), problem=_problem(detail, model, document, location))


def _problem(detail: Any, model: type[BaseModel], document: Document, location: Location) -> str:
    kind, name = detail["type"], str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        close = near(name, known)
        return "unknown key; " + (f"did you mean {close!r}? " if close else "") + f"known: {', '.join(known)}"
    if kind == "missing":
        return "is missing and must be given"
    text = str(detail["msg"]).removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    if kind == "value_error":
        return text  # our own validators say what was found
    return f"{text}; found {_shown(value_at(document.data, location), location)}"


def _shown(value: Any, location: Location) -> str:
    if any(isinstance(part, str) and _SECRET_KEY.search(part) for part in location):
        return "a value that is not shown here"
    if isinstance(value, dict | list):
        return f"a {_plain_type(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain_type(value: Any) -> str:
    names = {dict: "mapping", list: "list", str: "text", bool: "true/false value", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)


def value_at(data: Any, location: Location) -> Any:
    """The value at a place, or the nearest one around it (pydantic names union members in its places)."""
    for part in location:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            break
    return data


def _existing(document: Document, location: Location, *, keep_last: bool) -> Location:
    """The longest beginning of a place that stands in the document, and the missing key itself."""
    end = len(location)
    while end and location[:end] not in document.lines:
        end -= 1
    return location[:end] + (location[-1:] if keep_last and end < len(location) else ())


def _known_keys(model: Any, location: Location) -> list[str]:
    """The keys that the model at a place knows."""
    for part in location:
        model = _inner_model(model, part)
    found = _as_model(model)
    return sorted(field.alias or name for name, field in found.model_fields.items()) if found else []


def _inner_model(annotation: Any, part: int | str) -> Any:
    model = _as_model(annotation)
    if model is not None and part in model.model_fields:
        return model.model_fields[str(part)].annotation
    return next((arg for arg in reversed(get_args(annotation)) if _as_model(arg) is not None), annotation)


def _as_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _as_model(arg)) is not None), None)


def near(name: str, known: Sequence[str]) -> str | None:
    """The known name that looks most like a mistyped one."""
    return next(iter(get_close_matches(name, known, n=1)), None)


def dotted(location: Location) -> str:
    """`("cameras", 0, "url")` as `cameras[0].url`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _whole(problem: str, line: int = 1) -> Fault:
    return Fault(key="", line=line, problem=problem)
