"""An outside package joins every stage through entry points: installed by pip, named in a config, run by the daemon."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from support_plugins import install, make_wheel

from edgevision.manifest import MANIFEST_NAME
from edgevision.model_store import digest_of

WEIGHTS = b'{"threshold": 100}'


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package in it."""
    folder = tmp_path_factory.mktemp("acme")
    site = folder / "site"
    install(make_wheel(folder), site)
    return site


@pytest.fixture
def call(site, tmp_path):
    """The command line, in a process that has the package."""
    models = tmp_path / "models"
    (models / "lamp").mkdir(parents=True)
    (models / "lamp" / "lamp.acme").write_bytes(WEIGHTS)
    (models / "lamp" / "labels.txt").write_text("lamp\n")
    manifest = {
        "name": "lamp", "version": "1", "task": "detection", "family": "acme-box", "labels": "labels.txt",
        "files": {"acme-bright": {"path": "lamp.acme", "sha256": digest_of(WEIGHTS), "size": len(WEIGHTS)}},
        "input": {"size": [100, 40], "resize": "acme-as-it-is"}, "outputs": {"mask": "mask"}, "licence": "x", "source": "x",
    }  # fmt: skip
    (models / "lamp" / MANIFEST_NAME).write_text(yaml.safe_dump(manifest))
    environ = {
        **os.environ, "PYTHONPATH": str(site), "EDGEVISION_MODELS": str(models), "STATE_DIRECTORY": str(tmp_path / "state"),
    }  # fmt: skip

    def run(*arguments):
        command = [sys.executable, "-m", "edgevision", *map(str, arguments)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    return run


def config(folder, **changes):
    path = folder / "c.yaml"
    data = {
        "device": "box",
        "sinks": [{"type": "acme-lines", "path": str(folder / "out.txt")}],
        "models": {"m": {"model": "lamp", "options": {"gain": 1.0}}},
        "cameras": [
            {
                "name": "a", "model": "m", "source": {"type": "acme-lamp", "steps": 8},
                "rules": [{"type": "acme-passed", "name": "half-way", "x": 50}],
            }
        ],
        **changes,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("live", [False, True])
def test_source_preprocessor_backend_decoder_rule_and_sink_of_an_outside_package(call, tmp_path, live):
    camera = {
        "name": "a", "model": "m", "source": {"type": "acme-lamp", "steps": 8, "live": live}, "health": {"check": "never"},
        "rules": [{"type": "acme-passed", "name": "half-way", "x": 50}],
    }  # fmt: skip
    path = config(tmp_path, cameras=[camera])
    checked = call("check", path)
    assert checked.returncode == 0, checked.stderr
    done = call("run", "-c", path)
    assert done.returncode == 0, done.stderr
    said = [line.split(" ", 1) for line in (tmp_path / "out.txt").read_text().splitlines()]
    results = [json.loads(text) for topic, text in said if topic == "edgevision/box/a/results"]
    boxes = {result["frame"]["sequence"]: result["detections"] for result in results}
    assert boxes[max(boxes)]
    for step, found in boxes.items():
        assert [item["xyxy"] for item in found] == [[step * 10, 10, step * 10 + 10, 20]]
        assert found[0]["label"] == "lamp"
    if not live:  # of a live source only the newest counts
        assert sorted(boxes) == list(range(8))
        events = [json.loads(text) for topic, text in said if topic == "edgevision/box/a/events"]
        # When the source has ended, what is there is unknown, which may be told too.
        assert [event["rule"] for event in events if event["kind"] == "passed"] == ["half-way"]


def test_their_options_are_checked_like_ours(call, tmp_path):
    text = config(tmp_path).read_text()
    (tmp_path / "c.yaml").write_text(text.replace("steps: 8", "stepps: 8").replace("gain: 1.0", "gian: 1.0"))
    done = call("check", tmp_path / "c.yaml")
    assert done.returncode == 2
    assert "did you mean 'steps'?" in done.stderr
    assert "did you mean 'gain'?" in done.stderr


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("acme-broken", "RuntimeError: the licence dongle is missing"),
        ("acme-gone", "of package acme-vision (acme.gone) cannot be imported: ModuleNotFoundError"),
        ("acme-half", "must hold `Options` and `create`"),
        ("acme-brigt", "did you mean 'acme-bright'?"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_the_package(call, tmp_path, backend, words):
    done = call("check", config(tmp_path, models={"m": {"model": "lamp", "backend": backend}}))
    assert done.returncode in {2, 3}
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_of_ours_stays_ours_and_that_is_said(call, tmp_path):
    done = call("check", config(tmp_path))
    assert done.returncode == 0
    assert (
        "inference plug-in 'onnxrt' of package acme-vision is not used: edgevision has one of this name" in done.stderr
    )


def test_two_packages_of_one_name_are_refused(site, tmp_path):
    both = tmp_path / "both"
    install(make_wheel(tmp_path), both)
    install(make_wheel(tmp_path, "other_vision", {"edgevision.decode": {"acme-box": "acme.passed"}}), both)
    code = "from edgevision import registry; registry.load('decode', 'acme-box')"
    environ = {**os.environ, "PYTHONPATH": str(both)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert "is offered by " in done.stderr
    assert "acme-vision (acme.box)" in done.stderr
    assert "other-vision (acme.passed)" in done.stderr
