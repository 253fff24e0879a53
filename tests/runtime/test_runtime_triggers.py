"""A triggered camera in the whole daemon: a reader process, a real model, a real broker, results and telemetry."""

import json

import pytest
from support_brokers import Listener, Mosquitto, publisher

from edgevision import config, documents
from edgevision.runtime.service import Service


@pytest.fixture
def broker(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as running:
        yield running


def test_each_trigger_is_a_result_with_its_id_and_the_rest_is_quiet(broker, tmp_path):
    data = {
        "device": "box",
        "state_dir": str(tmp_path / "state"),
        "mqtt": {"host": broker.host, "port": broker.port, "topic": "plant", "telemetry": {"interval_s": 1}},
        "models": {"m": {"model": "efficientnet-lite0", "threads": 1}},
        "cameras": [
            {
                "name": "a",
                "model": "m",
                "source": {"type": "synthetic", "live": True, "width": 64, "height": 48},
                "trigger": {"topic": "plant/trigger", "deadline_s": 5},
                "stall_after_s": 1,
            }
        ],
    }
    document = documents.Document(file="t", data=data, lines={})
    service = Service(config.from_document(document, folder=tmp_path, environ={}))

    def of(kind):
        return [json.loads(heard.payload) for heard in listener.heard if heard.topic == f"plant/box/{kind}"]

    with Listener(broker.port, "plant/#") as listener, publisher(broker.port) as publish:
        service.start()
        try:
            listener.wait_for(lambda heard: b"no picture is due" in heard.payload)
            for number in range(4):
                publish("plant/trigger", b'{"id": "part-%d"}' % number)
                wanted = b'"origin":"part-%d"' % number
                listener.wait_for(lambda heard, wanted=wanted: wanted in heard.payload)  # type: ignore[misc]
            service.send_telemetry()
            listener.wait_for(lambda heard: b'"triggers":{"received":4,"served":4,"missed":0' in heard.payload)
        finally:
            service.stop()
        listener.wait_for(
            lambda heard: heard.topic == "plant/box/a/status" and b'"camera_state":"off"' in heard.payload
        )
    results = of("a/results")
    assert [found["frame"]["origin"] for found in results] == [f"part-{number}" for number in range(4)]
    assert [found["frame"]["sequence"] for found in results] == [0, 1, 2, 3]
    assert all(found["trusted"] for found in results)
    told = [(found["camera_state"], found["reason"]) for found in of("a/status")]
    assert told[1:3] == [("live", "the source is watched; no picture is due"), ("live", "frames arrive")]
    assert [state for state, _ in told] == ["starting", "live", "live", "off"]
