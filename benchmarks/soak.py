"""A soak: the daemon at work for hours, and something goes wrong every minute. What grows, what heals, and what is lost?

A broker, an RTSP camera, a synthetic one and a film, a disk, the network between them, and `edgevision consume` at the other
end; all real. Faults are drawn from a seeded list (`--list`). It ends with a table, a picture and a JSON file, and with
status 1 where memory or handles grow, a fault did not heal, or a message was lost by us.

    python benchmarks/soak.py --hours 1 --into benchmarks/results/amd-epyc-2-cores/soak
    python benchmarks/soak.py --hours 0.1 --fault-every 30 --only 'broker half-open' --only 'reader killed'

It wants mosquitto and GStreamer's RTSP server. As root, the daemon's state is on a disk of its own that fills up and stalls;
without, these two faults are left out, and that is said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "tests")]

from soaking import judging, report  # noqa: E402
from soaking.faults import FAULTS, Fault, draw  # noqa: E402
from soaking.judging import Outcome, Slot  # noqa: E402
from soaking.watching import Account, Sampler  # noqa: E402
from soaking.world import World  # noqa: E402

from edgevision.host.benchmark.machine import environment, load_average  # noqa: E402

SAMPLE_EVERY_S = 5.0
LEAST_AFTER_S = 20.0
"""A fault's slot is at least so much longer than the fault."""
MOST_MB_PER_HOUR = 1.0
MOST_HANDLES_PER_HOUR = 1.0
DRAIN_S = 60.0
OWN = "own memory of all processes, MB"
STEADY = "the same, once every kind of fault has been"
"""What it is held to: a first reload, a first larger picture, a first outage each need memory that stays."""


def slots(world: World, account: Account, faults: Iterator[Fault], arguments: argparse.Namespace) -> Iterator[Outcome]:
    """Let one fault after the other happen; what became of each is told at the end of its slot."""
    start_s = time.time()
    pause = threading.Event()
    pause.wait(arguments.fault_every)
    while time.time() - start_s < arguments.hours * 3600 - arguments.fault_every:
        fault = next(faults)
        begun_s = time.time()
        fault.begin(world)
        pause.wait(max(0.0, begun_s + fault.lasts_s - time.time()))
        ended_s = time.time()
        fault.end(world)
        next_s = max(begun_s + arguments.fault_every, ended_s + LEAST_AFTER_S)
        pause.wait(max(0.0, next_s + 0.5 - time.time()))  # what was said until then has been read
        slot = Slot(fault=fault, begun_s=begun_s, ended_s=ended_s, next_s=next_s)
        outcome = judging.judge(slot, account, world.daemon.lines, start_s=start_s)
        print(
            f"{outcome.at_s:8.0f} s  {outcome.fault:38} noticed {outcome.noticed_s}  recovered {outcome.recovered_s}  "
            f"others {outcome.others_fps}  {'' if outcome.healed else 'NOT HEALED'}  {outcome.said[:120]}",
            flush=True,
        )
        yield outcome
        if not world.daemon.alive:
            print("the daemon has ended", [line.content for line in world.daemon.lines[-5:]])
            return


def soak(folder: Path, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, float]], dict[str, Any]]:
    """The whole; gives the result, the samples, and the series of the plot."""
    load_before = load_average()
    with World(folder) as world:
        if world.no_disk:
            print(f"the faults of the disk are left out: {world.no_disk}")
        account = Account(world.truth)
        sampler = Sampler(world, every_s=SAMPLE_EVERY_S)
        start_s = time.time()
        try:
            faults = draw(arguments.seed, disk=world.disk is not None, names=arguments.only)
            outcomes = list(slots(world, account, faults, arguments))
        finally:
            sampler.close()
            same_process = world.daemon.alive
            status = world.daemon.end() if same_process else None
            account.close()
        wait_until_still(world.consumer.output)
        world.consumer.end()
        kept = judging.messages(world.truth, world.consumer.output, world.tap.acknowledged)
        warm_up_s = min(600.0, arguments.hours * 3600 / 4)
        picks: dict[str, Any] = {
            OWN: lambda taken: taken.own_mb,
            "own memory of the daemon, MB": lambda taken: taken.daemon_own_mb,
            "PSS of all processes, MB": lambda taken: taken.pss_mb,
            "file handles": lambda taken: taken.files,
            "file handles of the daemon": lambda taken: taken.daemon_files,
            "threads": lambda taken: taken.threads,
            "threads of the daemon": lambda taken: taken.daemon_threads,
            "processes": lambda taken: taken.processes,
            "shared memory segments": lambda taken: taken.segments,
        }
        result = {
            "hours": arguments.hours,
            "seed": arguments.seed,
            "fault_every_s": arguments.fault_every,
            "environment": environment(),
            "load_average": {"before": load_before, "after": load_average()},
            "note": f"load average {load_before} before, {load_average()} after (1, 5, 15 min), niceness {os.nice(0)}",
            "warm_up_s": warm_up_s,
            "same_process": same_process,
            "exit_status": status,
            "watchdog_hungry_s": round(world.daemon.hungry_s, 2),
            "left_out": world.no_disk,
            "slopes": {name: judging.slope(sampler.samples, pick, after_s=warm_up_s) for name, pick in picks.items()}
            | {STEADY: judging.slope(sampler.samples, picks[OWN], after_s=judging.round_s(outcomes))},
            "messages": kept,
            "counted_by_the_sink": {"sent": account.counts[-1].sent, "dropped": account.counts[-1].dropped},
            "dropped_by_the_account": account.counts[-1].kept_back,
            "most_spooled": max(count.waiting for count in account.counts),
            "healed": sum(outcome.healed for outcome in outcomes),
            "outcomes": [asdict(outcome) for outcome in outcomes],
        }
        series = {
            "start_s": start_s,
            "spool_s": [count.time_s for count in account.counts],
            "spool_waiting": [count.waiting for count in account.counts],
            "results": {name: list(times) for name, times in account.results.items()},
        }
        return result, [asdict(taken) for taken in sampler.samples], series


def wait_until_still(output: Path) -> None:
    """Wait until nothing more arrives."""
    end_s, size_bytes = time.monotonic() + DRAIN_S, -1
    while time.monotonic() < end_s and output.stat().st_size != size_bytes:
        size_bytes = output.stat().st_size
        time.sleep(5)


def problems(result: dict[str, Any]) -> list[str]:
    """What is not as it should be, in words."""
    found = []
    if not result["same_process"] or result["exit_status"] != 0:
        found.append(f"the daemon did not last, or did not end in order (status {result['exit_status']})")
    memory = result["slopes"][STEADY]
    if memory and memory["per_hour"] - memory["interval"] > MOST_MB_PER_HOUR:
        found.append(f"memory grows by {memory['per_hour']} MB an hour")
    for name in ("file handles", "threads", "processes", "shared memory segments"):
        grows = result["slopes"][name]
        if grows and grows["per_hour"] - grows["interval"] > MOST_HANDLES_PER_HOUR:
            found.append(f"{name} grow by {grows['per_hour']} an hour")
    found += [f"{outcome['fault']} did not heal" for outcome in result["outcomes"] if not outcome["healed"]]
    kept = result["messages"]
    if kept["lost_by_edgevision"] or kept["arrived_twice"] or kept["never_made"]:
        found.append(f"messages: {kept}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--fault-every", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[fault.name for fault in FAULTS], help="may be repeated")
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="soak.json, soak.md and soak.png are written there")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this empty folder and leave it")
    arguments = parser.parse_args()
    if arguments.list:
        for fault in FAULTS:
            print(f"{fault.name:40} {fault.hits:12} {fault.lasts_s:g} s")
        return
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        result, samples, series = soak(folder, arguments)
        # No path of this machine goes out.
        result = json.loads(json.dumps(result).replace(str(folder), ".").replace(f"{HERE.parent}/", ""))
    table = report.markdown(result)
    print(table)
    if arguments.into is not None:
        arguments.into.mkdir(parents=True, exist_ok=True)
        (arguments.into / "soak.md").write_text(table)
        arguments.json, arguments.plot = arguments.into / "soak.json", arguments.into / "soak.png"
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.plot is not None:
        report.plot(result, samples, series, arguments.plot)
    if found := problems(result):
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
