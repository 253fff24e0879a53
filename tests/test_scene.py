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


class Watched:
    """A scene with one rule, played by frames and losses of sight."""

    def __init__(self, frames=2):
        rule = presence.create(
            presence.Options(label="cup", frames=frames), RuleContext(camera="a", name="r", labels=("cup", "plate"))
        )
        self.scene = Scene({"r": rule}, camera="a")
        self.told = []
        self.spell = 0

    def show(self, *seen, trusted=True, spell=None):
        for there in seen:
            events = self.scene.update(
                FRAME, predictions(there=there), trusted=trusted, spell=self.spell if spell is None else spell
            )
            self.told += [event.kind for event in events]
        return self

    def lose(self, reason="no frame for 5 s"):
        self.spell += 1
        events = self.scene.lose(spell=self.spell, at_ns=7, reason=reason)
        assert {(event.camera, event.rule, event.reason, event.occurred_at_ns) for event in events} <= {
            ("a", "r", reason, 7)
        }
        self.told += [event.kind for event in events]
        return self


def test_the_first_answer_is_told_whichever_it_is():
    assert Watched().show(True, True, True).told == ["appeared"]
    assert Watched().show(False, False, False).told == ["disappeared"], "what an earlier run said may no longer hold"


def test_a_frame_in_doubt_is_not_shown_to_a_rule_and_makes_no_unknown():
    assert Watched().show(True, True).show(*[False] * 9, trusted=False).show(True).told == ["appeared"]


def test_the_loss_of_sight_is_told_at_once_and_once_and_the_answer_anew_afterwards():
    watched = Watched().show(True, True).lose()
    assert watched.told == ["appeared", "unknown"], "without any frame"
    watched.lose("failed as well").show(False, False, False, trusted=False)
    assert watched.told == ["appeared", "unknown"]
    assert watched.show(True, True).told[2:] == ["appeared"]
    assert watched.lose().show(False, False).lose().show(False, False).told[3:] == [
        "unknown", "disappeared", "unknown", "disappeared",
    ]  # fmt: skip


def test_frames_that_were_taken_before_the_loss_and_come_late_make_no_answer():
    watched = Watched(frames=1).show(True).lose().show(False, True, spell=0)
    assert watched.told == ["appeared", "unknown"]
    assert watched.lose().told == ["appeared", "unknown"], "it is still unknown, which has been told"
    assert watched.show(True).told == ["appeared", "unknown", "appeared"]


def test_an_answer_that_wavers_is_none():
    assert Watched().lose().show(*[number % 2 == 0 for number in range(10)]).told == ["unknown"]


def test_a_camera_that_never_gave_a_frame_has_no_answer_and_says_so():
    assert Watched().lose("no such device").told == ["unknown"]


def test_presence_among_several_labels():
    ids = np.array([1, 0], np.int32)
    one = Classifications(confidence=np.array([0.9, 0.8], np.float32), class_id=ids, labels=("cup", "plate"))
    rule = presence.create(
        presence.Options(label="cup", frames=1), RuleContext(camera="a", name="r", labels=("cup", "plate"))
    )
    assert [event.kind for event in rule.update(FRAME, one)] == ["disappeared"]
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
    assert [event.kind for event in events(0.11)] == ["disappeared"]
