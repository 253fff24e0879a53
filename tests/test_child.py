"""A function in a process of its own: what comes back, and how each way of not coming back is told."""

import pytest

from edgevision import child
from edgevision.child import ChildGoneError
from edgevision.errors import ModelError


def call(name, job=None, **settings):
    return child.call(f"child_support:{name}", job or {}, **({"deadline_s": 60} | settings))


def test_a_job_and_bytes_go_in_and_an_answer_comes_out():
    assert call("answer", {"a": [1, None]}) == {"job": {"a": [1, None]}, "bytes": 0, "last": ""}
    content = bytes(5_000_000) + b"end"
    assert call("answer", content=content) == {"job": {}, "bytes": len(content), "last": "end"}


def test_an_error_of_ours_comes_out_as_itself():
    with pytest.raises(ModelError, match=r"^model 'm': refused$"):
        call("refuse")
    with pytest.raises(ModelError):  # one whose making needs more than a text
        call("refuse", {"document": True})


@pytest.mark.parametrize(
    ("name", "settings", "how", "words"),
    [
        ("crash", {}, "signal", "crashed with SIGSEGV"),
        ("hang", {"deadline_s": 2}, "deadline", "gave no answer within 2 s and was killed"),
        ("eat", {"memory_bytes": 700 << 20}, "memory", "needs more than the 700 MiB that it may have"),
        ("fail", {}, "status", "ended with status 1: KeyError: 'a bug'"),
        ("leave", {}, "status", "ended with status 3"),
    ],
)
def test_no_answer_is_told_by_its_kind(name, settings, how, words):
    with pytest.raises(ChildGoneError) as caught:
        call(name, **settings)
    assert caught.value.how == how
    assert words in str(caught.value)
    assert child._left_behind == []
