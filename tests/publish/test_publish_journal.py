"""The spool's file by itself: order, ages, damage, and who owns it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support_brokers import HandClock

from edgevision.errors import StateError
from edgevision.publish._journal import DamagedError, Journal
from edgevision.publish._journal_lock import JournalLock
from edgevision.publish._spool_damage import Damage
from edgevision.types import Message

DAY_NS = 86_400 * 10**9


def message(number, **fields):
    return Message(topic=f"t/{number}", payload=b"%d" % number, **{"qos": 1, "durable": True, **fields})


def open_journal(tmp_path, clock=None, boot="a"):
    (tmp_path / "boot").write_text(boot)
    return Journal(tmp_path / "spool.sqlite", clock=clock or HandClock(), machine_boot=tmp_path / "boot")


def write(journal, *numbers, lane=1, made_ns=0, **fields):
    journal.begin(durable=True)
    journal.insert([(number, lane, made_ns, message(number, **fields)) for number in numbers])
    journal.commit()


def numbers(journal, lane=1):
    return [row.id for row in journal.read(lane=lane, after=0, limit=100)]


def test_messages_come_back_whole_and_in_the_order_of_their_numbers(tmp_path):
    journal = open_journal(tmp_path)
    write(journal, 3, 1, 2)
    write(journal, 4, lane=0, retain=True, qos=2, expires_s=60.0, content_type="image/jpeg")
    journal.close()
    again = open_journal(tmp_path)
    assert (again.count, again.highest_id) == (4, 4)
    assert numbers(again) == [1, 2, 3]
    (row,) = again.read(lane=0, after=0, limit=9)
    assert row.message == message(4, retain=True, qos=2, expires_s=60.0, content_type="image/jpeg")
    again.begin(durable=False)
    again.delete([1, 3, 99])
    again.commit()
    assert (numbers(again), again.count) == ([2], 2)
    again.close()


def test_what_was_not_committed_is_not_there(tmp_path):
    journal = open_journal(tmp_path)
    write(journal, 1)
    journal.begin(durable=True)
    journal.insert([(2, 1, 0, message(2))])
    journal.roll_back()
    assert (journal.count, numbers(journal)) == (1, [1])
    journal.close()


def test_ages_go_on_over_a_restart_and_stand_still_while_the_machine_is_off(tmp_path):
    clock = HandClock()
    journal = open_journal(tmp_path, clock)
    write(journal, 1)
    journal.begin(durable=False)
    journal.note_clock()
    journal.commit()
    journal.close()
    clock.now_ns += 2 * DAY_NS
    again = open_journal(tmp_path, clock)
    assert again.oldest_age_s() == 2 * 86_400
    again.begin(durable=False)
    again.note_clock()
    again.commit()
    again.close()
    after = HandClock()  # another start of the machine: its monotonic clock begins anew, whatever the calendar says
    after.now_ns = 5 * 10**9
    rebooted = open_journal(tmp_path, after, boot="b")
    assert rebooted.oldest_age_s() == 2 * 86_400
    after.now_ns += DAY_NS
    assert rebooted.oldest_age_s() == 3 * 86_400
    rebooted.close()


@pytest.mark.parametrize(
    "wreck",
    [
        lambda path: path.write_bytes(b"not a database at all" * 500),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(len(path.read_bytes()) - 4096)),
    ],
)
def test_damage_is_seen_and_set_aside(tmp_path, wreck):
    journal = open_journal(tmp_path)
    write(journal, *range(200))
    journal.close()
    wreck(tmp_path / "spool.sqlite")
    with pytest.raises(DamagedError):
        open_journal(tmp_path)
    damage = Damage(tmp_path / "spool.sqlite", clock=HandClock())
    for _ in range(5):
        moved = Path(damage.set_aside("torn").rpartition(" ")[2])
        assert moved.exists()
        open_journal(tmp_path).close()
    assert len(list(tmp_path.glob("spool-damaged-*.sqlite"))) == 3
    assert (damage.alarm() or "").count("(torn)") == 3
    assert damage.alarm() is None, "it does not look at the folder with each message"


def test_a_database_of_somebody_else_is_none_of_ours(tmp_path):
    with sqlite3.connect(tmp_path / "spool.sqlite") as other:
        other.execute("CREATE TABLE precious (x)")
    other.close()
    with pytest.raises(DamagedError, match="no journal of this version"):
        open_journal(tmp_path)


def test_one_process_owns_a_journal_and_its_death_frees_it(tmp_path):
    lock = JournalLock(tmp_path / "spool.lock")
    with pytest.raises(StateError, match=r"spool\.sqlite is held by an earlier sink of this very process"):
        JournalLock(tmp_path / "spool.lock")
    program = (
        "import sys; from pathlib import Path; from edgevision.publish._journal_lock import JournalLock\n"
        "JournalLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "spool.lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (
        f"is in use by another edgevision (process {os.getpid()}): stop it, or give each daemon its own" in done.stderr
    )
    lock.release()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(StateError, match=f"process {owner.pid}"):
            JournalLock(tmp_path / "spool.lock")
        owner.kill()
    JournalLock(tmp_path / "spool.lock").release()
