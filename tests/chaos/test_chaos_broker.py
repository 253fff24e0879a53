"""Brokers that die, stop, refuse, fall silent, crawl and forget: what was not acknowledged is told again, none is missing."""

import json
from collections import Counter
from functools import partial

import psutil
import pytest
from chaos_support import House, camera, comm, make
from support_brokers import Listener, Mosquitto, wait_until
from support_mqtt_tap import Tap
from support_proxy import Proxy

from edgevision.publish import _mqtt_sink
from edgevision.retry import Backoff

KEEPALIVE_S = 1
SOURCE = {"type": "synthetic", "live": True, "width": 160, "height": 120}
KEEPS = ["allow_anonymous true", "max_queued_messages 0", "autosave_on_changes true", "autosave_interval 1"]
DURABLE = ("/results", "/events", "/status")


class Net:
    """A broker, the network before it, and a subscriber with a session behind it."""

    def __init__(self, mosquitto, folder):
        self.tap = Tap()
        self.folder = folder
        self.broker = Mosquitto(mosquitto, folder, settings=KEEPS, persistent=True)

    def __enter__(self):
        self.broker.__enter__()
        self.network = Proxy(self.broker.port, tap=self.tap).__enter__()
        self.listener = Listener(self.broker.port, "edgevision/#", session="listener").__enter__()
        return self

    def __exit__(self, *_):
        self.listener.__exit__()
        self.network.__exit__()
        self.broker.__exit__()

    def settings(self, folder, **more):
        return {
            "host": "127.0.0.1",
            "port": self.network.port,
            "keepalive_s": KEEPALIVE_S,
            "connect_timeout_s": 2,
            "results": {"qos": 1, "durable": True},
            "telemetry": {"qos": 0, "enabled": False},
            **more,
        }


@pytest.fixture
def net(mosquitto, tmp_path, monkeypatch):
    (tmp_path / "broker").mkdir()
    monkeypatch.setattr(_mqtt_sink, "Backoff", partial(Backoff, first_s=0.1, max_s=0.4))
    with Net(mosquitto, tmp_path / "broker") as net:
        yield net


def kill(net):
    net.broker.kill()


def forget(net):
    net.broker.stop()
    for file in net.folder.glob("*.db"):
        file.unlink()


def restart(net):
    """The subscriber is back before the daemon is: what a broker has no subscriber for, it throws away."""
    net.network.refuse()
    net.broker.start()
    net.listener.wait_ready()
    net.network.through()


FAULTS = {
    "killed": (kill, restart),
    "stopped and restarted with its state lost": (forget, restart),
    "paused": (lambda net: net.broker.freeze(), lambda net: net.broker.thaw()),
    "refusing": (lambda net: net.network.refuse(), lambda net: net.network.through()),
    "half-open": (lambda net: net.network.swallow(), lambda net: net.network.through()),
}


def arrived(net):
    """How often each durable message came."""
    found: Counter[tuple[str, str, int]] = Counter()
    for heard in list(net.listener.heard):
        if heard.topic.endswith(DURABLE):
            content = json.loads(heard.payload)
            if content["seq"]:  # not a last will
                found[heard.topic, content["boot_id"], content["seq"]] += 1
    return found


def made(house):
    with house.sink.told:
        return {
            (f"edgevision/box/{topic}", content["boot_id"], content["seq"])
            for topic, contents in house.sink.by_topic.items()
            for content in contents
            if topic.endswith(DURABLE) or topic == "status"
        }


def in_order(net, topic):
    """The first arrivals of a topic count up."""
    seqs = [key[2] for key in arrived(net) if key[0].endswith(topic)]
    return seqs == sorted(seqs)


def run(net, folder, fault, *, messages=40):
    """Let a fault happen to a daemon at work; gives what it made and when it noticed, after all has been delivered."""
    begin, end = FAULTS[fault]
    settings = make([camera("a", SOURCE, fps=40)], mqtt=net.settings(folder), state_dir=str(folder / "state"))
    with House(settings) as house:
        mqtt = house.service.sinks["mqtt"]
        wait_until(lambda: mqtt.stats.connected)
        house.result("a", after=10)
        begin(net)
        before = house.last_seq("a/results")
        wait_until(lambda: not mqtt.stats.connected, f"{fault} is noticed", timeout_s=3 * 1.5 * KEEPALIVE_S + 5)
        house.result("a", after=before + messages)
        assert {result["camera_state"] for result in house.of("a/results")} == {"live"}
        assert mqtt.stats.spool.waiting >= messages - 20
        end(net)
        wait_until(lambda: mqtt.stats.connected and mqtt.stats.spool.waiting < 20, f"recovery from {fault}")
    return made(house)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_the_broker_every_message_arrives_in_order(net, tmp_path, fault):
    all_made = run(net, tmp_path, fault)
    assert not [child for child in psutil.Process().children() if comm(child.pid).startswith("ev-")]
    forgets = fault in {"killed", "stopped and restarted with its state lost"}
    # A broker that loses its memory may lose what it had acknowledged, and that is what was on its way; we may lose nothing.
    ours = all_made - net.tap.acknowledged if forgets else all_made
    wait_until(lambda: ours <= arrived(net).keys(), "every message")
    if forgets:
        wait_until(lambda: len(all_made - arrived(net).keys()) <= 20, "all but those on their way")
    assert in_order(net, "a/results")


def test_a_crawling_line_costs_time_and_no_message(net, tmp_path):
    settings = make([camera("a", SOURCE, fps=40)], mqtt=net.settings(tmp_path), state_dir=str(tmp_path / "state"))
    with House(settings) as house:
        mqtt = house.service.sinks["mqtt"]
        house.result("a", after=10)
        net.network.slow(bytes_per_s=8000, delay_s=0.05)
        before = house.last_seq("a/results")
        house.result("a", after=before + 60)
        assert mqtt.stats.spool.waiting > 20, "the line is too thin for what is said"
        net.network.through()
        wait_until(lambda: mqtt.stats.connected and mqtt.stats.spool.waiting < 20)
    wait_until(lambda: made(house) <= arrived(net).keys())
    assert in_order(net, "a/results")


def test_a_line_that_is_cut_again_and_again_only_repeats_and_never_loses(net, tmp_path):
    settings = make([camera("a", SOURCE, fps=40)], mqtt=net.settings(tmp_path), state_dir=str(tmp_path / "state"))
    with House(settings) as house:
        for cuts in (1, 2):
            wait_until(lambda: house.service.sinks["mqtt"].stats.connected)
            before = house.last_seq("a/results")
            house.result("a", after=before + 5)
            net.network.cut()
            wait_until(lambda: net.network.accepted > cuts)  # noqa: B023 - used up at once
    wait_until(lambda: made(house) <= arrived(net).keys())
    assert in_order(net, "a/results")
