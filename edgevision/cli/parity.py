"""`edgevision parity`: is the exported model still its source?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevision.cli._app import console, new_app

if TYPE_CHECKING:
    from edgevision.pipeline import Model

app = new_app()


@app.command()
def parity(
    model_a: Annotated[
        str, typer.Argument(metavar="MODEL_A", help="The source: a name or folder, or an .onnx or .tflite file.")
    ],
    model_b: Annotated[str, typer.Argument(metavar="MODEL_B", help="What was exported or quantised from it.")],
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURES...", help="Pictures, or folders of pictures.")],
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the predictions that may differ; 8-bit models may need 0.2.")
    ] = 0.05,
    min_sqnr: Annotated[
        float, typer.Option(metavar="DB", help="The least SQNR of any output; 8-bit models may need 10.")
    ] = 20.0,
    limit: Annotated[int | None, typer.Option(min=1, help="So many of the pictures, evenly chosen.")] = None,
    backend_a: Annotated[str | None, typer.Option(help="onnxrt, litert or openvino, for MODEL_A.")] = None,
    backend_b: Annotated[str | None, typer.Option(help="onnxrt, litert or openvino, for MODEL_B.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of one inference.")] = 2,
    like: Annotated[str | None, typer.Option(help="For bare model files: a model that is built alike.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")] = None,
) -> None:
    """Compare an exported model with its source, output by output and prediction by prediction, on real pictures.

    Each model gets the pictures through its own preprocessing. The exit status is 1 where they differ.

    \b
    Examples:
      edgevision parity yolox_nano.onnx yolox_nano.tflite pictures/ --like yolox-nano
      edgevision parity mine.onnx mine_int8.tflite pictures/ --like yolox-nano --tolerance 0.2 --min-sqnr 10
      edgevision parity efficientnet-lite0 efficientnet-lite0 pictures/ --backend-a onnxrt --backend-b litert
    """
    from edgevision import logs
    from edgevision.errors import EdgevisionError
    from edgevision.host.evaluate.files import check_writable, write_json
    from edgevision.host.parity import run, tables

    logs.configure(level="warning")
    if as_json is not None:
        check_writable(as_json)
    chosen = run.find_pictures(pictures, limit)
    first = _load(model_a, backend_a, threads, like)
    second = _load(model_b, backend_b, threads, like)
    limits = run.Limits(disagreement=tolerance, sqnr_db=min_sqnr)
    found = run.check(first, second, chosen, limits, warn=_warn)
    if as_json is not None:  # before anything is printed: a terminal that fails must not cost the work
        write_json(as_json, run.document(first, second, found))
    console().print(tables.parity(first, second, found))
    first.close()
    second.close()
    if not found.same:
        raise EdgevisionError(found.verdict())
    typer.echo(found.verdict())


def _load(name: str, backend: str | None, threads: int, like: str | None) -> Model:
    """A model as the daemon runs it, but for the unsure detections that a partner may be among."""
    from edgevision.assembly import ModelSettings, Prober, load_model
    from edgevision.environment import default_state_dir
    from edgevision.host.parity.run import settings_for
    from edgevision.model_store import BACKEND_BY_SUFFIX

    bare = Path(name).suffix.lower() in BACKEND_BY_SUFFIX
    like = like if bare else None
    prober = Prober(state_dir=default_state_dir())
    # The manifest says what half the threshold is, so a bare file is described once before it is loaded for use.
    probe = load_model(name, like=like, settings=ModelSettings(backend=backend, threads=threads), prober=prober)
    settings = settings_for(probe.manifest, backend=backend, threads=threads)
    probe.close()
    return load_model(name, like=like, settings=settings)


def _warn(text: str) -> None:
    typer.echo(f"edgevision: warning: {text}", err=True)
