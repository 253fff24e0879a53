"""`edgevision models`: what is there, what it is, whether it is whole, and adding one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.assembly import Described
    from edgevision.model_store import ModelFolder
    from edgevision.proposals import Told

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
    patterns = []
    for row in rows:
        if "fault" in row:
            table.add_row(row["name"], "", "", "", "", "", escape(f"fault: {row['fault']}"))
            continue
        if not row["files"]:
            patterns.append(row["name"])
            continue
        files = ", ".join(name if state == "here" else f"{name} (not here)" for name, state in row["files"].items())
        proved = "yes" if row["proved"] else "unproved"
        table.add_row(row["name"], row["version"], row["task"], row["input"], escape(files), proved, row["from"])
    console().print(table)
    if patterns:
        console().print(f"\nwithout files, for `models add FILE --like`: {', '.join(patterns)}", soft_wrap=True)


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
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An .onnx, .tflite or OpenVINO .xml file; it is copied.")
    ],
    like: Annotated[
        str | None, typer.Option(help="A model or pattern that is built alike: same family, input and outputs.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The new model's name; by default the file's.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", "-y", help="Without --like: add what is proposed, also where it is not sure.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Without --like: only print the proposal.")] = False,
    family: Annotated[str | None, typer.Option(help="The decoder, such as classifier, yolox, detr, semantic.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Input size in pixels.")] = None,
    color: Annotated[str | None, typer.Option(help="RGB or BGR.")] = None,
    resize: Annotated[str | None, typer.Option(help="letterbox, center_crop or stretch.")] = None,
    mean: Annotated[str | None, typer.Option(metavar="A,B,C", help="Taken off each pixel, 0-255.")] = None,
    std: Annotated[str | None, typer.Option(metavar="A,B,C", help="What that is divided by.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The model takes pixels as they are, 0-255.")] = False,
    activation: Annotated[
        str | None, typer.Option(help="What the scores still need: softmax, sigmoid or none.")
    ] = None,
    output: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=TENSOR", help="Which output has a role; may be repeated.")
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="An option of the decoder; may be repeated.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="A file with one label a line.")] = None,
) -> None:
    """Register a local model file.

    With --like it is described by a model or pattern that is built alike. Without, its family, outputs, pixels and labels
    are proposed from what stands in the file; the proposal is printed, each line with how sure it is and why, and added only
    where all is sure, or with --accept. What you say with an option outweighs both.

    The file is loaded and run once: what does not fit is refused, and nothing half-written stays.

    \b
    Examples:
      edgevision models add yolox_nano.onnx --like yolox-nano
      edgevision models add parts-v7.tflite --like efficientnet-lite0 --name parts --labels parts.txt
      edgevision models add unknown.onnx
      edgevision models add unknown.onnx --mean 0 --std 255 --color RGB --accept
    """
    from edgevision import assembly, model_store
    from edgevision.cli import _told
    from edgevision.environment import default_state_dir
    from edgevision.errors import UsageError

    told = _told.read(
        family=family,
        size=size,
        color=color,
        resize=resize,
        mean=mean,
        std=std,
        raw=raw,
        activation=activation,
        outputs=output,
        decoder=decoder,
        labels=labels,
    )
    if like is not None and (accept or dry_run):
        raise UsageError("--accept and --dry-run belong to a proposal, which --like takes the place of")
    pattern = None if like is None else model_store.find(like)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    # A file that nobody has run here yet meets its runtime in another process first.
    assembly.Prober(state_dir=default_state_dir()).check_file(file)
    known = None if pattern is not None or dry_run else assembly.described_already(file)
    if known is not None:
        typer.echo(f"{file}: the very file that {known.manifest.name} describes")
        pattern = known
    if pattern is None:
        described = _propose(file, told, name=name, accept=accept, dry_run=dry_run)
        if described is None:
            return
    else:
        described = assembly.describe(file, pattern, name=name, told=told)
    described.model.close()
    added = model_store.add(
        described.manifest, described.content, labels_from=described.labels_from, labels=described.labels
    )
    proof = "its file is the one that was measured" if added.manifest.proved else "unproved until it is evaluated"
    typer.echo(f"{added.manifest.name}: added in {added.path}; {proof}")


def _propose(file: Path, told: Told, *, name: str | None, accept: bool, dry_run: bool) -> Described | None:
    """Print the proposal; the loaded model where it is to be added."""
    from edgevision import assembly

    suggested = assembly.suggest(file, name=name, told=told)
    typer.echo(suggested.proposal.text())
    if dry_run:
        suggested.close()
        return None
    return suggested.described(accept=accept)


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
