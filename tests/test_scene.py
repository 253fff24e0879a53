"""Rules and trust: what a camera did not see is unknown, and never an answer."""

from dataclasses import replace

import numpy as np

from edgevision.events import presence
from edgevision.events.base import RuleContext
from edgevision.pipeline import Scene
from edgevision.types import UNSEEN, Classifications, Frame, Segmentation

FRAME = Frame(image=np.zeros((2, 2, 3), np.uint8), camera="a", sequence=0, captured_at_ns=5, captured_mono_ns=0)


def predictions(*, there):
    ids = np.array([0 if there else 1], np.int32)
    return Classifications(confidence=np.ones(1, np.float32), class_id=ids, labels=("cup", "plate"))


def play(*steps, frames=2):
    rule = presence.create(
        presence.Options(label="cup", frames=frames), RuleContext(camera="a", name="r", labels=("cup", "plate"))
    )
    scene = Scene({"r": rule})
    told = []
    for there, given in steps:
        told += [event.kind for event in scene.update(FRAME, predictions(there=there), **given)]
    return told


SEEN: dict[str, bool] = {}
DOUBTED = {"trusted": False}
BLIND = {"seen": False, "trusted": False}


def test_a_frame_in_doubt_is_not_shown_to_a_rule_and_makes_no_unknown():
    assert play((True, SEEN), (True, SEEN), *[(False, DOUBTED)] * 9, (True, SEEN)) == ["appeared"]


def test_a_blind_camera_makes_one_unknown_and_the_answer_is_told_anew():
    there, gone = [(True, SEEN)] * 2, [(False, SEEN)] * 2
    blind = [(False, DOUBTED), *[(False, BLIND)] * 5, (False, DOUBTED)]
    assert play(*there, *blind, *there) == ["appeared", "unknown", "appeared"]
    assert play(*there, *blind, *gone) == ["appeared", "unknown", "disappeared"]
    assert play(*there, *blind, *gone, *blind, *gone) == [
        "appeared", "unknown", "disappeared", "unknown", "disappeared",
    ]  # fmt: skip


def test_after_a_time_out_of_sight_rules_begin_anew():
    again = {"sight": 1}
    assert play((True, SEEN), (True, SEEN), (True, again), (True, again)) == ["appeared", "unknown", "appeared"]


def test_after_blindness_an_answer_that_wavers_is_none():
    wavering = [(number % 2 == 0, SEEN) for number in range(10)]
    assert play((False, BLIND), *wavering) == ["unknown"]


def test_presence_among_several_labels():
    ids = np.array([1, 0], np.int32)
    one = Classifications(confidence=np.array([0.9, 0.8], np.float32), class_id=ids, labels=("cup", "plate"))
    rule = presence.create(
        presence.Options(label="cup", frames=1), RuleContext(camera="a", name="r", labels=("cup", "plate"))
    )
    assert rule.update(FRAME, one) == ()
    (event,) = rule.update(FRAME, replace(one, multi_label=True))
    assert event.kind == "appeared"
    assert event.confidence == np.float32(0.8)


def test_presence_in_a_segmentation_is_a_share_of_what_was_looked_at():
    class_map = np.full((10, 10), UNSEEN, np.uint8)
    class_map[:5] = 1
    class_map[1, 2:7] = 0  # 5 of 50 pixels
    found = Segmentation(class_map=class_map, labels=("cup", "plate"))

    def events(share):
        options = presence.Options(label="cup", frames=1, share=share)
        rule = presence.create(options, RuleContext(camera="a", name="r", labels=("cup", "plate")))
        return rule.update(FRAME, found)

    (event,) = events(0.1)
    assert (event.kind, event.confidence, event.box) == ("appeared", None, (2, 1, 7, 2))
    assert events(0.11) == ()
