import base64
import json
import re
import threading
import warnings

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevision import asyncapi, messages
from edgevision.messages import Composer, Deliveries, Delivery, ModelRef
from edgevision.messages.masks import mask_items
from edgevision.types import Classifications, Detections, Embedding, Event, Frame, Mask, Segmentation, StageTimes

SCHEMAS = asyncapi.json_schemas()
MODEL = ModelRef(name="m", version="1", sha256="0" * 64)


class FixedClock:
    def time_ns(self):
        return 1_700_000_000_123_456_789

    def monotonic_ns(self):
        return 5_000_000_000

    def wait(self, event, seconds):
        raise AssertionError("nothing waits here")


def composer(**settings):
    return Composer(
        topic="acme/line3", device="box1", version="0.1.0", clock=FixedClock(), boot_id="ab" * 16, **settings
    )


def frame(**changes):
    values = {"image": np.zeros((480, 640, 3), np.uint8), "camera": "infeed", "sequence": 7}
    return Frame(
        **{**values, "captured_at_ns": 1_700_000_000_000_000_000, "captured_mono_ns": 4_990_000_000, **changes}
    )


def detections(rows):
    array = np.array(rows, np.float32).reshape(-1, 5)
    ids = np.arange(len(array), dtype=np.int32)
    return Detections(xyxy=array[:, :4], confidence=array[:, 4], class_id=ids, labels=("cup", "plate"))


def mask_of(pixels, *, left, top, frame_size=(640, 480)):
    return Mask(pixels=np.asarray(pixels, np.bool_), left=left, top=top, frame_size=frame_size)


def painted(mask):
    """A mask in the whole frame, (H, W)."""
    width, height = mask.frame_size
    canvas = np.zeros((height, width), np.uint8)
    h, w = mask.pixels.shape
    canvas[mask.top : mask.top + h, mask.left : mask.left + w] = mask.pixels
    return canvas


def decode(item):
    """A mask of the contract as (h, w), read by pycocotools, which warns of its own ways with numpy 2."""
    coco = pytest.importorskip("pycocotools.mask")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return coco.decode({"size": list(item.size), "counts": item.counts})


def check(message):
    content = json.loads(message.payload)
    kind = content["schema"].split("/")[1]
    jsonschema.Draft202012Validator(SCHEMAS[kind]).validate(content)
    assert set(messages.Envelope.model_json_schema(by_alias=True)["properties"]) <= set(content)
    return content


box = st.floats(0, 4000, width=32)
row = st.tuples(box, box, box, box, st.floats(0, 1, width=32))


@given(
    st.lists(row, max_size=20), st.text(min_size=1, max_size=20), st.integers(0, 2**62), st.booleans(), st.booleans(),
    st.booleans(), st.booleans(), st.none() | st.text(max_size=40),
)  # fmt: skip
@settings(max_examples=50)
def test_every_result_is_what_the_contract_says(rows, label, nanoseconds, classify, track, outlined, pointed, origin):
    found = detections(rows)
    if classify:
        found = Classifications(confidence=found.confidence, class_id=found.class_id, labels=(label,))
    else:
        ids = np.arange(len(rows), dtype=np.int64) * 2**40 if track else None
        rng = np.random.default_rng(len(rows))
        masks = [mask_of(rng.random((5, 4)) < 0.5, left=9 * i, top=3) if i % 4 else None for i in range(len(rows))]
        points = rng.random((len(rows), 3, 3)).astype(np.float32)
        found = Detections(
            xyxy=found.xyxy, confidence=found.confidence, class_id=found.class_id, labels=(label,), track_id=ids,
            masks=tuple(masks) if outlined else None, keypoints=points if pointed else None,
        )  # fmt: skip
    times = StageTimes(preprocess_ns=nanoseconds, decode_ns=nanoseconds // 7)
    content = check(composer().result(frame(origin=origin), found, times, model=MODEL, state="live", dropped=0))
    payload = messages.ResultPayload(
        device="box1",
        camera="infeed",
        boot_id="ab" * 16,
        seq=1,
        captured_at="2023-11-14T22:13:20.000000Z",
        published_at="2023-11-14T22:13:20.123456Z",
        camera_state="live",
        model=MODEL,
        frame={"width": 640, "height": 480, "sequence": 7, "dropped": 0, "origin": origin},
        latency_ms={
            "waiting": 0,
            "preprocess": round(nanoseconds / 1e6, 3),
            "inference": 0,
            "decode": round(nanoseconds // 7 / 1e6, 3),
            "events": 0,
            "total": 10,
        },
        trusted=True,
        task="classification" if classify else "detection",
        **{"classifications" if classify else "detections": messages.prediction_items(found)},
    )
    assert content == json.loads(payload.model_dump_json())


def test_a_result_says_where_when_and_how_long():
    times = StageTimes(capture_to_start_ns=1_500_000, inference_ns=8_123_456)
    message = composer().result(frame(), detections([]), times, model=MODEL, state="stalled", dropped=3)
    content = check(message)
    assert message.topic == "acme/line3/box1/infeed/results"
    assert content["detections"] == []
    assert content["camera_state"] == "stalled"
    assert content["captured_at"] == "2023-11-14T22:13:20.000000Z"
    assert content["published_at"] == "2023-11-14T22:13:20.123456Z"
    assert content["frame"] == {"width": 640, "height": 480, "sequence": 7, "dropped": 3, "origin": None}
    assert content["latency_ms"]["inference"] == 8.123
    assert content["latency_ms"]["total"] == 10.0
    assert content["historical"] is False


def test_a_model_of_another_version_with_the_same_weights_is_told_as_what_it_is():
    maker = composer()
    for version in ("1", "2"):
        model = MODEL.model_copy(update={"version": version})
        message = maker.result(frame(), detections([]), StageTimes(), model=model, state="live", dropped=0)
        assert json.loads(message.payload)["model"]["version"] == version


def test_seq_counts_per_topic_from_one_and_the_will_stands_outside():
    maker = composer()
    status = lambda **more: maker.device_status(state="online", since_ns=0, reason="", **more)  # noqa: E731
    assert [check(status())["seq"] for _ in range(3)] == [1, 2, 3]
    assert check(status(will=True))["seq"] == 0
    assert check(status())["seq"] == 4
    camera = maker.camera_status("infeed", state="live", since_ns=0, reason="frames arrive")
    assert check(camera)["seq"] == 1
    assert (camera.topic, camera.retain) == ("acme/line3/box1/infeed/status", True)


def test_seq_has_no_gap_and_no_double_from_many_threads():
    maker = composer()
    found: list[int] = []

    def make():
        made = [maker.camera_status("a", state="live", since_ns=0, reason="") for _ in range(200)]
        found.extend(json.loads(message.payload)["seq"] for message in made)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 801))


def test_classification_event_status_and_image_fit_their_schemas():
    maker = composer(deliveries=Deliveries(results=Delivery(qos=1, durable=True, expires_s=5)))
    found = Classifications(
        confidence=np.array([0.9, 0.1], np.float32), class_id=np.array([1, 7], np.int32), labels=("cup", "plate")
    )
    message = maker.result(frame(), found, StageTimes(), model=MODEL, state="live", dropped=0)
    assert [item["label"] for item in check(message)["classifications"]] == ["plate", "class 7"]
    assert (message.qos, message.durable, message.expires_s) == (1, True, 5)
    event = Event(
        kind="appeared", camera="infeed", rule="r", occurred_at_ns=5, label="cup", confidence=0.5, box=(1, 2, 3, 4)
    )
    assert check(maker.event(event, frame(), model=MODEL, state="live", dropped=0))["xyxy"] == [1, 2, 3, 4]
    jpeg = b"\xff\xd8\xff\xd9"
    image = maker.image(
        jpeg, frame(), state="live", dropped=0, what="crop", xyxy=(1, 2, 3, 4), label="cup", confidence=0.5
    )
    assert image.content_type == "image/jpeg"
    content = json.loads(messages.read_jpeg_comment(image.payload))
    jsonschema.validate(content, SCHEMAS["image"])
    assert content["xyxy"] == [1, 2, 3, 4]


@given(st.integers(0, 2**32 - 1), st.text(min_size=1, max_size=9))
@settings(max_examples=20)
def test_a_segmentation_is_what_the_contract_says(seed, label):
    class_map = np.random.default_rng(seed).integers(0, 4, (12, 20)).astype(np.uint8).repeat(3, 0)
    found = Segmentation(class_map=class_map, background=0, labels=("", label))
    content = check(composer().result(frame(), found, StageTimes(), model=MODEL, state="live", dropped=0))
    assert content["task"] == "segmentation"
    assert content["segments"] == [item.model_dump(mode="json") for item in messages.prediction_items(found)]
    assert {item["label"] for item in content["segments"]} == {label, "class 2", "class 3"}
    none = Segmentation(class_map=np.zeros((2, 2), np.uint8), background=0)
    assert check(composer().result(frame(), none, StageTimes(), model=MODEL, state="live", dropped=0))["segments"] == []


@given(st.lists(st.floats(-(2**99), 2**99, width=32), min_size=1, max_size=40), st.booleans())
@settings(max_examples=20)
def test_an_embedding_comes_back_as_it_was(numbers, normalised):
    found = Embedding(vector=np.array(numbers, np.float32), normalised=normalised)
    content = check(composer().result(frame(), found, StageTimes(), model=MODEL, state="live", dropped=0))
    assert (content["task"], content["segments"], content["detections"]) == ("embedding", None, None)
    item = content["embedding"]
    assert (item["size"], item["normalised"]) == (len(numbers), normalised)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(item["float32"]), "<f4"), found.vector)
    assert messages.prediction_items(found)[0].model_dump() == item


def test_a_mask_carries_its_truth():
    png = messages.class_map_png(np.zeros((4, 6), np.uint8), [(0, 0, 0)] * 256)
    message = composer().image(png, frame(), state="live", dropped=0, what="mask", xyxy=(0, 0, 6, 4))
    assert message.content_type == "image/png"
    content = json.loads(messages.read_png_text(message.payload))
    jsonschema.Draft202012Validator(SCHEMAS["image"]).validate(content)
    assert content["what"] == "mask"


def test_a_real_jpeg_is_the_same_picture_with_its_comment():
    import cv2

    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    commented = messages.add_jpeg_comment(jpeg, b'{"a": 1}')
    decode = lambda data: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # noqa: E731
    assert np.array_equal(np.asarray(decode(commented)), np.asarray(decode(jpeg)))
    assert messages.read_jpeg_comment(commented) == b'{"a": 1}'
    with pytest.raises(ValueError, match="does not begin with a comment"):
        messages.read_jpeg_comment(jpeg)
    with pytest.raises(ValueError, match="at most"):
        messages.add_jpeg_comment(jpeg, b"x" * 65534)


def test_mark_historical_changes_that_alone():
    message = composer().result(
        frame(), detections([(1, 2, 3, 4, 0.5)]), StageTimes(), model=MODEL, state="live", dropped=0
    )
    before, after = json.loads(message.payload), json.loads(messages.mark_historical(message.payload))
    assert after == {**before, "historical": True}
    for payload in (b"[]", b'{"a": 1}'):
        with pytest.raises(ValueError, match="edgevision contract"):
            messages.mark_historical(payload)


@given(st.integers(0, 4_102_444_800_000_000_000))
def test_timestamps_are_rfc3339_and_exact_to_the_microsecond(time_ns):
    from datetime import datetime, timedelta, timezone

    text = messages.timestamp(time_ns)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) / timedelta(microseconds=1) == time_ns // 1000


def test_the_asyncapi_document_holds_every_payload():
    document = asyncapi.document()
    assert document["asyncapi"] == "3.0.0"
    names = {message["name"] for message in document["components"]["messages"].values()}
    assert names == {f"edgevision/{kind}/1" for kind in messages.PAYLOADS}
    for channel in document["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == set(channel["parameters"])


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 12), st.integers(0, 12)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_a_mask_is_what_pycocotools_reads(seed, filled, place, beside):
    coco = pytest.importorskip("pycocotools.mask")
    left, top, w, h = place
    rng = np.random.default_rng(seed)
    size = (max(1, left + w + beside[0]), max(1, top + h + beside[1]))
    mask = mask_of(rng.random((h, w)) < filled, left=left, top=top, frame_size=size)
    (item,) = mask_items([mask])
    assert item is not None
    np.testing.assert_array_equal(decode(item), painted(mask))
    assert item.counts == coco.encode(np.asfortranarray(painted(mask)))["counts"].decode()


def test_masks_get_coarser_until_they_fit_and_are_null_where_nothing_helps():
    rng = np.random.default_rng(0)
    noise = mask_of(rng.random((301, 203)) < 0.5, left=7, top=5, frame_size=(640, 481))
    square = mask_of(np.ones((50, 50)), left=100, top=100, frame_size=(640, 481))
    for most, step in ((100_000, 1), (20_000, 2), (6_000, 4), (1_500, 8)):
        items = mask_items([noise, None, square], max_bytes=most)
        assert items[1] is None
        assert sum(len(item.counts) for item in items if item) <= most
        for item, mask in ((items[0], noise), (items[2], square)):
            assert item is not None
            assert item.size == (-(-481 // step), -(-640 // step))
            read = decode(item)
            np.testing.assert_array_equal(read, painted(mask)[::step, ::step])
    dot = mask_of([[1]], left=101, top=100, frame_size=(640, 481))
    items = mask_items([noise, dot], max_bytes=6_000)
    assert items[0] is not None
    assert items[1] is None  # it is there, which an empty mask would deny
    assert mask_items([noise, square], max_bytes=0) == [None, None]


def test_a_result_with_a_hundred_noisy_masks_stays_small():
    rng = np.random.default_rng(0)
    masks = tuple(mask_of(rng.random((400, 600)) < 0.5, left=10, top=10) for _ in range(100))
    found = Detections(
        xyxy=np.tile(np.array([10, 10, 610, 410], np.float32), (100, 1)), confidence=np.ones(100, np.float32),
        class_id=np.zeros(100, np.int32), masks=masks,
    )  # fmt: skip
    message = composer().result(frame(), found, StageTimes(), model=MODEL, state="live", dropped=0)
    assert len(message.payload) < 65536 * 1.6  # masks and all else; a backslash counts twice
    assert all(item["mask"]["size"] < [480, 640] for item in check(message)["detections"])
