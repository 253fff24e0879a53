"""`edgevision inspect`: what a model file is, and what would make it faster here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgevision.cli._app import console, new_app

app = new_app()

_OPERATORS_SHOWN = 12


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="FILE|MODEL", help="An .onnx, .tflite or OpenVINO .xml file, or a model's name.")
    ],
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Ask this runtime only; may be given again. By default all that are here and read the file."),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="An execution provider of ONNX Runtime: cuda, or '{cuda: {device_id: 1}}'; again for a list."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of one inference.")] = 1,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Load and run it with the runtimes here.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model's inputs, outputs, operators, quantisation, multiply-adds and metadata, and what each runtime makes of it.

    The file is read without a runtime first. Then each runtime loads and runs it in a process of its own, with a deadline and
    a memory limit, so that a file that crashes one is told as such. At the end stands what would make it faster here.

    \b
    Examples:
      edgevision inspect mine.onnx
      edgevision inspect mine.onnx --backend onnxrt --provider tensorrt --provider cuda --provider cpu
      edgevision inspect efficientnet-lite0 --json
    """
    import json

    import yaml

    from edgevision.errors import UsageError
    from edgevision.host.inspect.report import inspect as look
    from edgevision.host.inspect.report import readers, weights_files
    from edgevision.inference import _providers

    entries = []
    for text in provider or ():
        try:
            entries.append(yaml.safe_load(text))
            _providers.parse(entries[-1])
        except (ValueError, yaml.YAMLError) as failure:
            raise UsageError(f"--provider: {failure}") from failure
    files = weights_files(model)
    asked = readers(files, backend) if backend else dict.fromkeys(files.values())
    documents = [
        look(file, backends=wanted if run else [], providers=entries, threads=threads) for file, wanted in asked.items()
    ]
    if as_json:
        typer.echo(json.dumps(documents, indent=2, ensure_ascii=False))
        return
    for document in documents:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False, title=escape(document["file"]), title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for way in ("inputs", "outputs"):
        for end in document[way]:
            shape = (
                "of unknown shape" if end["shape"] is None else "x".join("?" if n < 0 else str(n) for n in end["shape"])
            )
            scale = ", quantised" if end["quantised"] else ""
            table.add_row(way[:-1], escape(f"{end['name']}  {end['dtype']} {shape or 'scalar'}{scale}"))
    operators = list(document["operators"].items())
    shown = ", ".join(f"{count} {op}" for op, count in operators[:_OPERATORS_SHOWN])
    more = f", and {len(operators) - _OPERATORS_SHOWN} other kinds" if len(operators) > _OPERATORS_SHOWN else ""
    weights = ", ".join(f"{count:,} {kind}" for kind, count in document["weight_types"].items())
    counted = document["multiply_adds"]
    opsets = ", ".join(f"{domain} {version}" for domain, version in document["opsets"].items())
    rows = {
        "format": f"{document['format']}{f', opset {opsets}' if opsets else ''}",
        "made by": document["producer"],
        "size": f"{document['size_bytes']:,} bytes; sha256 {document['sha256']}",
        "parameters": f"{document['parameters']:,} ({weights})",
        "quantisation": document["quantisation"],
        "multiply-adds": f"{counted / 1e6:,.1f} million" if counted is not None else "its shapes do not tell",
        "operators": f"{document['nodes']} nodes: {shown}{more}",
    }
    rows |= {f"metadata {key}": value[:300] for key, value in document["metadata"].items()}
    for key, value in rows.items():
        if value:
            table.add_row(key, escape(str(value)))
    for name, told in document["here"].items():
        table.add_row(f"{name} here", escape(_run(told)))
    for line in document["advice"]:
        table.add_row("faster here", escape(line))
    console().print(table)
    typer.echo("")


def _run(told: dict[str, Any]) -> str:
    if "error" in told:
        return f"refused: {told['error']}"
    parts = [f"{told['median_ms']:.1f} ms (a rough look)"]
    if told["shares"]:
        parts.append(", ".join(f"{name} takes {share:.1%} of the nodes" for name, share in told["shares"].items()))
    if told.get("weighted_kernels"):
        kernels = f"{told['integer_kernels']} of {told['weighted_kernels']}"
        parts.append(f"{kernels} convolutions and matrix products run as integers")
    parts += [f"without {name}: {why}" for name, why in told["left_out"].items()]
    return "; ".join(parts)
