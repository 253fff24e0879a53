"""Registry, retry, logs, environment: small parts with one promise each."""

import io
import json
import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevision import logs, registry
from edgevision.errors import EdgevisionError, PluginError, UsageError
from edgevision.retry import Backoff


def test_every_plugin_of_every_stage_can_be_loaded_without_its_sdk():
    for stage in registry.STAGES:
        for name in registry.available(stage):
            plugin = registry.load(stage, name)
            assert issubclass(plugin.Options, registry.Options)


def test_a_mistyped_plugin_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"unknown decode type 'yolo_x'; did you mean 'yolox'\? known: .*ssd"):
        registry.load("decode", "yolo_x")


@pytest.mark.parametrize("name", ["base", "_pixels", "__init__", "../errors", ""])
def test_what_is_no_plugin_cannot_be_named(name):
    with pytest.raises(UsageError, match="unknown preprocess type"):
        registry.load("preprocess", name)


def test_a_missing_sdk_names_its_package():
    with pytest.raises(PluginError, match=r"the X100 needs x100_sdk: pip install 'edgevision\[x100\]'"):
        registry.require("x100_sdk", package="edgevision[x100]", purpose="the X100")


def test_exit_statuses_are_told_apart():
    def tree(error):
        yield error
        for below in error.__subclasses__():
            yield from tree(below)

    statuses = {error.__name__: error.exit_status for error in tree(EdgevisionError)}
    assert statuses["ConfigError"] == 2
    assert statuses["ManifestError"] == statuses["ModelError"] == 4
    assert (
        len({statuses[name] for name in ("UsageError", "PluginError", "ModelError", "CaptureError", "ImageError")}) == 5
    )


@given(st.integers(0, 500), st.integers())
def test_backoff_grows_is_jittered_and_bounded(failures, seed):
    backoff = Backoff(first_s=1.0, max_s=30.0, random=random.Random(seed))
    delays = [backoff.next_delay_s() for _ in range(failures + 1)]
    for number, delay in enumerate(delays):
        whole = min(30.0, 2.0**number) if number < 10 else 30.0
        assert whole / 2 <= delay <= whole
    backoff.reset()
    assert backoff.next_delay_s() <= 1.0


def line_of(style, message, **fields):
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.configure(level="info", style=style, stream=stream)
        logging.getLogger("edgevision.test").info(message, extra={"fields": fields})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    return stream.getvalue()


def test_a_text_line_is_one_line_of_key_and_value():
    line = line_of("text", "camera state", camera="infeed", reason='no "frame"\nfor 10 s', count=3)
    assert line.count("\n") == 1
    assert 'message="camera state" camera=infeed reason="no \\"frame\\"\\nfor 10 s" count=3' in line


def test_a_json_line_is_one_object():
    line = line_of("json", "camera state", camera="infeed", reason="ä")
    assert line.count("\n") == 1
    assert json.loads(line)["reason"] == "ä"


def test_an_unknown_level_is_told():
    with pytest.raises(UsageError, match="did you mean 'warning'"):
        logs.checked_level("warnin")
