"""`edgevision consume`: messages off the broker, each once, with every gap named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevision.cli._app import new_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgevision.consume import Delivered, Notice

app = new_app()


@app.command()
def consume(
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", metavar="FILTER", help="What to subscribe to; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option(help="The broker's name or address.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Its port; 1883, with TLS 8883.")] = None,
    username: Annotated[str | None, typer.Option(help="User at the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(metavar="FILE", help="A file that holds the password.")] = None,
    tls: Annotated[bool, typer.Option("--tls", help="TLS with the system's authorities.")] = False,
    ca_file: Annotated[Path | None, typer.Option(metavar="FILE", help="TLS with this authority (PEM).")] = None,
    cert_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Our certificate (PEM), for mutual TLS.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    protocol: Annotated[str, typer.Option(help="auto, 5 or 3.1.1.")] = "auto",
    client_id: Annotated[
        str | None, typer.Option(help="Names the session that the broker keeps; edgevision-consume-<this machine>.")
    ] = None,
    session_s: Annotated[int, typer.Option(help="How long the broker keeps it while we are away (MQTT 5).")] = 604_800,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where is remembered what was handed on; one file a session.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append JSON lines to this file, each message exactly once.")
    ] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")] = False,
) -> None:
    """Take messages off the broker and hand each on once, until SIGTERM or Ctrl-C.

    The broker keeps messages of QoS 1 while this is away; what comes twice is removed by topic, boot_id and seq. A message is
    marked only after its line is out: killed between the two, standard output may get up to 500 lines again, a file
    (--output) none. Every gap in seq is named, and closed when its messages come late. JSON lines hold either `topic` and
    `payload`, or `notice` (gap, gap-closed) with `first` and `last`.

    \b
    Examples:
      edgevision consume -t 'acme/berlin/line3/+/+/events'
      edgevision consume -t 'acme/#' --host broker --username qa --password-file secret --tls --output events.jsonl
    """
    import signal
    import socket
    import threading
    from types import FrameType

    from pydantic import ValidationError

    from edgevision import logs, registry
    from edgevision.environment import default_state_dir
    from edgevision.errors import UsageError
    from edgevision.publish.mqtt import Options

    registry.require("paho.mqtt.client", package="paho-mqtt", purpose="edgevision consume")
    from edgevision.consume import Consumer, ConsumerOptions

    logs.configure(level="info", style="text")
    name = client_id or f"edgevision-consume-{socket.gethostname()}"
    files = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    given = {key: value for key, value in files.items() if value is not None}
    try:
        broker = Options.model_validate(
            {
                "host": host,
                "port": port,
                "username": username,
                "password_file": password_file,
                "tls": given or tls,
                "protocol": protocol,
                "client_id": name,
            }
        )
    except ValidationError as failure:
        problems = [f"--{'-'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in failure.errors()]
        raise UsageError("; ".join(problems)) from failure
    safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
    options = ConsumerOptions(
        broker=broker,
        topics=tuple(topic or ["edgevision/#"]),
        state=state or default_state_dir() / "consume" / f"{safe}.sqlite",
        session_s=session_s,
    )
    stopping = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    outlet = _Outlet(as_json=json_lines, output=output)
    consumer = Consumer(options, hand_on=outlet.hand_on)
    try:
        outlet.open(consumer.ledger.output)
        consumer.run(stopping)
    finally:
        consumer.close()
        outlet.close()
    counts = consumer.counts
    typer.echo(
        f"{counts.handed_on} messages handed on ({counts.historical} late), {counts.duplicates} duplicates removed, "
        f"{counts.gaps} gaps ({counts.gaps_closed} closed), {counts.malformed} left out as malformed",
        err=True,
    )


class _Outlet:
    """Where lines go: a file, or standard output as JSON or for people."""

    def __init__(self, *, as_json: bool, output: Path | None) -> None:
        self._as_json = as_json
        self._output = output
        self._file: Any = None

    def open(self, marked: tuple[str, int] | None) -> None:
        from edgevision.consume import JsonLinesFile

        if self._output is not None:
            self._file = JsonLinesFile(self._output, marked=marked)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def hand_on(self, new: Sequence[Delivered], notices: Sequence[Notice]) -> tuple[str, int] | None:
        """Lines out; when this returns they are handed on."""
        import dataclasses
        import json
        import sys

        from edgevision.publish.jsonl import line_of

        if self._file is not None or self._as_json:
            lines = [json.dumps(dataclasses.asdict(notice)).encode() + b"\n" for notice in notices]
            lines += [line_of(found.message) for found in new]
            if self._file is not None:
                self._file.write(lines)
                return self._file.mark  # type: ignore[no-any-return]
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()
            return None
        for notice in notices:
            what = "missing" if notice.notice == "gap" else "have come late"
            typer.echo(f"{_plain(notice.topic)}: messages {notice.first} to {notice.last} {what}", err=True)
        for found in new:
            typer.echo(_for_people(found))
        sys.stdout.flush()
        return None


def _for_people(found: Delivered) -> str:
    content = found.content
    told = [str(content[key]) for key in ("state", "camera_state", "kind", "label", "reason") if content.get(key)]
    late = " (late)" if found.historical else ""
    return _plain(f"{found.published_at} {found.topic} {found.seq}{late} {' '.join(told)}")


def _plain(text: str) -> str:
    """Nothing that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:500])
