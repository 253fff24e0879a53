"""`edgevision schema`: the message contract as JSON Schemas and as an AsyncAPI document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgevision.cli._app import new_app

app = new_app()


@app.command()
def schema(
    name: Annotated[
        str | None,
        typer.Argument(help="One of result, event, image, camera-status, status, telemetry, asyncapi; all without it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write one file each into this folder instead.")
    ] = None,
) -> None:
    """Show the JSON Schemas of every message and the AsyncAPI document, as generated from the code.

    \b
    Examples:
      edgevision schema result
      edgevision schema asyncapi > asyncapi.json
      edgevision schema -o schemas/
    """
    from edgevision import asyncapi
    from edgevision.errors import StateError, UsageError
    from edgevision.registry import unknown_name

    documents = {**asyncapi.json_schemas(), "asyncapi": asyncapi.document()}
    if name is not None:
        if name not in documents:
            raise UsageError(unknown_name("schema", name, list(documents)))
        documents = {name: documents[name]}
    if output is None:
        typer.echo(json.dumps(documents[name] if name else documents, indent=2))
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        for key, document in documents.items():
            file = output / (f"{key}.json" if key == "asyncapi" else f"{key}.schema.json")
            file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            typer.echo(str(file))
    except OSError as failure:
        raise StateError(f"{output}: cannot be written: {failure.strerror or failure}") from failure
