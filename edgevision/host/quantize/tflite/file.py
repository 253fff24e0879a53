"""A .tflite file before anything looks into it: the runtime's verifier, and the schema's own classes.

Python's flatbuffer classes trust every offset; the runtime's verifier does not. So nothing is parsed that it has not passed.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from edgevision import registry
from edgevision.errors import ModelError

PACKAGE = "edgevision[host]"
"""What to give to pip for the quantiser's library and the schema classes."""

MAX_BYTES = 2**31 - 1
"""FlatBuffers count offsets in 32 signed bits; what is larger keeps its weights outside and is no camera's model."""

_IDENTIFIER = b"TFL3"


def check(content: bytes, name: str) -> None:
    """Let the runtime's own verifier look at a file, before Python walks through its offsets.

    Raises:
        ModelError: it is no .tflite file, too large, or damaged.
        PluginError: the runtime is not installed.
    """
    if len(content) > MAX_BYTES:
        raise ModelError(
            f"model {name!r}: {len(content) / 1e9:.1f} GB; a .tflite file of more than 2 GB cannot be read"
        )
    if content[4:8] != _IDENTIFIER:
        raise ModelError(
            f"model {name!r}: no .tflite file: bytes 4 to 8 are {content[4:8]!r} and should be {_IDENTIFIER!r}"
        )
    interpreter = registry.require("ai_edge_litert.interpreter", package=PACKAGE, purpose="reading a .tflite file")
    try:
        # Allocating lets each kernel check its operator's shapes and types.
        interpreter.Interpreter(
            model_content=content,
            experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        ).allocate_tensors()
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"model {name!r}: LiteRT refuses the file: {text}; export it again") from error


def tools() -> ModuleType:
    """The library that turns a file into the schema's objects and back."""
    return registry.require("ai_edge_litert.tools.flatbuffer_utils", package=PACKAGE, purpose="reading a .tflite file")


def schema() -> ModuleType:
    """The schema's classes."""
    return registry.require("ai_edge_litert.schema_py_generated", package=PACKAGE, purpose="reading a .tflite file")


@cache
def names(enumeration: str) -> dict[int, str]:
    """Name by number of one of the schema's enumerations."""
    return {number: name for name, number in vars(getattr(schema(), enumeration)).items() if not name.startswith("_")}
