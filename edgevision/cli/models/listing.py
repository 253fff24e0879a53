"""What models there are, what each is, and whether its files are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevision.cli._app import console

if TYPE_CHECKING:
    from edgevision.model_store import ModelFolder

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_models(as_json: AsJson = False) -> None:
    """List every model on this machine.

    \b
    Example:
      edgevision models list
    """
    from edgevision import model_store
    from edgevision.errors import EdgevisionError

    rows: list[dict[str, Any]] = []
    for path in model_store.list_folders():
        try:
            folder = model_store.open_folder(path)
        except EdgevisionError as failure:
            rows.append({"name": path.name, "fault": str(failure)})
            continue
        manifest = folder.manifest
        here = {name: (path / section.file_name).is_file() for name, section in manifest.files.items()}
        rows.append(
            {
                "name": manifest.name,
                "version": manifest.version,
                "task": manifest.task,
                "input": "x".join(str(side) for side in manifest.input.size),
                "files": {name: "here" if present else "not here" for name, present in here.items()},
                "proved": manifest.proved,
                "from": "shipped" if folder.shipped else str(path.parent),
            }
        )
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "version", "task", "input", "files", "proved", "from"):
        table.add_column(title, overflow="fold")
    patterns = []
    for row in rows:
        if "fault" in row:
            table.add_row(Text(row["name"]), "", "", "", "", "", Text(f"fault: {row['fault']}"))
            continue
        if not row["files"]:
            patterns.append(row["name"])
            continue
        files = ", ".join(name if state == "here" else f"{name} (not here)" for name, state in row["files"].items())
        proved = "yes" if row["proved"] else "unproved"
        cells = (row["name"], row["version"], row["task"], row["input"], files, proved, row["from"])
        table.add_row(*map(Text, cells))  # rich would take `[left]` in a string for its markup
    console().print(table)
    if patterns:
        told = f"\nwithout files, for `models add FILE --like`: {', '.join(patterns)}"
        console().print(told, markup=False, soft_wrap=True)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or the path of its folder.")],
    as_json: AsJson = False,
) -> None:
    """Show what a model is: input, outputs, labels, licence, and how it was proved.

    \b
    Example:
      edgevision models show efficientnet-lite0
    """
    from edgevision import model_store

    folder = model_store.find(name)
    labels = model_store.labels(folder)
    content = folder.manifest.model_dump(mode="json", exclude_unset=True)
    content |= {"folder": str(folder.path), "proved": folder.manifest.proved, "labels": list(labels)}
    if as_json:
        typer.echo(json.dumps(content, indent=2))
        return
    import yaml

    shown = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    content["labels"] = f"{len(labels)}: {shown}" if labels else "none"
    content["proved"] = "yes, see metrics" if folder.manifest.proved else "no: unproved"
    typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110).rstrip())


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Models to verify; all without it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check every file of a model against the size and sha256 in its model.yaml.

    Exit status 4 where a file is truncated or altered. A file that is not here is told, and is no fault.

    \b
    Example:
      edgevision models verify
    """
    from edgevision import model_store
    from edgevision.errors import EdgevisionError, ModelError

    found: dict[str, dict[str, str]] = {}
    for name in names or [str(path) for path in model_store.list_folders()]:
        try:
            folder: ModelFolder = model_store.find(name)
        except EdgevisionError as failure:
            if names:
                raise
            found[Path(name).name] = {"model.yaml": str(failure)}
            continue
        found[folder.manifest.name] = model_store.verify(folder)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        for name, files in found.items():
            for backend, state in files.items():
                typer.echo(f"{name}: {backend}: {state}")
    bad = [name for name, files in found.items() if any(not _harmless(state) for state in files.values())]
    if bad:
        raise ModelError(f"{', '.join(bad)}: not as model.yaml says; put the right file in its place")


def _harmless(state: str) -> bool:
    return state == "ok" or state.startswith("not here")
