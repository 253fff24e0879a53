"""The daemon under a service manager, played by the test over a real notify socket; broker, model and process are real."""

import json
from pathlib import Path

import pytest
from support_brokers import Listener, Mosquitto
from support_daemon import ServiceManager, install_fragile_backend

import edgevision

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


def yaml(folder, port, *, backend="onnxrt", cameras=("infeed",), fps=10, more=""):
    text = f"""\
device: box1
state_dir: {folder}/state
mqtt: {{host: 127.0.0.1, port: {port}, telemetry: {{interval_s: 1}}}}
models:
  m: {{model: efficientnet-lite0, backend: {backend}}}
cameras:
"""
    for name in cameras:
        text += f"  - {{name: {name}, model: m, fps: {fps}, source: {{type: images, path: '{PHOTOS}', loop: true}}}}\n"
    return text + more


@pytest.fixture
def broker(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as broker:
        yield broker


@pytest.fixture
def config(tmp_path):
    return tmp_path / "edgevision.yaml"


def status(heard):
    return json.loads(heard.payload) if heard.topic == "edgevision/box1/status" else None


def is_status(**wanted):
    def check(heard):
        found = status(heard)
        return found is not None and all(words in str(found[key]) for key, words in wanted.items())

    return check


def test_ready_after_the_first_inference_fed_while_it_works_and_drained_at_the_end(tmp_path, broker, config):
    config.write_text(yaml(tmp_path, broker.port))
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config) as manager:
        manager.wait_told("READY=1")
        manager.wait_line("model is ready", timeout_s=1)
        manager.wait_told("WATCHDOG=1", 3)
        manager.wait_told("STATUS=online: running; 1 of 1 cameras live")
        listener.wait_for(lambda heard: heard.topic.endswith("/telemetry"))
        health = json.loads((tmp_path / "run" / "health.json").read_text())
        assert health["healthy"]
        assert manager.terminate() == 0
        manager.wait_told("STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000")
        listener.wait_for(is_status(state="offline", reason="SIGTERM"))
    results = [json.loads(heard.payload)["seq"] for heard in listener.heard if heard.topic.endswith("/results")]
    assert results == list(range(1, len(results) + 1)), "all that was seen arrived before the end"
    telemetry = json.loads(next(heard.payload for heard in listener.heard if heard.topic.endswith("/telemetry")))
    assert telemetry["clock_synchronised"] in {True, False, None}
    assert not (tmp_path / "run" / "health.json").exists()


def test_an_inference_that_hangs_ends_the_process_with_a_word_and_a_camera_that_is_away_does_not(
    tmp_path, broker, config
):
    environ = install_fragile_backend(tmp_path)
    away = "  - {name: away, model: m, source: {type: opencv, url: /dev/video97}}\n"
    config.write_text(
        yaml(tmp_path, broker.port, backend="fragile", more=away + "supervision: {inference_deadline_s: 1}\n")
    )
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config, **environ) as manager:
        manager.wait_told("1 of 2 cameras live")
        manager.wait_told("WATCHDOG=1", len([t for t in manager.told if t == "WATCHDOG=1"]) + 3)
        (tmp_path / "hang").touch()
        assert manager.process.wait(30) == 9
        manager.wait_told("STATUS=ends: model:m is stuck in inference")
        assert manager.told[-1] != "WATCHDOG=1"
        assert "part=model:m" in manager.wait_line("stuck: the process ends")
        listener.wait_for(is_status(state="offline", reason="model:m is stuck in inference"))


def test_a_publisher_that_hangs_ends_the_process(tmp_path, broker, config):
    environ = install_fragile_backend(tmp_path)
    more = "sinks: [{type: fragile}]\nsupervision: {publish_deadline_s: 1}\n"
    config.write_text(yaml(tmp_path, broker.port, more=more))
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config, **environ) as manager:
        assert manager.process.wait(60) == 9
        assert "part=sink:fragile-1" in manager.wait_line("stuck: the process ends")
        listener.wait_for(is_status(state="offline", reason="sink:fragile-1 is stuck in its first round"))


def test_a_bad_config_is_refused_and_told_and_a_good_one_changes_only_what_changed(tmp_path, broker, config):
    config.write_text(yaml(tmp_path, broker.port))
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config) as manager:
        manager.wait_told("1 of 1 cameras live")
        config.write_text(yaml(tmp_path, broker.port).replace("fps: 10", "fsp: 10"))
        manager.hang_up()
        manager.wait_told("READY=1", 2)
        assert "did you mean 'fps'?" in manager.wait_line("new config refused")
        assert "MONOTONIC_USEC=" in manager.wait_told("RELOADING=1")[0]
        listener.wait_for(is_status(state="online", reason="the new one was refused"))
        config.write_text(yaml(tmp_path, broker.port, cameras=("infeed", "outfeed")))
        manager.hang_up()
        manager.wait_told("READY=1", 3)
        listener.wait_for(is_status(state="online", reason="taken over: started cameras: outfeed"))
        listener.wait_for(lambda heard: heard.topic.endswith("outfeed/results"))
        config.write_text(yaml(tmp_path, broker.port, cameras=("outfeed",)))
        manager.hang_up()
        manager.wait_told("READY=1", 4)
        listener.wait_for(is_status(reason="ended cameras: infeed"))
        assert manager.terminate() == 0
    states = [json.loads(h.payload)["camera_state"] for h in listener.heard if h.topic.endswith("infeed/status")]
    assert states == ["starting", "live", "off"], "the camera that did not change was not touched"
    assert sum("model is ready" in line for line in manager.lines) == 1
    seqs = [json.loads(heard.payload)["seq"] for heard in listener.heard if heard.topic.endswith("infeed/results")]
    assert seqs == list(range(1, len(seqs) + 1))


def test_another_topic_or_model_that_cannot_be_loaded(tmp_path, broker, config):
    config.write_text(yaml(tmp_path, broker.port))
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config) as manager:
        manager.wait_told("1 of 1 cameras live")
        config.write_text(yaml(tmp_path, broker.port).replace("efficientnet-lite0", "yolox-nano"))
        manager.hang_up()
        manager.wait_line("new config refused")
        manager.wait_told("READY=1", 2)
        run = json.loads((tmp_path / "state" / "runs-box1.json").read_text())["runs"][-1]
        assert (run["end"], run["doing"]) == (None, ""), "the old one runs on, and its crash would be its own"
        listener.wait_for(is_status(state="online", reason="are not there"))
        config.write_text(yaml(tmp_path, broker.port).replace("backend: onnxrt", "backend: litert"))
        manager.hang_up()
        listener.wait_for(is_status(state="online", reason="restarted models: m"))
        manager.wait_told("1 of 1 cameras live", 2)
        config.write_text(yaml(tmp_path, broker.port).replace("device: box1", "device: box2"))
        manager.hang_up()
        listener.wait_for(lambda heard: heard.topic == "edgevision/box2/infeed/results")
        listener.wait_for(is_status(state="offline", reason="device changed"))
        assert manager.terminate() == 0


def test_after_three_crashes_it_starts_without_the_model_and_says_so(tmp_path, broker, config):
    environ = install_fragile_backend(tmp_path)
    text = yaml(tmp_path, broker.port, backend="fragile").replace(
        "cameras:", "  good: {model: efficientnet-lite0}\ncameras:"
    )
    text += f"  - {{name: other, model: good, fps: 10, source: {{type: images, path: '{PHOTOS}', loop: true}}}}\n"
    config.write_text(text)
    for _ in range(3):
        (tmp_path / "abort").unlink(missing_ok=True)
        with ServiceManager(tmp_path, config, **environ) as manager:
            manager.wait_told("READY=1")
            (tmp_path / "abort").touch()
            assert manager.process.wait(30) == -6
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config, **environ) as manager:
        manager.wait_told("READY=1")
        manager.wait_told("safe mode without model m")
        listener.wait_for(is_status(state="online", safe_mode="without model m"))
        listener.wait_for(lambda heard: heard.topic.endswith("other/results"))
        left_out = listener.wait_for(
            lambda heard: heard.topic.endswith("infeed/status") and b"safe mode" in heard.payload
        )
        assert json.loads(left_out.payload)["camera_state"] == "off"
        assert manager.terminate() == 0
    (tmp_path / "abort").unlink()
    config.write_text(text.replace("fps: 10", "fps: 11"))
    with ServiceManager(tmp_path, config, **environ) as manager:
        manager.wait_told("2 of 2 cameras live")


def test_a_broker_with_other_settings_is_connected_to_anew_and_a_failing_start_counts(tmp_path, broker, config):
    config.write_text(yaml(tmp_path, broker.port))
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config) as manager:
        manager.wait_told("1 of 1 cameras live")
        config.write_text(yaml(tmp_path, broker.port).replace("mqtt: {", "mqtt: {client_id: another, "))
        manager.hang_up()
        manager.wait_told("READY=1", 2)
        listener.wait_for(is_status(state="online", reason="reconnected: mqtt"))
        count = len([heard for heard in listener.heard if heard.topic.endswith("/results")])
        listener.wait_count(len(listener.heard) + 10)
        assert len([heard for heard in listener.heard if heard.topic.endswith("/results")]) > count
        assert manager.terminate() == 0
    config.write_text(yaml(tmp_path, broker.port).replace("efficientnet-lite0", "yolox-nano"))
    for _ in range(3):
        with ServiceManager(tmp_path, config) as manager:
            assert manager.process.wait(60) == 4
    with Listener(broker.port) as listener, ServiceManager(tmp_path, config) as manager:
        manager.wait_told("safe mode without model m")
        manager.wait_told("READY=1")
        listener.wait_for(is_status(state="online", safe_mode="without model m"))
        assert manager.terminate() == 0
