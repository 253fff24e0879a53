"""Finished candidates are found again, and nothing else is taken for one."""

import resource
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision.errors import StateError
from edgevision.host.quantize.store import Store, tool_versions


def test_a_candidate_is_found_by_all_that_it_follows_from(tmp_path):
    store = Store(tmp_path, {"source": "a"})
    store.put({"recipe": "one"}, b"content")
    assert Store(tmp_path, {"source": "a"}).get({"recipe": "one"}) == b"content"
    assert store.get({"recipe": "two"}) is None
    assert Store(tmp_path, {"source": "b"}).get({"recipe": "one"}) is None


@given(cut=st.integers(0, 6))
def test_a_file_that_is_not_whole_is_made_again(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder, {})
    store.put({}, b"content")
    (file,) = folder.glob("*.model")
    file.write_bytes(b"content"[:cut])
    assert store.get({}) is None


def test_a_note_that_is_no_note_is_no_candidate(tmp_path):
    store = Store(tmp_path, {})
    store.put({}, b"content")
    (note,) = tmp_path.glob("*.json")
    for text in ("", "[]", '{"sha256": 1}', "\x00"):
        note.write_text(text)
        assert store.get({}) is None


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path):
    store = Store(tmp_path, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(StateError, match="cannot be written: File too large"):
            store.put({}, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_versions_name_the_tools():
    assert {"edgevision", "numpy", "onnxruntime"} <= tool_versions().keys()
