import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgevision import config, documents
from edgevision.errors import ConfigError

GOOD = """\
device: box1
mqtt:
  host: broker
  topic: acme/line3
models:
  parts: {model: efficientnet-lite0}
cameras:
  - name: infeed
    source: {type: opencv, url: rtsp://cam/1}
    model: parts
"""


@pytest.fixture(autouse=True)
def _no_user_models(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path / "none"))


def load(tmp_path: Path, text: str, **environ: str) -> Any:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, environ=environ)


def faults(tmp_path, text, **environ):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return caught.value.faults


def test_the_smallest_config_and_its_defaults(tmp_path):
    loaded = load(tmp_path, GOOD)
    assert loaded.mqtt.topic == "acme/line3"
    assert loaded.cameras[0].source.type == "opencv"
    assert loaded.cameras[0].source.options.url == "rtsp://cam/1"
    assert loaded.models["parts"].threads == 1
    assert loaded.mqtt.deliveries.status.retain


def test_a_trigger_takes_the_daemons_broker_or_its_own(tmp_path):
    at = "    model: parts\n    trigger: {topic: line/part}\n"
    loaded = load(tmp_path, GOOD.replace("    model: parts\n", at).replace("host: broker", "host: b\n  username: u"))
    assert (loaded.cameras[0].trigger.broker.where, loaded.cameras[0].trigger.broker.username) == ("b:1883", "u")
    own = GOOD.replace("    model: parts\n", at.replace("part}", "part, broker: {host: other, port: 1884}}"))
    assert load(tmp_path, own).cameras[0].trigger.broker.where == "other:1884"


def test_a_trigger_wants_a_broker_a_camera_and_a_topic(tmp_path):
    at = "    model: parts\n    trigger: {topic: line/part}\n"
    text = GOOD.replace("    model: parts\n", at)
    alone = text.replace("mqtt:\n  host: broker\n  topic: acme/line3\n", "sinks: [{type: memory}]\n")
    assert "no broker to hear triggers from: give `mqtt`" in faults(tmp_path, alone)[0].problem
    (fault,) = faults(tmp_path, text.replace("{type: opencv, url: rtsp://cam/1}", "{type: images, path: x}"))
    assert (fault.key, fault.line) == ("cameras[0].trigger", 11)
    assert "needs a camera or stream, and `images` is read as a file" in fault.problem
    (fault,) = faults(tmp_path, text.replace("line/part", "line/+"))
    assert fault.key == "cameras[0].trigger.topic"


def test_the_files_of_a_cameras_login_are_looked_for(tmp_path):
    there = tmp_path / "there"
    there.write_text("s3cret")
    login = "{type: http_snapshot, url: 'https://c/x', username: u, password_file: %s, ca_file: %s}"
    text = GOOD.replace("{type: opencv, url: rtsp://cam/1}", login % (there, tmp_path / "none"))
    (fault,) = faults(tmp_path, text)
    assert (fault.key, fault.problem) == ("cameras[0].source.ca_file", f"{tmp_path / 'none'}: no such file")


def test_the_annotated_sample_is_good():
    loaded: Any = config.load(Path(__file__).parents[2] / "deploy" / "edgevision.yaml", environ={})
    assert loaded.cameras[0].rules[0].name == "cup-there"
    assert loaded.cameras[0].rules[0].rule.options.frames == 3
    assert loaded.cameras[0].snapshot.interval_s == 5
    # What the sample shows of them is the default, as it says.
    assert loaded.cameras[0].reader == config.ReaderSection()
    assert loaded.cameras[0].health == config.HealthSection()


def test_the_other_sources_of_the_annotated_sample_are_good(tmp_path):
    sample = (Path(__file__).parents[2] / "deploy" / "edgevision.yaml").read_text(encoding="utf-8")
    told = sample.partition("# Other sources;")[2].partition("\n\n")[0]
    parts = [part for part in re.split(r"^#$", told, flags=re.MULTILINE) if "source:" in part or "trigger:" in part]
    blocks = ["\n".join(line.removeprefix("#") for line in part.strip("\n").splitlines()) for part in parts]
    blocks = [
        block[block.index("   source:") if "source:" in block else block.index("   trigger:") :] for block in blocks
    ]
    types = []
    for file in ("snap-password", "camera.pem"):
        (tmp_path / file).write_text("x")
    for block in blocks:
        camera = yaml.safe_load(block.replace("/etc/edgevision", str(tmp_path)))
        base = yaml.safe_load(GOOD)
        base["cameras"][0].update(camera)
        document = documents.Document(file="t", data=base, lines={})
        loaded = config.from_document(document, folder=tmp_path, environ={})
        types.append(loaded.cameras[0].source.type)
    assert types == ["http_snapshot", "hot_folder", "mqtt_image", "gstreamer", "genicam", "picamera2", "opencv"]


@pytest.mark.parametrize(
    ("before", "after", "line", "key", "words"),
    [
        ("device: box1", "device: box 1", 1, "device", "found 'box 1'"),
        ("device: box1", "device: ''", 1, "device", "must be 1 to 64"),
        ("device: box1", "devise: box1", 1, "devise", "did you mean 'device'?"),
        ("device: box1", "device: [a]", 1, "device", "valid string; found a list"),
        ("  host: broker", "  host: mqtt://broker", 3, "mqtt.host", "bare host name"),
        ("  host: broker", "  host: broker\n  port: 99999", 4, "mqtt.port", "less than or equal to 65535"),
        ("  host: broker", "  hots: broker", 3, "mqtt.hots", "did you mean 'host'?"),
        ("  topic: acme/line3", "  topic: acme/#", 4, "mqtt.topic", "must be levels"),
        ("  topic: acme/line3", "  topic: /acme", 4, "mqtt.topic", "must be levels"),
        ("  topic: acme/line3", "  results: {durable: true}", 4, "mqtt.results.durable", "set `qos: 1` beside it"),
        (
            "  topic: acme/line3",
            "  image: {qos: 1, durable: true}",
            4,
            "mqtt.image.durable",
            "results, events and status",
        ),
        ("  topic: acme/line3", "  spool: {max_bytes: 5}", 4, "mqtt.spool.max_bytes", "found 5"),
        ("  topic: acme/line3", "  spool: {when_full: newest}", 4, "mqtt.spool.when_full", "found 'newest'"),
        ("device: box1", "device: box1\nstate_dir: /dev/null", 2, "state_dir", "/dev/null is not a folder"),
        ("  topic: acme/line3", "  results: {qos: 3}", 4, "mqtt.results.qos", "found 3"),
        ("  topic: acme/line3", "  tls: {ca_file: /nowhere/ca.crt}", 4, "mqtt.tls.ca_file", "no such file"),
        (
            "{model: efficientnet-lite0}",
            "{model: efficient-net-lite0}",
            6,
            "models.parts.model",
            "did you mean 'efficientnet-lite0'?",
        ),
        ("{model: efficientnet-lite0}", "{}", 6, "models.parts.model", "is missing"),
        (
            "{model: efficientnet-lite0}",
            "{model: efficientnet-lite0, threads: 0}",
            6,
            "models.parts.threads",
            "found 0",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: efficientnet-lite0, confidence: .nan}",
            6,
            "models.parts.confidence",
            "finite",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: efficientnet-lite0, backend: tensorrt}",
            6,
            "models.parts.backend",
            "onnxrt",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: efficientnet-lite0, classes: [cupp]}",
            6,
            "models.parts.classes[0]",
            "'cup'",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: efficientnet-lite0, options: {spining: on}}",
            6,
            "models.parts.options.spining",
            "did you mean 'spinning'?",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: efficientnet-lite0, tiling: {size: model}}",
            6,
            "models.parts.tiling",
            "does classification; take it away",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: yolox-nano, tiling: {size: [640]}}",
            6,
            "models.parts.tiling.size",
            "found a list",
        ),
        (
            "{model: efficientnet-lite0}",
            "{model: yolox-nano, tiling: {overlap: 0.9}}",
            6,
            "models.parts.tiling.overlap",
            "less than or equal to 0.8",
        ),
        ("  - name: infeed", "  - name: in/feed", 8, "cameras[0].name", "found 'in/feed'"),
        ("  - name: infeed", "  - name: status", 8, "cameras[0]", "is taken by the device's own topics"),
        ("type: opencv, ", "type: opencvv, ", 9, "cameras[0].source", "did you mean 'opencv'?"),
        ("type: opencv, ", "", 9, "cameras[0].source", "must hold `type`"),
        ("url: rtsp://cam/1", "ulr: rtsp://cam/1", 9, "cameras[0].source.ulr", "did you mean 'url'?"),
        ("    model: parts", "    model: part", 10, "cameras[0].model", "did you mean 'parts'?"),
        ("    model: parts", "    model: parts\n    fps: 0", 11, "cameras[0].fps", "greater than 0"),
        ("    model: parts", "    model: parts\n    roi: [0.5, 0, 0.1, 1]", 8, "cameras[0]", "left < right"),
        ("    model: parts", "    model: parts\n    rotation: 45", 11, "cameras[0].rotation", "found 45"),
        (
            "    model: parts",
            "    model: parts\n    model: parts",
            11,
            "cameras[0].model",
            "stands twice (first on line 10)",
        ),
        (
            "    model: parts",
            "    model: parts\n    snapshot: {what: crops}",
            11,
            "cameras[0].snapshot.what",
            "need boxes",
        ),
        (
            "    model: parts",
            "    model: parts\n    snapshot: {what: mask}",
            11,
            "cameras[0].snapshot.what",
            "needs classes of pixels, and efficientnet-lite0 does classification",
        ),
        (
            "    model: parts",
            "    model: parts\n    masks: {encoding: polygons}",
            11,
            "cameras[0].masks",
            "are a segmentation's, and efficientnet-lite0 does classification",
        ),
        (
            "    model: parts",
            "    model: parts\n    rules:\n      - {type: presence, label: cupp}",
            12,
            "cameras[0].rules[0]",
            "did you mean 'cup'?",
        ),
    ],
)
def test_a_broken_config_says_where_what_and_how(tmp_path, before, after, line, key, words):
    assert GOOD.count(before) == 1
    found = {(fault.line, fault.key): fault.problem for fault in faults(tmp_path, GOOD.replace(before, after))}
    assert (line, key) in found, found
    assert words in found[line, key]


def test_all_faults_come_at_once_and_in_order(tmp_path):
    text = (
        GOOD.replace("broker", "${BROKER}")
        .replace("type: opencv", "type: opncv")
        .replace("model: parts", "model: pats")
    )
    found = faults(tmp_path, text)
    assert [fault.key for fault in found] == ["mqtt.host", "cameras[0].source", "cameras[0].model"]
    assert "BROKER" in found[0].problem or "BROKER" in found[1].problem


def test_two_cameras_of_one_name(tmp_path):
    second = "  - {name: infeed, source: {type: synthetic}, model: parts}\n"
    (fault,) = faults(tmp_path, GOOD + second)
    assert (fault.line, fault.key) == (11, "cameras[1].name")


def test_nowhere_to_publish(tmp_path):
    (fault,) = faults(tmp_path, GOOD.replace("mqtt:\n  host: broker\n  topic: acme/line3\n", ""))
    assert "nowhere to publish" in fault.problem


def test_the_environment_and_files_put_secrets_in(tmp_path):
    (tmp_path / "url").write_text("rtsp://user:s3cret@cam/1\n")
    text = GOOD.replace("url: rtsp://cam/1", "url_file: url").replace(
        "host: broker", "host: ${BROKER:-10.0.0.1}\n  username: ${U}"
    )
    loaded = load(tmp_path, text, U="me")
    assert loaded.cameras[0].source.options.url == "rtsp://user:s3cret@cam/1"
    assert (loaded.mqtt.host, loaded.mqtt.username) == ("10.0.0.1", "me")
    assert "s3cret" not in repr(loaded)


def test_a_password_is_in_no_text_of_the_config(tmp_path):
    text = GOOD.replace("host: broker", "host: broker\n  username: me\n  password: ${P}")
    loaded = load(tmp_path, text, P="hunter2")
    assert loaded.mqtt.password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(loaded)
    broken = faults(
        tmp_path, text.replace("username: me\n", "").replace("password: ${P}", "password: [${P}]"), P="hunter2"
    )
    assert all("hunter2" not in fault.problem for fault in broken)


def test_secrets_come_from_the_folder_that_systemd_hands_over(tmp_path):
    """LoadCredential= puts them into a folder of its own, which the service's environment names."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "edgevision.mqtt-username").write_text("box\n")
    (folder / "edgevision.mqtt-password").write_text("s3cret\n")
    (folder / "edgevision.camera-url").write_text("rtsp://user:pass@cam/1\n")
    own = "${CREDENTIALS_DIRECTORY}/edgevision."
    text = GOOD.replace("url: rtsp://cam/1", f"url_file: '{own}camera-url'").replace(
        "  topic: acme/line3", f"  username_file: {own}mqtt-username\n  password_file: {own}mqtt-password"
    )
    loaded = load(tmp_path, text, CREDENTIALS_DIRECTORY=str(folder))
    assert loaded.cameras[0].source.options.url == "rtsp://user:pass@cam/1"
    assert (loaded.mqtt.username, loaded.mqtt.password_file) == ("box", folder / "edgevision.mqtt-password")


def test_what_a_reader_process_is_given_holds_the_password_and_shows_it_nowhere(tmp_path):
    loaded = load(tmp_path, GOOD.replace("rtsp://cam/1", "'rtsp://me:${P}@cam/1'"), P="hunter2")
    assert loaded.cameras[0].source.given == {"url": "rtsp://me:hunter2@cam/1"}
    assert "hunter2" not in repr(loaded)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("reader: {run: fork}", "cameras[0].reader.run"),
        ("reader: {memory_mb: 1}", "cameras[0].reader.memory_mb"),
        ("reader: {deadline_s: 0}", "cameras[0].reader.deadline_s"),
        ("health: {dark: 0.9}", "cameras[0].health.dark"),
        ("health: {dark_share: 95}", "cameras[0].health.dark_share"),
    ],
)
def test_a_wrong_reader_or_health_key_is_named_with_its_line(tmp_path, section, key):
    (fault,) = faults(tmp_path, GOOD + f"    {section}\n")
    assert (fault.key, fault.line) == (key, 11)


def test_a_secret_file_that_is_missing(tmp_path):
    found = faults(tmp_path, GOOD.replace("url: rtsp://cam/1", "url_file: none"))
    assert [fault.key for fault in found] == ["cameras[0].source.url_file"], "and not that url is empty as well"
    assert "No such file" in found[0].problem


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"a: [", b"- 1", b"\xff\xff", b"device: x", b"cameras: 5\nmodels: 7\nmqtt: x"]
)
def test_unreadable_yaml_is_one_of_our_errors(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        config.load(path, environ={})


scalars = st.none() | st.booleans() | st.integers(-5, 70000) | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)
keys = st.sampled_from(
    ["device", "mqtt", "models", "cameras", "sinks", "logging", "name", "source", "model", "type", "url", "rules"]
)


@given(
    st.dictionaries(
        keys,
        values
        | st.dictionaries(keys, values, max_size=4)
        | st.lists(st.dictionaries(keys, values, max_size=4), max_size=3),
    )
)
def test_any_document_is_a_config_or_one_of_our_errors(data):
    from edgevision import documents

    document = documents.Document(file="c.yaml", data=data, lines={})
    with pytest.raises(ConfigError) as caught:
        config.from_document(document, folder=Path(), environ={})
    assert caught.value.faults
