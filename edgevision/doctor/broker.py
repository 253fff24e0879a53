"""The broker: found, reached, its certificate good and for how long, and whether it lets us in. It really connects.

Under a client id of its own, so that a daemon that runs is not thrown out; nothing is published.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from edgevision.broker import words
from edgevision.broker.client import Version
from edgevision.broker.tls import make_context
from edgevision.broker.words import LinkError
from edgevision.clock import SYSTEM_CLOCK
from edgevision.config import MqttSection
from edgevision.doctor.findings import Finding, fault, ok, parted, warning
from edgevision.errors import PublishError
from edgevision.publish._mqtt_link import Link
from edgevision.publish._mqtt_waker import Waker

_SOON_DAYS = 30


def check(job: dict[str, Any]) -> Iterator[Finding]:
    """Knock, shake hands, log in."""
    try:
        options = MqttSection.model_validate(job["mqtt"])
    except ValidationError:
        fix = "mend the section `mqtt` of the config first"
        yield fault("broker", "mqtt", "was not looked at: its section has faults", fix)
        return
    trusted = None
    if options.tls is not None:
        file = options.tls.ca_file
        trusted = "an authority this system trusts" if file is None else f"tls.ca_file {file}"
    try:
        yield from _reach(options)
    except PublishError as failure:
        yield _fault("broker TLS", str(failure))
        return
    except OSError as failure:
        text = words.unreachable(
            failure, host=options.host, where=options.where, timeout_s=options.connect_timeout_s, trusted=trusted
        )
        yield _fault("broker", text)
        return
    yield _log_in(options, str(job["device"]))


def _fault(subject: str, text: str) -> Finding:
    found, fix = parted(text)
    return fault("broker", subject, found, fix)


def _reach(options: MqttSection) -> Iterator[Finding]:
    with socket.create_connection((options.host, options.broker_port), timeout=options.connect_timeout_s) as plain:
        yield ok("broker", "network", f"{options.where} answers ({plain.getpeername()[0]})")
        if options.tls is None:
            if options.username is not None and not plain.getpeername()[0].startswith("127."):
                found = "no TLS: the password goes over the network as it is"
                yield warning("broker", "TLS", found, "tls: true, and a broker's port with TLS (8883)")
            return
        context = make_context(options.tls, options.connect_timeout_s)
        with context.wrap_socket(plain, server_hostname=options.host) as secured:
            yield _certificate(secured)


def _certificate(secured: ssl.SSLSocket) -> Finding:
    told: Any = secured.getpeercert() or {}
    version = secured.version() or "TLS"
    if "notAfter" not in told:
        return ok("broker", "TLS", version)
    left_days = (ssl.cert_time_to_seconds(told["notAfter"]) - SYSTEM_CLOCK.time_ns() / 1e9) / 86_400
    text = f"{version}; the broker's certificate is good until {told['notAfter']} ({left_days:.0f} days)"
    if left_days < _SOON_DAYS:
        return warning("broker", "TLS", text, "renew the broker's certificate")
    return ok("broker", "TLS", text)


def _log_in(options: MqttSection, device: str) -> Finding:
    client_id = f"{options.client_id or f'edgevision-{device}'}-doctor-{os.getpid()}"
    versions: list[Version] = ["3.1.1"] if options.protocol == "3.1.1" else ["5"]
    versions += ["3.1.1"] if options.protocol == "auto" else []
    waker, problems = Waker(), []
    for version in versions:
        link: Link | None = None
        try:
            link = Link(
                options=options, client_id=client_id, version=version, will=None, wake_fd=waker.fd, clock=SYSTEM_CLOCK,
                on_settled=lambda *_: None,
            )  # fmt: skip
            link.dial(options.connect_timeout_s, lambda: True)
            lacks = link.shortcomings
            link.hang_up(2.0)
        except LinkError as failure:
            problems.append(failure)
            if link is not None:
                link.close()
            if not (failure.version_refused or failure.unanswered):
                break
            continue
        who = f"as {options.username}" if options.username else "without a user name"
        if lacks:
            return warning("broker", "login", f"MQTT {version} {who}: {lacks}", "allow it in the broker's settings")
        return ok("broker", "login", f"MQTT {version} {who}")
    return _fault("login", str(problems[0]))
