"""Models that come and go whole: fetched, removed, written into a bundle and taken out of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgevision.model_store import ModelFolder


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
