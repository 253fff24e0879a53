"""A reload touches what changed and nothing else; where it fails, what ran runs on, or the daemon says that it cannot."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import yaml
from runtime_support import SteppingClock, Watched, make
from support_brokers import Listener, Mosquitto, free_port, wait_until

from edgevision import assembly, model_store
from edgevision.errors import ModelError, RollbackError, UsageError
from edgevision.publish._journal_lock import JournalLock
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options, create
from edgevision.runtime import device
from edgevision.runtime.crashes import CrashJournal, SafeMode
from edgevision.runtime.service import Reload, Service

MODELS = {"m": {"model": "efficientnet-lite0"}}


def is_live(topic, heard):
    return heard.topic == topic and json.loads(heard.payload)["camera_state"] == "live"


@pytest.fixture
def copied(tmp_path):
    """The shipped model as a user's own."""
    folder = tmp_path / "models" / "copy"
    shutil.copytree(model_store.find("efficientnet-lite0").path, folder)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    (folder / "model.yaml").write_text(yaml.safe_dump({**manifest, "name": "copy"}))
    return folder


def test_where_neither_the_new_config_nor_the_old_can_be_started_the_daemon_ends(copied, tmp_path):
    old = make({"m": {"model": str(copied)}}, tmp_path)
    new = make({"m": {"model": str(copied)}}, tmp_path, device="other")
    sink = create(Options(), SinkContext(device="box"))
    service = Service(old, extra_sinks={"kept": sink})
    service.start()
    for weights in copied.glob("*-int8.*"):
        weights.write_bytes(b"not any more")
    asked, stopping = threading.Event(), threading.Event()
    asked.set()
    with ThreadPoolExecutor(1) as pool:
        reload = Reload(requested=asked, load=lambda: (new, SafeMode()))
        waiting = pool.submit(service.wait, stopping, reload=reload)
        try:
            with pytest.raises(
                RollbackError, match=r"the new config cannot be started: .*; and the old one no longer: "
            ):
                waiting.result(60)
        finally:
            stopping.set()
    last = [json.loads(message.payload) for message in sink.messages if message.topic == "edgevision/box/status"][-1]
    assert last["state"] == "offline"
    assert "the old one no longer" in last["reason"]


def test_a_model_that_was_replaced_in_its_folder_is_loaded_again(copied, tmp_path):
    settings = make({"m": {"model": str(copied)}}, tmp_path)
    with Watched(settings) as daemon:
        daemon.wait_for("m-eye/results")
        daemon.reload(settings)
        daemon.wait_for("status", lambda told: told["reason"].endswith("no part changed"))
        manifest = yaml.safe_load((copied / "model.yaml").read_text())
        (copied / "model.yaml").write_text(yaml.safe_dump({**manifest, "version": "99"}))
        daemon.reload(settings)
        told = daemon.wait_for("status", lambda told: "taken over" in told["reason"])
        assert told["reason"].endswith("restarted models: m")
        assert told["models"]["m"]["version"] == "99"
        daemon.wait_for("m-eye/results", lambda told: told["model"]["version"] == "99")


def test_a_camera_that_cannot_be_made_touches_nothing_that_runs(tmp_path, monkeypatch):
    settings = make(MODELS, tmp_path)
    camera = settings.cameras[0].model_copy(update={"fps": 5.0})
    real = assembly.make_scene

    def make_scene(section, labels):
        if section.fps == 5.0:
            raise ModelError("rule part: the model knows no label 'bolt'")
        return real(section, labels)

    with Watched(settings) as daemon:
        daemon.wait_for("m-eye/results")
        monkeypatch.setattr(assembly, "make_scene", make_scene)
        daemon.reload(settings.model_copy(update={"cameras": [camera]}))
        told = daemon.wait_for("status", lambda told: "refused" in told["reason"])
        assert "no label 'bolt'" in told["reason"]
        station = daemon.service.stations["m-eye"]
        assert not station.camera.stopped.is_set()
        daemon.reload(settings)
        daemon.wait_for("m-eye/results")


def test_a_sink_that_cannot_be_opened_again_is_an_alarm_and_is_tried_until_it_is(tmp_path, monkeypatch, mosquitto):
    monkeypatch.setattr(device, "REOPEN_EVERY_S", 0.0)
    monkeypatch.setattr(device, "REPLACED_CLOSE_S", 0.2)
    held: list[JournalLock] = []
    release = JournalLock.release

    def keep(lock):
        held.append(lock)

    monkeypatch.setattr(JournalLock, "release", keep)  # the disk does not answer: the old sink does not end
    (tmp_path / "broker").mkdir()
    with Mosquitto(mosquitto, tmp_path / "broker") as broker:
        before = make(MODELS, tmp_path, mqtt={"host": "127.0.0.1", "port": broker.port})
        after = make(MODELS, tmp_path, mqtt={"host": "127.0.0.1", "port": broker.port, "keepalive_s": 7})
        with Watched(before) as daemon:
            daemon.wait_for("m-eye/results")
            daemon.reload(after)
            told = daemon.wait_for("status", lambda told: "refused" in told["reason"])
            assert "held by an earlier sink of this very process" in told["reason"]
            told = daemon.wait_for("status", lambda told: told["alarms"])
            assert told["alarms"][0].startswith("sinks are not open, and nothing reaches them: state_dir: the journal")
            assert "mqtt" not in daemon.service.sinks
            monkeypatch.setattr(JournalLock, "release", release)
            for lock in held:
                release(lock)
            wait_until(lambda: "mqtt" in daemon.service.sinks and daemon.service.sinks["mqtt"].stats.connected)
            with Listener(broker.port, "edgevision/box/m-eye/status") as listener:
                assert json.loads(listener.wait_count(1)[0].payload)["camera_state"] == "live"
            with Listener(broker.port, "edgevision/box/status") as listener:
                listener.wait_for(lambda heard: json.loads(heard.payload)["alarms"] == [])


def test_a_new_broker_gets_every_state_and_what_happened_meanwhile_and_counts_go_on(tmp_path, monkeypatch, mosquitto):
    monkeypatch.setattr(device, "REPLACED_CLOSE_S", 0.5)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    models = {"m": {"model": "efficientnet-lite0"}, "n": {"model": "efficientnet-lite0"}}
    with Mosquitto(mosquitto, tmp_path / "two") as second:
        # Of a broker that is away nothing is delivered while the sink is exchanged.
        before = make(models, tmp_path, mqtt={"host": "127.0.0.1", "port": free_port(), "telemetry": {"interval_s": 1}})
        after = make(models, tmp_path, mqtt={"host": "127.0.0.1", "port": second.port, "telemetry": {"interval_s": 1}})
        with Watched(before) as daemon, Listener(second.port, "edgevision/box/#") as listener:
            daemon.wait_for("m-eye/results")
            daemon.wait_for("n-eye/results")
            first = daemon.wait_for("telemetry", lambda told: told["sinks"]["mqtt"]["queued"] > 3)
            daemon.reload(after)
            daemon.wait_for("status", lambda told: "taken over: reconnected: mqtt" in told["reason"])
            told = daemon.wait_for("telemetry", lambda told: told["sinks"]["mqtt"]["sent"] > 0)["sinks"]["mqtt"]
            assert told["dropped"] > 0, "what the old sink could not deliver is still counted"
            assert told["spool"]["saved"] >= first["sinks"]["mqtt"]["spool"]["saved"]
            for name in ("m-eye", "n-eye"):
                # What the spool kept of the first broker's time comes before.
                topic = f"edgevision/box/{name}/status"
                listener.wait_for(partial(is_live, topic))
            sequences = [
                json.loads(heard.payload)["frame"]["sequence"]
                for heard in listener.wait_count(40)
                if heard.topic.endswith("m-eye/results")
            ]
            assert sequences == list(range(sequences[0], sequences[0] + len(sequences))), "no gap, no disorder"


def test_sinks_that_were_made_beside_one_that_cannot_be_are_closed_again(tmp_path):
    settings = make(MODELS, tmp_path, mqtt={"host": "127.0.0.1", "port": free_port()})

    def context(name):
        if name != "mqtt":
            raise UsageError("no")
        return SinkContext(device="box", state_dir=tmp_path / "state")

    for _ in range(2):  # the second time the journal is free again
        with pytest.raises(UsageError, match=r"^no$"):
            assembly.make_sinks(settings, context)


def test_a_run_that_a_reload_began_becomes_good_as_well(tmp_path, monkeypatch):
    asked = threading.Event()
    clock = SteppingClock(last_s=2500, step_s=100, on_step=lambda now_s: asked.set() if now_s == 1000 else None)
    settings = make(MODELS, tmp_path)
    journal = CrashJournal(tmp_path, "box", clock=clock, after=3)
    times: list[int] = []
    monkeypatch.setattr(journal, "good", lambda: times.append(clock.now_s))
    service = Service(settings, clock=clock, journal=journal)
    service.wait(threading.Event(), reload=Reload(requested=asked, load=lambda: (settings, SafeMode())))
    assert times == [700, 1700]


def test_what_was_held_for_a_sink_that_never_opened_is_told_at_the_end(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(device, "REPLACED_CLOSE_S", 0.2)
    held: list[JournalLock] = []
    release = JournalLock.release

    def keep(lock):
        held.append(lock)

    monkeypatch.setattr(JournalLock, "release", keep)
    address = {"host": "127.0.0.1", "port": free_port()}
    with Watched(make(MODELS, tmp_path, mqtt=address)) as daemon:
        daemon.wait_for("m-eye/results")
        daemon.reload(make(MODELS, tmp_path, mqtt={**address, "keepalive_s": 7}))
        daemon.wait_for("status", lambda told: told["alarms"])
        daemon.wait_for("m-eye/results")
    (lost,) = [record for record in caplog.records if record.message.startswith("messages are lost: their sinks")]
    assert lost.fields["count"] > 0
    for lock in held:
        release(lock)
