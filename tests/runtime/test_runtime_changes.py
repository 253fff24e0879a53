from pathlib import Path

from edgevision import config, documents
from edgevision.runtime.changes import compare


def make(cameras=(("a", "m", 5), ("b", "m", 5), ("c", "n", 5)), threads=1, **more):
    data = {
        "device": "box",
        "sinks": [{"type": "memory"}],
        "models": {"m": {"model": "efficientnet-lite0", "threads": threads}, "n": {"model": "efficientnet-lite0"}},
        "cameras": [
            {"name": name, "model": model, "fps": fps, "source": {"type": "synthetic"}} for name, model, fps in cameras
        ],
        **more,
    }
    return config.from_document(documents.Document(file="t", data=data, lines={}), folder=Path(), environ={})


def test_the_same_config_changes_nothing_and_neither_does_what_is_no_part():
    assert compare(make(), make()).empty
    assert str(compare(make(), make(logging={"level": "debug"}))) == "no part changed"


def test_a_changed_camera_restarts_alone():
    changes = compare(make(), make(cameras=(("a", "m", 9), ("b", "m", 5), ("d", "n", 5))))
    assert (changes.cameras, changes.gone_cameras) == (frozenset({"a", "d"}), frozenset({"a", "c"}))
    assert not changes.models
    assert not changes.identity
    assert str(changes) == "started cameras: a, d; ended cameras: c"


def test_a_camera_that_moves_to_another_model_leaves_the_old_one():
    changes = compare(make(), make(cameras=(("a", "n", 5), ("b", "m", 5), ("c", "n", 5))))
    assert (changes.cameras, changes.gone_cameras, changes.models) == (frozenset({"a"}), frozenset({"a"}), frozenset())


def test_a_changed_model_takes_its_cameras_along_and_one_without_cameras_ends():
    changes = compare(make(), make(threads=2))
    assert (changes.models, changes.cameras, changes.gone_cameras) == (frozenset({"m"}), frozenset(), frozenset())
    changes = compare(make(), make(cameras=(("a", "m", 5), ("b", "m", 5))))
    assert (changes.gone_models, changes.gone_cameras) == (frozenset({"n"}), frozenset())


def test_what_is_in_every_topic_restarts_everything():
    mqtt = {"host": "h", "topic": "one"}
    assert compare(make(), make(device="other")).identity == ("device",)
    assert compare(make(mqtt=mqtt), make(mqtt={**mqtt, "topic": "two"})).identity == ("mqtt.topic",)
    changes = compare(make(mqtt=mqtt), make(mqtt={**mqtt, "host": "g"}))
    assert (changes.mqtt, changes.sinks, changes.identity) == (True, False, ())
    assert compare(make(), make(sinks=[{"type": "memory", "keep": 5}])).sinks


def test_a_model_that_was_replaced_in_its_folder_restarts():
    assert compare(make(), make(), replaced={"n"}).models == {"n"}


def test_what_only_a_start_takes_is_said():
    supervision = {"inference_deadline_s": 5, "stop_deadline_s": 7}
    changes = compare(make(), make(supervision=supervision))
    assert str(changes) == "no part changed; from the next start on: supervision.inference_deadline_s"
    assert str(compare(make(), make(threads=2, supervision={"safe_mode_after": 9}))) == (
        "restarted models: m; from the next start on: supervision.safe_mode_after"
    )
