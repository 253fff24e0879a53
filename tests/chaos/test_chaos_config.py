"""What people do to a running daemon: reloads without end, files replaced under it, configs that are none."""

import json
import shutil
import threading
from pathlib import Path

import psutil
import pytest
from chaos_support import only_long
from hypothesis import given, settings
from hypothesis import strategies as st
from support_brokers import Listener, Mosquitto, wait_until
from support_daemon import ServiceManager

import edgevision
from edgevision import config
from edgevision.environment import shipped_models_dir
from edgevision.errors import EdgevisionError

PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"
MODEL = "efficientnet-lite0"


def yaml(folder, port, *, fps=10, threads=1, backend="onnxrt"):
    return f"""\
device: box1
state_dir: {folder}/state
mqtt: {{host: 127.0.0.1, port: {port}, telemetry: {{interval_s: 1}}}}
models:
  m: {{model: {MODEL}, backend: {backend}, threads: {threads}}}
cameras:
  - {{name: film, model: m, fps: 10, source: {{type: images, path: '{PHOTOS}', loop: true}}}}
  - {{name: live, model: m, fps: {fps}, source: {{type: synthetic, live: true, width: 160, height: 120}}}}
"""


@pytest.fixture
def broker(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as broker:
        yield broker


def reasons(listener):
    heard = [json.loads(heard.payload) for heard in listener.heard if heard.topic == "edgevision/box1/status"]
    return [status["reason"] for status in heard]


def results(listener, camera):
    return [json.loads(heard.payload) for heard in listener.heard if heard.topic.endswith(f"{camera}/results")]


def more_results(listener, camera, count=5):
    before = len(results(listener, camera))
    wait_until(lambda: len(results(listener, camera)) >= before + count, f"results of {camera}")


def test_a_storm_of_reloads_ends_with_the_last_config_in_one_process_and_nothing_more_of_anything(tmp_path, broker):
    file = tmp_path / "edgevision.yaml"
    file.write_text(yaml(tmp_path, broker.port))
    pause = threading.Event()
    with Listener(broker.port) as listener, ServiceManager(tmp_path, file) as manager:
        manager.wait_told("2 of 2 cameras live")
        more_results(listener, "live")
        daemon = psutil.Process(manager.process.pid)

        def uses():
            return daemon.num_threads(), daemon.num_fds(), len(daemon.children())

        before = uses()
        for number in range(40):
            text = yaml(tmp_path, broker.port, fps=10 + number % 3)
            file.write_text("cameras: {" if number % 4 == 3 else text)
            manager.hang_up()
            pause.wait(0.02)  # faster than a config is taken over
        file.write_text(yaml(tmp_path, broker.port, fps=7))
        manager.hang_up()
        manager.hang_up()
        wait_until(lambda: not manager.told[-1].startswith("RELOADING"), "the last answer")
        more_results(listener, "live", 20)
        wait_until(lambda: uses() == before, f"{before} threads, handles and processes as before")
        assert "2 of 2 cameras live" in next(text for text in reversed(manager.told) if text.startswith("STATUS="))
        assert manager.terminate() == 0
    for camera in ("film", "live"):
        seqs = [result["seq"] for result in results(listener, camera)]
        assert seqs == list(range(1, len(seqs) + 1)), "no result is missing"


@pytest.mark.parametrize(
    ("backend", "suffix"), [("onnxrt", ".onnx"), pytest.param("litert", ".tflite", marks=only_long)]
)
def test_a_model_file_that_is_replaced_under_a_running_daemon_changes_nothing_and_is_refused_at_the_reload(
    tmp_path, broker, backend, suffix
):
    """Overwritten in place and cut short, as `cp` does it half way: where a runtime had the file mapped, it would crash."""
    shutil.copytree(shipped_models_dir() / MODEL, tmp_path / "models" / MODEL)
    (weights,) = (tmp_path / "models" / MODEL).glob(f"*{suffix}")
    good = weights.read_bytes()
    file = tmp_path / "edgevision.yaml"
    file.write_text(yaml(tmp_path, broker.port, backend=backend))
    environ = {"EDGEVISION_MODELS": str(tmp_path / "models")}
    with Listener(broker.port) as listener, ServiceManager(tmp_path, file, **environ) as manager:
        manager.wait_told("2 of 2 cameras live")
        more_results(listener, "live")
        weights.write_bytes(bytes(1000))
        more_results(listener, "live", 10)
        weights.write_bytes(bytes(len(good)))
        file.write_text(yaml(tmp_path, broker.port, backend=backend, threads=2))
        manager.hang_up()
        listener.wait_for(lambda heard: heard.topic.endswith("box1/status") and b"was refused" in heard.payload)
        assert "sha256" in reasons(listener)[-1]
        assert weights.name in reasons(listener)[-1]
        more_results(listener, "live", 10)
        weights.write_bytes(good)
        manager.hang_up()
        listener.wait_for(lambda heard: b"restarted models: m" in heard.payload)
        more_results(listener, "live")
        assert manager.terminate() == 0
    assert {result["model"]["sha256"] for result in results(listener, "live")} == {
        results(listener, "film")[0]["model"]["sha256"]
    }


def own_mb(pid):
    """Memory but for the pages of program files."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split()[0]: int(line.split()[1]) for line in rollup}
    return (found["Pss_Anon:"] + found["Pss_Shmem:"]) / 1024


def test_models_that_are_loaded_anew_again_and_again_leave_no_hoard(tmp_path, broker):
    """glibc keeps the peak of two models side by side, in each of its arenas: 40 MB after five reloads, unless it is asked."""
    file = tmp_path / "edgevision.yaml"
    file.write_text(yaml(tmp_path, broker.port))
    with ServiceManager(tmp_path, file) as manager:
        manager.wait_told("2 of 2 cameras live")
        before = own_mb(manager.process.pid)
        for count in range(1, 6):
            file.write_text(yaml(tmp_path, broker.port, threads=1 + count % 2))
            manager.hang_up()
            manager.wait_told("READY=1", count + 1)
        manager.wait_told("2 of 2 cameras live", 2)
        assert own_mb(manager.process.pid) < before + 20
        assert manager.terminate() == 0


SMALL = f"""\
device: box1
mqtt: {{host: broker, port: 1883, results: {{qos: 1, durable: true}}}}
models: {{m: {{model: {MODEL}, threads: 2}}}}
cameras:
  - name: infeed
    model: m
    fps: 10
    source: {{type: opencv, url: rtsp://cam/1}}
    roi: [0.25, 0.0, 0.75, 1.0]
    rules: [{{type: presence, label: cup}}]
"""
PIECES = st.sampled_from(
    [b"", b"\0", b"\xff\xfe", b"\t", b"\n", b"  ", b": ", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"'", b'"',
     b"| ", b"? ",
     b"!!python/object:os", b"null", b"~", b"-1", b"1e999", b".nan", b"9" * 40, b"${HOME}", b"${", b"<<: ", b"%YAML 9",
     b"---\n",
     b"\xc2\x85", b"type", b"device: "]
)  # fmt: skip
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 20), PIECES), min_size=1, max_size=6)


@settings(max_examples=1000)
@given(EDITS)
def test_a_thousand_damaged_configs_are_each_taken_or_refused_in_words(tmp_path_factory, edits):
    content = SMALL.encode()
    for place, cut, piece in edits:
        at = int(place * len(content))
        content = content[:at] + piece + content[at + cut :]
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(content)
    try:
        config.load(file, environ={})
    except EdgevisionError as failure:
        words = str(failure)
    else:
        return  # still one: a comment, a name, a number
    assert str(file) in words
