"""`edgevision models`: what is there, what it is, whether it is whole, and adding one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.model_store import ModelFolder

app = new_app(no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def models() -> None:
    """List, show, add, pull, remove, export, import and verify models.

    A model is a folder with a model.yaml. Your own are in the folder that EDGEVISION_MODELS names, else in `models` under
    the state folder; they come before the shipped ones.
    """


@app.command("list")
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
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "version", "task", "input", "files", "proved", "from"):
        table.add_column(title, overflow="fold")
    for row in rows:
        if "fault" in row:
            table.add_row(row["name"], "", "", "", "", "", escape(f"fault: {row['fault']}"))
            continue
        files = ", ".join(name if state == "here" else f"{name} (not here)" for name, state in row["files"].items())
        proved = "yes" if row["proved"] else "unproved"
        table.add_row(row["name"], row["version"], row["task"], row["input"], escape(files), proved, row["from"])
    console().print(table)


@app.command()
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


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .onnx or .tflite file; it is copied.")],
    like: Annotated[str, typer.Option(help="A model that is built alike: same family, input and outputs.")],
    name: Annotated[str | None, typer.Option(help="The new model's name; by default the file's.")] = None,
) -> None:
    """Register a local model file, described by a model that is built alike.

    The file is loaded and run once: what does not fit is refused, and nothing half-written stays.

    \b
    Examples:
      edgevision models add yolox_nano.onnx --like yolox-nano
      edgevision models add parts-v7.tflite --like efficientnet-lite0 --name parts
    """
    from edgevision import assembly, model_store
    from edgevision.errors import UsageError

    pattern = model_store.find(like)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    described = assembly.describe(file, pattern, name=name)
    described.model.close()
    added = model_store.add(described.manifest, described.content, labels_from=described.labels_from)
    proof = "its file is the one that was measured" if added.manifest.proved else "unproved until it is evaluated"
    typer.echo(f"{added.manifest.name}: added in {added.path}; {proof}")


@app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="Only the file for this backend; may be given several times.")
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Take the files from here ({MODEL}/{FILE}), and from nowhere else; or EDGEVISION_MIRROR.",
        ),
    ] = None,
) -> None:
    """Fetch a model's files from where its model.yaml says, checked for size and sha256.

    What broke off is resumed by the next call. Proxies are those of https_proxy, http_proxy and no_proxy. A shipped model
    gets a folder of your own, which then comes before it.

    \b
    Examples:
      edgevision models pull yolox-nano
      edgevision models pull yolox-nano --mirror /media/usb/models
    """
    from edgevision import environment, logs
    from edgevision.cli._bars import Bars
    from edgevision.errors import ModelError
    from edgevision.model_pull import pull as pull_files

    logs.configure(level="warning")
    try:
        with Bars() as bars:
            folder, found = pull_files(
                name, backends=backend, mirror=mirror or environment.mirror(), on_progress=bars.show
            )
    except KeyboardInterrupt:
        typer.echo(f"{name}: stopped; what has arrived is kept: pull again to go on", err=True)
        raise
    for one in found:
        typer.echo(f"{folder.manifest.name}: {one.backend}: {one.file}: {one.state}")
    missing = [one.file for one in found if one.state not in {"here", "pulled"}]
    if missing:
        raise ModelError(
            f"{folder.manifest.name}: {', '.join(missing)} cannot be pulled; add your copy: edgevision models add FILE --like "
            f"{folder.manifest.name}"
        )
    typer.echo(f"{folder.manifest.name}: in {folder.path}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of your own models.")],
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="Refuse where this config uses it; may be given several times."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete one of your own models. Shipped ones stay.

    \b
    Example:
      edgevision models remove parts-v6 -c /etc/edgevision/edgevision.yaml
    """
    import sys

    from edgevision import model_store
    from edgevision.errors import EdgevisionError, UsageError

    folder = model_store.find(name)
    for file in config or []:
        _refuse_used(folder, file)
    if not yes and not folder.shipped:
        if not sys.stdin.isatty():
            raise UsageError(f"{folder.path}: nobody is there to ask; say --yes to remove it")
        typer.confirm(f"remove {folder.path}?", abort=True)
    model_store.remove(folder)
    try:
        still = model_store.find(folder.path.name)
    except EdgevisionError:
        typer.echo(f"{folder.manifest.name}: removed")
    else:
        typer.echo(f"{folder.manifest.name}: removed; the shipped one in {still.path} counts again")


def _refuse_used(folder: ModelFolder, file: Path) -> None:
    """Refuse a model that a config names, by its name or its path; the config need not be good otherwise."""
    from edgevision import documents, environment, model_store
    from edgevision.config.secrets import Secrets
    from edgevision.errors import ConfigError, EdgevisionError, UsageError

    resolver = Secrets(documents.read(file, error=ConfigError), environment.variables(), file.parent)
    document = resolver.document()
    unknown = [fault for fault in resolver.faults if fault.key.startswith(("models", "state_dir"))]
    if unknown:
        raise ConfigError(str(file), unknown)
    data = document.data if isinstance(document.data, dict) else {}
    state_dir = data.get("state_dir")
    root = environment.user_models_dir(Path(state_dir) if isinstance(state_dir, str) else None)
    models = data.get("models")
    for key, section in models.items() if isinstance(models, dict) else []:
        named = section.get("model") if isinstance(section, dict) else None
        if not isinstance(named, str):
            continue
        try:
            used = model_store.find(named, root).path
        except EdgevisionError:
            continue  # it names nothing that is here
        if used.resolve() == folder.path.resolve():
            line = document.line(("models", key, "model"))
            raise UsageError(f"{file}:{line}: models.{key}.model: uses {folder.path}; take it out of the config first")


@app.command("export")
def export_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model's name, or the path of its folder.")],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file to write.")],
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> None:
    """Write a model into one file: model.yaml, labels, README and weights, with their hashes.

    The same model gives the same bytes.

    \b
    Example:
      edgevision models export parts-v7 parts-v7.bundle
    """
    from edgevision import model_store
    from edgevision.bundle import export_bundle

    folder = model_store.find(name)
    done = export_bundle(folder, bundle, replace=replace)
    without = f", without {', '.join(done.missing)}, not here" if done.missing else ""
    typer.echo(f"{folder.manifest.name}: exported to {bundle}{without}; sha256 {done.sha256}")


@app.command("import")
def import_model(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A file that `models export` wrote.")],
    name: Annotated[str | None, typer.Option(help="The model's name here; its own by default.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of a model of this name.")] = False,
) -> None:
    """Take a model out of a bundle, as one of your own.

    Every hash is checked; a bundle that is damaged, or holds more than a model, is refused, and nothing of it stays.

    \b
    Example:
      edgevision models import parts-v7.bundle
    """
    from edgevision.bundle import import_bundle

    folder = import_bundle(bundle, name=name, replace=replace)
    proof = "proved, see its metrics" if folder.manifest.proved else "unproved until it is evaluated"
    typer.echo(f"{folder.manifest.name}: imported to {folder.path}; {proof}")


@app.command()
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
