"""A file of one's own becomes a model: described by one that is built alike, or by a proposal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgevision.assembly import Described
    from edgevision.proposals import Told


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
    from edgevision.cli.models import _told
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
