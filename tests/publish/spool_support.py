"""What the tests of the spool share: durable messages by number, a spool with its keeper, and what it hands out."""

import json
from typing import Any

from support_brokers import HandClock

from edgevision.publish._journal import Journal
from edgevision.publish._spool import Spool
from edgevision.publish._spool_keeper import SpoolKeeper
from edgevision.publish._spool_memory import LANES
from edgevision.publish._spool_options import SpoolOptions
from edgevision.types import Message


def event(number: int, **fields: Any) -> Message:
    payload = f'{{"n":{number},"historical":false}}'.encode()
    return Message(**{"topic": "n", "payload": payload, "qos": 1, "durable": True, "priority": 1, **fields})


def keep(tmp_path, *, clock=None, journal=Journal, **options):
    clock = clock or HandClock()
    spool = Spool(max_messages=1000, max_bytes=10**7, clock=clock, on_ready=lambda: None)
    settings = SpoolOptions.model_validate(options)
    keeper = SpoolKeeper(spool, path=tmp_path / "spool.sqlite", options=settings, clock=clock, open_journal=journal)
    return spool, keeper, clock


def take_all(spool, lanes=LANES):
    found = []
    for lane in lanes:
        while (item := spool.take(lane)) is not None:
            found.append(item)
    return sorted(found, key=lambda item: item.number)


def values(items):
    return [json.loads(item.message.payload)["n"] for item in items]
