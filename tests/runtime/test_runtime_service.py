"""The daemon whole, with real models and real sources; the sink keeps what was published."""

import json
import threading
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest
from runtime_support import SteppingClock
from support_brokers import free_port

from edgevision import asyncapi, config, documents, messages
from edgevision.capture.images import read_image
from edgevision.errors import ConfigError, InferenceError, ModelError
from edgevision.publish import _spool_keeper
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options as MemoryOptions
from edgevision.publish.memory import create as create_memory
from edgevision.runtime.baseline import BaselineFile
from edgevision.runtime.crashes import SafeMode
from edgevision.runtime.service import Reload, Service

SCHEMAS = asyncapi.json_schemas()
PHOTOS = Path(config.__file__).parents[1] / "data" / "photos"


def camera(name="a", source=None, **more):
    return {"name": name, "source": source or {"type": "images", "path": str(PHOTOS)}, "model": "m", **more}


def make(cameras, **more):
    data = {
        "device": "box",
        "sinks": [{"type": "memory"}],
        "models": {"m": {"model": "efficientnet-lite0", "threads": 1}},
        "cameras": cameras,
        **more,
    }
    return config.from_document(documents.Document(file="t", data=data, lines={}), folder=Path(), environ={})


class Kept:
    """Everything that was published, each message checked against its schema."""

    def __init__(self, sink):
        self.messages = list(sink.messages)
        self.contents = []
        for message in self.messages:
            payload = message.payload
            reader: Any = {b"{": bytes, b"\xff": messages.read_jpeg_comment, b"\x89": messages.read_png_text}[
                payload[:1]
            ]
            content = json.loads(reader(payload))
            jsonschema.Draft202012Validator(SCHEMAS[content["schema"].split("/")[1]]).validate(content)
            self.contents.append((message.topic, content))

    def of(self, topic):
        return [content for at, content in self.contents if at == f"edgevision/box/{topic}"]


def run(settings, until=None):
    """Run until every source has ended, or `until(message)` is true."""
    sink = create_memory(MemoryOptions(), SinkContext(device="box"))
    service = Service(settings, extra_sinks={"kept": sink})
    stopping = threading.Event()
    service.start()
    waiter = threading.Thread(target=service.wait, args=(stopping,))
    waiter.start()
    if until is not None:
        assert sink.wait_for(until, timeout_s=30) is not None
        stopping.set()
    waiter.join(60)
    assert not waiter.is_alive()
    service.stop()
    return Kept(sink)


def test_every_picture_becomes_one_valid_result_and_the_house_closes_in_order():
    kept = run(make([camera()]))
    results = kept.of("a/results")
    assert len(results) == len(list(PHOTOS.glob("*.jpg")))
    assert [result["seq"] for result in results] == list(range(1, len(results) + 1))
    assert [result["frame"]["sequence"] for result in results] == list(range(len(results)))
    tops = {result["classifications"][0]["label"] for result in results}
    assert {"espresso", "Egyptian cat"} <= tops
    assert all(result["camera_state"] == "live" and result["frame"]["dropped"] == 0 for result in results)
    assert [status["camera_state"] for status in kept.of("a/status")] == ["starting", "live", "off"]
    assert [status["state"] for status in kept.of("status")] == ["starting", "online", "stopping", "offline"]
    online = kept.of("status")[1]["models"]["m"]
    assert (online["name"], online["backend"]) == ("efficientnet-lite0", "onnxrt")
    assert online["proof"]
    telemetry = kept.of("telemetry")[-1]["cameras"]["a"]
    assert (telemetry["captured"], telemetry["processed"], telemetry["failed"]) == (len(results), len(results), 0)
    assert telemetry["stages_ms"]["inference"]["p50"] > 0
    for topic in {topic for topic, _ in kept.contents}:
        seqs = [content["seq"] for at, content in kept.contents if at == topic]
        assert seqs == list(range(1, len(seqs) + 1))


def test_the_topics_and_flags_are_the_contract():
    kept = run(make([camera()]))
    flags = {(message.topic.removeprefix("edgevision/box/"), message.retain, message.qos) for message in kept.messages}
    assert flags == {("status", True, 1), ("a/status", True, 1), ("a/results", False, 0), ("telemetry", False, 0)}


def test_a_missing_camera_is_told_and_the_others_run_on():
    dead = camera("dead", {"type": "opencv", "url": "/dev/video97"})
    seen = []

    def enough(message):
        seen.append(message.topic)
        failed = message.topic.endswith("dead/status") and b'"failed"' in message.payload
        seen.append("failed") if failed else None
        return "failed" in seen and seen.count("edgevision/box/a/results") > 5

    kept = run(make([dead, camera(source={"type": "images", "path": str(PHOTOS), "loop": True}, fps=50)]), enough)
    failed = [status for status in kept.of("dead/status") if status["camera_state"] == "failed"]
    assert "/dev/video97" in failed[0]["reason"]
    assert not kept.of("dead/results")


def test_cameras_that_share_a_model_are_served_alike():
    cameras = [
        camera(f"c{n}", {"type": "synthetic", "width": 320, "height": 240, "pace": "max", "frames": 1_000_000})
        for n in range(4)
    ]

    def enough(message):
        return message.topic.endswith("/results") and json.loads(message.payload)["frame"]["sequence"] >= 60

    kept = run(make(cameras), enough)
    order = [message.topic for message in kept.messages if message.topic.endswith("/results")]
    begun = max(order.index(f"edgevision/box/c{n}/results") for n in range(4))  # threads start one after the other
    processed = [order[begun:].count(f"edgevision/box/c{n}/results") for n in range(4)]
    assert min(processed) / max(processed) >= 0.8


def test_a_model_that_cannot_be_loaded_ends_the_start_and_the_status_says_why(tmp_path, monkeypatch):
    folder = tmp_path / "broken"
    folder.mkdir()
    from edgevision.environment import shipped_models_dir

    source = shipped_models_dir() / "efficientnet-lite0"
    (folder / "model.yaml").write_text(
        (source / "model.yaml").read_text().replace("name: efficientnet-lite0", "name: broken")
    )
    (folder / "labels.txt").write_text((source / "labels.txt").read_text())
    (folder / "efficientnet-lite0-int8.onnx").write_bytes(b"altered")
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    settings = make([camera()], models={"m": {"model": "broken", "backend": "onnxrt"}})
    sink = create_memory(MemoryOptions(), SinkContext(device="box"))
    with pytest.raises(ModelError, match="truncated or altered"):
        Service(settings, extra_sinks={"kept": sink}).start()
    last = Kept(sink).of("status")[-1]
    assert last["state"] == "offline"
    assert "truncated or altered" in last["reason"]


def test_snapshots_are_pictures_with_their_truth_inside():
    snapshot = {"what": "frame", "when": "always", "interval_s": 0, "quality": 70, "max_width": 200, "draw": True}
    kept = run(make([camera(snapshot=snapshot)]))
    images = [message for message in kept.messages if message.content_type == "image/jpeg"]
    assert images
    for message in images:
        picture = cv2.imdecode(np.frombuffer(message.payload, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[1] <= 200
    telemetry = kept.of("telemetry")[-1]["cameras"]["a"]
    assert len(images) + telemetry["snapshots_dropped"] == telemetry["processed"]


def test_crops_are_the_boxes(shared, tmp_path, monkeypatch):
    from edgevision import assembly, model_store

    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    described = assembly.describe(shared / "models" / "yolox_nano.onnx", model_store.find("yolox-nano"), name="yx")
    model_store.add(described.manifest, described.content, labels_from=described.labels_from)
    one = camera(
        source={"type": "images", "path": str(shared / "images" / "cats_and_dogs.jpg")}, snapshot={"what": "crops"}
    )
    kept = run(make([one], models={"m": {"model": "yx", "class_confidence": {"teddy bear": 0.99}}}))
    (result,) = kept.of("a/results")
    crops = kept.of("a/image")
    assert [crop["label"] for crop in crops] == [item["label"] for item in result["detections"]] == ["cat"] * 3
    for crop, item in zip(crops, result["detections"], strict=True):
        assert crop["xyxy"] == pytest.approx(item["xyxy"], abs=1)


def test_a_model_that_looks_in_tiles_and_a_picture_that_makes_too_many(shared, tmp_path, monkeypatch):
    from edgevision import assembly, model_store

    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    described = assembly.describe(shared / "models" / "yolox_nano.onnx", model_store.find("yolox-nano"), name="yx")
    model_store.add(described.manifest, described.content, labels_from=described.labels_from)
    one = camera(source={"type": "images", "path": str(shared / "images" / "cats_and_dogs.jpg")})
    kept = run(make([one], models={"m": {"model": "yx", "tiling": {"size": [400, 400], "levels": 1}}}))
    (result,) = kept.of("a/results")
    assert "cat" in {item["label"] for item in result["detections"]}
    kept = run(make([one], models={"m": {"model": "yx", "tiling": {"size": [16, 16]}}}))
    assert kept.of("a/results") == []
    reasons = [status["reason"] for status in kept.of("a/status") if status["camera_state"] == "failed"]
    assert any("tiling.max_tiles is 256; give a larger tiling.size" in reason for reason in reasons)


@pytest.mark.parametrize("encoding", ["rle", "polygons", "none"])
def test_a_segmentation_goes_out_with_its_masks_and_as_a_picture(shared, tmp_path, monkeypatch, encoding):
    from edgevision import assembly, model_store

    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    file = shared / "models" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    described = assembly.describe(file, model_store.find("deeplabv3-mnv2-pascal-quant"), name="dl")
    described.model.close()
    model_store.add(described.manifest, described.content, labels_from=described.labels_from)
    one = camera(
        source={"type": "images", "path": str(shared / "images" / "bird_segmentation.bmp")},
        snapshot={"what": "mask"},
        masks={"encoding": encoding},
        rules=[{"type": "presence", "label": "bird", "share": 0.1, "frames": 1}],
    )
    kept = run(make([one], models={"m": {"model": "dl", "classes": ["bird"]}}))
    (result,) = kept.of("a/results")
    assert (result["task"], result["detections"], result["classifications"]) == ("segmentation", None, None)
    (bird,) = result["segments"]
    assert bird["label"] == "bird"
    assert (bird["rle"] is not None, bird["polygons"] is not None) == (encoding == "rle", encoding == "polygons")
    event, at_the_end = kept.of("a/events")
    assert at_the_end["kind"] == "unknown"
    assert (event["kind"], event["label"], event["confidence"]) == ("appeared", "bird", None)
    assert event["xyxy"] == bird["xyxy"]
    (picture,) = [message for message in kept.messages if message.content_type == "image/png"]
    (content,) = kept.of("a/image")
    assert (content["what"], content["xyxy"]) == ("mask", [0, 0, 513, 513])
    shown = np.asarray(cv2.imdecode(np.frombuffer(picture.payload, np.uint8), cv2.IMREAD_COLOR))
    assert int(shown.any(axis=2).sum()) == bird["pixels"]
    assert len(picture.payload) < 10_000


def test_events_of_rules_go_out_and_the_end_leaves_no_answer_standing():
    rule = {"type": "presence", "label": "espresso", "frames": 1}
    kept = run(make([camera(rules=[rule])]))
    events = kept.of("a/events")
    assert [event["kind"] for event in events] == ["disappeared", "appeared", "disappeared", "unknown"]
    assert events[1]["confidence"] > 0.8
    last = events[-1]
    assert (last["camera_state"], last["trusted"], last["reason"]) == ("off", False, "the source has ended")
    assert (last["frame"], last["captured_at"], last["model"]["name"]) == (None, None, "efficientnet-lite0")
    assert [event["seq"] for event in events] == [1, 2, 3, 4]


def test_a_camera_that_never_shows_anything_has_rules_without_an_answer():
    rules = [{"type": "presence", "label": "espresso", "name": name} for name in ("one", "two")]
    dead = camera("dead", {"type": "opencv", "url": "/dev/video97"}, rules=rules)
    kept = run(make([dead]), lambda message: message.topic.endswith("dead/events") and b'"two"' in message.payload)
    events = kept.of("dead/events")
    assert [(event["kind"], event["rule"], event["camera_state"]) for event in events] == [
        ("unknown", "one", "failed"), ("unknown", "two", "failed"),
    ]  # fmt: skip
    assert all("/dev/video97" in event["reason"] and event["frame"] is None for event in events)
    assert all(message.durable for message in kept.messages if message.topic.endswith("/events"))


def test_a_camera_that_safe_mode_leaves_out_has_rules_without_an_answer():
    rules = [{"type": "presence", "label": "espresso", "name": name} for name in ("one", "two")]
    sink = create_memory(MemoryOptions(), SinkContext(device="box"))
    left_out = SafeMode(parts=("camera:b",), reason="without camera b")
    service = Service(make([camera(), camera("b", rules=rules)]), extra_sinks={"kept": sink}, safe_mode=left_out)
    service.start()
    service.stop()
    kept = Kept(sink)
    assert [(status["camera_state"], status["reason"]) for status in kept.of("b/status")] == [
        ("off", "safe mode: without camera b")
    ]
    assert [(event["kind"], event["rule"], event["reason"], event["model"]) for event in kept.of("b/events")] == [
        ("unknown", name, "safe mode: without camera b", None) for name in ("one", "two")
    ]


def test_roi_rotation_and_flip_reach_the_result():
    one = camera(
        source={"type": "images", "path": str(PHOTOS / "coffee.jpg")},
        rotation=90,
        flip="horizontal",
        roi=[0, 0, 1, 0.5],
    )
    (result,) = run(make([one])).of("a/results")
    height, width = read_image(PHOTOS / "coffee.jpg").shape[:2]
    assert (result["frame"]["width"], result["frame"]["height"]) == (height, width)


def test_a_roi_outside_the_picture_is_a_failed_camera():
    one = camera(source={"type": "images", "path": str(PHOTOS / "coffee.jpg")}, roi=[5000, 5000, 6000, 6000])
    kept = run(make([one]), lambda message: b'"failed"' in message.payload)
    failed = next(status for status in kept.of("a/status") if status["camera_state"] == "failed")
    assert "roi" in failed["reason"]


def test_a_picture_that_cannot_be_read_does_not_end_the_camera(tmp_path):
    (tmp_path / "1.jpg").write_bytes((PHOTOS / "coffee.jpg").read_bytes())
    (tmp_path / "2.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "3.jpg").write_bytes((PHOTOS / "chelsea.jpg").read_bytes())
    kept = run(make([camera(source={"type": "images", "path": str(tmp_path)})]))
    assert len(kept.of("a/results")) == 2
    assert kept.of("telemetry")[-1]["cameras"]["a"]["unreadable"] == 1


def test_an_unused_model_is_said_and_not_loaded(caplog):
    models = {name: {"model": "efficientnet-lite0"} for name in ("m", "spare")}
    kept = run(make([camera()], models=models))
    assert list(kept.of("status")[1]["models"]) == ["m"]
    assert "used by no camera" in caplog.text


def test_a_config_without_cameras_is_a_fault():
    with pytest.raises(ConfigError):
        make([])


def test_a_model_that_fails_makes_its_cameras_failed_and_back_again(monkeypatch):
    settings = make([camera(source={"type": "images", "path": str(PHOTOS), "loop": True}, fps=100)])
    sink = create_memory(MemoryOptions(), SinkContext(device="box"))
    service = Service(settings, extra_sinks={"kept": sink})
    service.start()
    model = service._groups["m"].model
    whole = model.run
    failed: list[int] = []

    def failing(frame):
        if len(failed) < 5:
            failed.append(frame.sequence)
            raise InferenceError("the runtime failed")
        return whole(frame)

    monkeypatch.setattr(model, "run", failing)

    def looked_again(message):
        is_result = message.topic.endswith("a/results")
        return len(failed) == 5 and is_result and json.loads(message.payload)["frame"]["sequence"] > failed[-1]

    assert sink.wait_for(looked_again, timeout_s=30)
    service.stop()
    kept = Kept(sink)
    states = [status["camera_state"] for status in kept.of("a/status")]
    assert states == ["starting", "live", "failed", "live", "off"]
    assert kept.of("telemetry")[-1]["cameras"]["a"]["failed"] == 5
    assert {result["camera_state"] for result in kept.of("a/results")} == {"live"}


def test_a_watch_for_blur_that_is_off_is_an_alarm_until_it_is_on_again(tmp_path):
    state = tmp_path / "state"
    file = BaselineFile.of(state, "a").path
    file.parent.mkdir(parents=True)
    file.write_text("{")
    unwatched = BaselineFile.of(state, "b").path
    unwatched.parent.mkdir()
    unwatched.write_text("{")
    one = camera(source={"type": "synthetic", "live": True}, fps=10)
    files = camera("b", source={"type": "images", "path": str(PHOTOS), "loop": True}, fps=10)
    settings = make([one, files]).model_copy(update={"state_dir": state})
    told = []

    def until(message):
        if message.topic != "edgevision/box/status":
            return False
        content = json.loads(message.payload)
        if content["alarms"]:
            told.append(content)
            file.unlink(missing_ok=True)
        return bool(told) and content["alarms"] == [] and content["seq"] > told[0]["seq"]

    run(settings, until)
    assert told[0]["alarms"] == [f"camera a: blurred is off: {file}: is damaged; delete it, and a new baseline is made"]


def test_a_disk_that_fails_is_an_alarm_on_the_device_status_and_its_return_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(_spool_keeper, "RETRY_S", 0.1)
    state = tmp_path / "state"
    state.write_text("a file, where a folder should be")
    settings = make(
        [camera(source={"type": "images", "path": str(PHOTOS), "loop": True}, fps=10)],
        mqtt={"host": "127.0.0.1", "port": free_port()},
        sinks=[],
    ).model_copy(update={"state_dir": state})
    told = []

    def until(message):
        if message.topic != "edgevision/box/status":
            return False
        content = json.loads(message.payload)
        if content["alarms"]:
            told.append(content)
            if state.is_file():
                state.unlink()
        return bool(told) and content["alarms"] == [] and content["seq"] > told[0]["seq"]

    kept = run(settings, until)
    assert "cannot write the journal" in told[0]["alarms"][0]
    assert kept.of("status")[-1]["alarms"] == []
    spool = kept.of("telemetry")[-1]["sinks"]["mqtt"]["spool"]
    assert (spool["state"], spool["set_aside"], spool["drops"]) == ("journal", 0, {})


def test_a_reload_counts_on_and_takes_the_old_answers_back():
    photo = {"type": "images", "path": str(PHOTOS / "coffee.jpg"), "loop": True}
    rules = [{"type": "presence", "label": "espresso", "frames": 1}]

    def settings(fps):
        return make([camera(source=photo, fps=fps, rules=rules, snapshot={"interval_s": 0})])

    sink = create_memory(MemoryOptions(keep=100_000), SinkContext(device="box"))
    service = Service(settings(100), extra_sinks={"kept": sink})
    stopping, asked = threading.Event(), threading.Event()
    service.start()
    reload = Reload(requested=asked, load=lambda: (settings(90), SafeMode()))
    waiter = threading.Thread(target=service.wait, args=(stopping,), kwargs={"reload": reload})
    waiter.start()

    def seen(count):
        def check(message):
            return message.topic.endswith("a/results") and json.loads(message.payload)["seq"] >= count

        return check

    try:
        assert sink.wait_for(seen(30), timeout_s=30)
        service.send_telemetry()
        asked.set()
        assert sink.wait_for(lambda message: b"taken over: started cameras: a" in message.payload, timeout_s=30)
        so_far = sum(message.topic.endswith("a/results") for message in sink.messages)
        assert sink.wait_for(seen(so_far + 20), timeout_s=30)
    finally:
        stopping.set()
        waiter.join(30)
        service.stop()
    kept = Kept(sink)
    sequences = [result["frame"]["sequence"] for result in kept.of("a/results")]
    assert sequences == sorted(set(sequences))
    told = [telemetry["cameras"]["a"] for telemetry in kept.of("telemetry")]
    assert len(told) >= 2
    for key in ("captured", "processed", "dropped", "unreadable", "failed", "restarts", "snapshots_dropped"):
        assert [counts[key] for counts in told] == sorted(counts[key] for counts in told), key
    assert told[-1]["processed"] == len(sequences)
    events = [(event["kind"], event["camera_state"]) for event in kept.of("a/events")]
    assert events == [("appeared", "live"), ("unknown", "off")] * 2


def test_unused_pages_go_back_twice_a_minute(monkeypatch):
    times: list[int] = []
    clock = SteppingClock(last_s=100)
    monkeypatch.setattr("edgevision.runtime.service.give_pages_back", lambda: times.append(clock.now_s))
    service = Service(make([camera()]), clock=clock)
    service.wait(threading.Event())
    assert times == [30, 60, 90]
