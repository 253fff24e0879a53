"""What was handed on, gaps, and a network that makes things up."""

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision import messages
from edgevision.consume import ledger as module
from edgevision.consume.identity import MalformedError, identify
from edgevision.consume.ledger import Ledger
from edgevision.errors import StateError
from edgevision.messages.png import add_png_text

BOOT = "ab" * 16


def found(seq, *, topic="t", boot=BOOT, at="2026-01-01T00:00:00.000000Z"):
    payload = json.dumps({"boot_id": boot, "seq": seq, "published_at": at, "historical": False}).encode()
    return identify(topic, payload, qos=1, retain=False, max_bytes=10_000)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "seen.sqlite")
    yield ledger
    ledger.close()


def told(ledger, *seqs, **fields):
    """For each number: whether it is new, and what it tells of gaps."""
    return [
        (is_new, [(notice.notice, notice.first, notice.last) for notice in notices])
        for is_new, notices in (ledger.note(found(seq, **fields)) for seq in seqs)
    ]


def test_duplicates_are_removed_and_gaps_named_and_closed(ledger):
    assert told(ledger, 5, 6, 6, 9) == [(True, []), (True, []), (False, []), (True, [("gap", 7, 8)])]
    assert told(ledger, 8, 8, 7) == [(True, []), (False, []), (True, [("gap-closed", 7, 8)])]
    assert told(ledger, 3) == [(True, [])], "what was before the first one known is no gap"


def test_a_known_topic_that_begins_anew_begins_at_one(ledger):
    told(ledger, 40)
    assert told(ledger, 3, boot="cd" * 16) == [(True, [("gap", 1, 2)])]
    assert told(ledger, 40) == [(False, [])]


def test_the_last_will_stands_outside_the_count(ledger):
    assert told(ledger, 0, 0) == [(True, []), (False, [])]
    assert told(ledger, 0, at="2026-01-02T00:00:00.000000Z") == [(True, [])]


@given(st.integers(0, 2**32))
def test_every_order_hands_each_on_once_and_leaves_no_gap(tmp_path_factory, seed):
    ledger = Ledger(tmp_path_factory.mktemp("l") / "seen.sqlite")
    chance = random.Random(seed)
    numbers = list(range(1, 40)) + chance.sample(range(1, 40), 20)
    chance.shuffle(numbers)
    told(ledger, 7, topic="t", boot="00" * 16)
    new = []
    opened, closed = set(), set()
    for number in numbers:
        ((is_new, notices),) = told(ledger, number)
        new += [number] if is_new else []
        opened |= {gap[1:] for gap in notices if gap[0] == "gap"}
        closed |= {gap[1:] for gap in notices if gap[0] == "gap-closed"}
    assert sorted(new) == list(range(1, 40))
    assert opened == closed
    ledger.close()


def test_it_remembers_only_what_was_committed(tmp_path):
    ledger = Ledger(tmp_path / "seen.sqlite")
    told(ledger, 1, 2, 5)
    ledger.commit(("out.jsonl", 77))
    told(ledger, 6)
    ledger.close()
    again = Ledger(tmp_path / "seen.sqlite")
    assert again.output == ("out.jsonl", 77)
    assert told(again, 5, 6, 3, 4) == [(False, []), (True, []), (True, []), (True, [("gap-closed", 3, 4)])]
    again.close()


def test_one_consumer_owns_a_ledger_and_garbage_is_refused_in_one_line(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "seen.sqlite")
    with pytest.raises(StateError, match="database is locked"):
        Ledger(tmp_path / "seen.sqlite")
    ledger.close()
    (tmp_path / "seen.sqlite").write_bytes(b"garbage" * 999)
    with pytest.raises(StateError, match=r"--state .* cannot be used"):
        Ledger(tmp_path / "seen.sqlite")
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="name a file in a folder of your own"):
        Ledger(tmp_path / "file" / "seen.sqlite")


def test_invented_boots_and_numbers_are_bounded(ledger, monkeypatch):
    monkeypatch.setattr(module, "_MAX_STREAMS", 10)
    monkeypatch.setattr(module, "_MAX_RANGES", 10)
    told(ledger, *range(2, 200, 2))
    stream = ledger._streams["t", BOOT]
    assert len(stream.ranges) == 10
    assert len(stream.gaps) == 10
    for number in range(50):
        told(ledger, 1, boot=f"{number:032x}")
    ledger.commit()
    assert (len(ledger._streams), ledger.forgotten) == (10, 41)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"1" * 9000,
        b"[]",
        b'{"boot_id": 1}',
        b'{"boot_id": "xy", "seq": 1}',
        *(
            json.dumps({"boot_id": BOOT, "published_at": "x", "seq": seq}).encode()
            for seq in (-1, 1.5, True, None, "1", 2**60, [1])
        ),
        json.dumps({"boot_id": BOOT, "seq": 1}).encode(),
        json.dumps({"boot_id": BOOT, "seq": 1, "published_at": "x" * 100}).encode(),
        json.dumps({"boot_id": BOOT, "seq": 1, "published_at": "x", "pad": "x" * 10_000}).encode(),
        b"\xff\xd8\xff\xfe\xff\xff{",
        b"\xff\xd8nothing",
    ],
)
def test_hostile_payloads_are_refused_by_name(payload):
    with pytest.raises(MalformedError):
        identify("t", payload, qos=1, retain=False, max_bytes=10_000)


@given(st.binary(max_size=300))
def test_any_bytes_are_either_a_message_or_malformed(payload):
    try:
        identify("t", payload, qos=1, retain=False, max_bytes=200)
    except MalformedError:
        return


def test_a_class_map_is_known_by_the_text_that_it_carries():
    png = messages.class_map_png(np.zeros((2, 3), np.uint8), [(0, 0, 0)] * 256)
    content = {"boot_id": "ab" * 16, "seq": 3, "published_at": "2026-01-01T00:00:00.000000Z", "what": "mask"}
    payload = add_png_text(png, json.dumps(content).encode())
    found = identify("t", payload, qos=0, retain=False, max_bytes=10_000)
    assert (found.seq, found.content["what"], found.message.content_type) == (3, "mask", "image/png")
    with pytest.raises(MalformedError, match="not JSON"):
        identify("t", png, qos=0, retain=False, max_bytes=10_000)
