"""Candidates one after the other: what is kept, what is taken over, what a failure or Ctrl-C leaves."""

import json

import pytest
from benchmark_support import document as whole_document
from benchmark_support import result

from edgevision.errors import ModelError, PluginError, StateError, UsageError
from edgevision.host.benchmark import document, plot, session, settings, table
from edgevision.host.benchmark.settings import Candidate, Settings

ONE = Candidate(given="m", like=None, sha256="a" * 64, backend="onnxrt", threads=1)
TWO = Candidate(given="m", like=None, sha256="a" * 64, backend="onnxrt", threads=2)


def _measure(done, fail=()):
    def measure(candidate, chosen, **_more):
        done.append(candidate)
        if candidate in fail:
            raise ModelError("refused") if fail[candidate] is None else fail[candidate]
        return {**result(), "threads": candidate.threads, "settings": chosen.document()}

    return measure


def test_a_second_run_goes_on_where_the_first_was_stopped(tmp_path):
    file = tmp_path / "sub" / "bench.json"
    done: list[Candidate] = []
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        session.run([ONE, TWO], Settings(), file=file, measure=_measure(done, {TWO: KeyboardInterrupt()}))
    assert [one["threads"] for one in document.read(file)["results"]] == [1]
    assert [path.name for path in file.parent.iterdir()] == ["bench.json"]
    found = session.run([ONE, TWO], Settings(), file=file, on_message=said.append, measure=_measure(done))
    assert done == [ONE, TWO, TWO]
    assert found.taken_over == (ONE,)
    assert "1 of 2 candidates are in" in said[0]
    assert [one["threads"] for one in document.read(file)["results"]] == [1, 2]
    session.run([ONE, TWO], Settings(), file=file, fresh=True, measure=_measure(done))
    assert done[3:] == [ONE, TWO]


def test_other_settings_weights_or_machines_are_measured_again_or_refused(tmp_path):
    file = tmp_path / "bench.json"
    done: list[Candidate] = []
    session.run([ONE], Settings(), file=file, measure=_measure(done))
    session.run([ONE], Settings(duration_s=3), file=file, measure=_measure(done))
    assert done == [ONE, ONE]
    assert len(document.read(file)["results"]) == 1
    other = document.read(file)
    other["environment"]["cpu"] = "Another CPU"
    document.write(file, other)
    with pytest.raises(UsageError, match=r"measured elsewhere \(cpu: Another CPU there.*--fresh"):
        session.run([ONE], Settings(), file=file, measure=_measure(done))


def test_one_that_fails_does_not_end_the_others_and_is_told(tmp_path):
    file = tmp_path / "bench.json"
    said: list[str] = []
    found = session.run([ONE, TWO], Settings(), file=file, on_message=said.append, measure=_measure([], {ONE: None}))
    assert [str(candidate) for candidate, _ in found.failures] == ["m onnxrt, 1 thread"]
    assert said == ["m onnxrt, 1 thread: refused"]
    kept = document.read(file)
    assert (len(kept["results"]), kept["failures"]) == (1, [{"candidate": "m onnxrt, 1 thread", "error": "refused"}])


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    done: list[Candidate] = []
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        session.run([ONE], Settings(), file=tmp_path / "file" / "bench.json", measure=_measure(done))
    assert done == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is no JSON"),
        ("[1]", "schema is 'list'"),
        ('{"schema": "x"}', "schema is 'x'"),
        ('{"schema": "edgevision/benchmark/1"}', "`results` or `environment` is missing"),
        ("[" * 100_000, "is no JSON"),
        ("\x00\ufffd", "is no JSON"),
    ],
)
def test_files_that_are_no_results(tmp_path, text, why):
    file = tmp_path / "bench.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=why):
        document.read(file)
    with pytest.raises(UsageError, match="no such file"):
        document.read(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot be read"):
        document.read(tmp_path)


def test_a_written_result_reads_back_and_its_samples_stand_on_one_line(tmp_path):
    content = whole_document(result())
    document.write(tmp_path / "bench.json", content)
    assert document.read(tmp_path / "bench.json") == json.loads(json.dumps(content))
    longest = max((tmp_path / "bench.json").read_text().splitlines(), key=len)
    assert longest.count(",") > 10


def test_the_report_names_every_figure_and_says_what_is_not_available(tmp_path):
    measured = result()
    measured["profile"] = {
        "operators": [{"operator": "Conv", "count": 3, "mean_us": 5.0, "share": 1.0}],
        "providers": {"CPUExecutionProvider": {"nodes": 3, "node_share": 1.0, "time_share": 1.0}},
        "convolutions": {"integer": 0, "float": 3},
    }
    content = whole_document(measured)
    content["failures"] = [{"candidate": "x", "error": "broken"}]
    text = table.markdown(content)
    for part in ("| m | onnxrt | 1 |", "needs 662 calls, had 480", "power not available", "CPUExecutionProvider 3 nodes (100%)",
                 "0 integer kernels, 3 float", "| Conv | 3 | 5 | 100.0% |", "**x** failed: broken", "paced: not asked for",
                 "AMD" if "AMD" in content["environment"]["cpu"] else content["environment"]["cpu"]):  # fmt: skip
        assert part in text, part
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0].count("|") == lines[2].count("|")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_plot_is_a_picture_of_every_candidate(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    file = tmp_path / f"plot{suffix}"
    plot.check(file)
    plot.draw(whole_document(result(), result(seed=1)), file)
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" if suffix == ".png" else b"<svg" in file.read_bytes()
    with pytest.raises(UsageError, match=r"suffix must be one of .png, .svg, .pdf"):
        plot.check(tmp_path / "plot.bmp")


def test_candidates_are_models_times_backends_times_threads(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    found = settings.candidates(["efficientnet-lite0"], backends=["onnxrt", "litert"], threads=[1, 2])
    assert [(one.backend, one.threads) for one in found] == [("onnxrt", 1), ("onnxrt", 2), ("litert", 1), ("litert", 2)]
    assert {one.backend for one in settings.candidates(["efficientnet-lite0"], backends=["all"])} == {
        "onnxrt",
        "litert",
    }
    assert len(settings.candidates(["efficientnet-lite0", "efficientnet-lite0"])) == 1


@pytest.mark.parametrize(
    ("models", "more", "error", "why"),
    [
        (["nonsense"], {}, UsageError, "unknown model 'nonsense'"),
        (["no/such.onnx"], {}, UsageError, "no such file"),
        (["efficientnet-lite0"], {"like": "yolox-nano"}, UsageError, "--like describes a bare model file"),
        (["efficientnet-lite0"], {"backends": ["tpu"]}, UsageError, "unknown inference type 'tpu'"),
        (["efficientnet-lite0"], {"backends": ["replay"]}, ModelError, "has no file for replay"),
        (["yolox-nano"], {"backends": ["all"]}, ModelError, "none of its files is here"),
    ],
)
def test_what_cannot_be_measured_is_told_at_once(tmp_path, monkeypatch, models, more, error, why):
    monkeypatch.setenv("EDGEVISION_MODELS", str(tmp_path))
    with pytest.raises(error, match=why):
        settings.candidates(models, **more)


def test_a_bare_file_has_the_backend_of_its_suffix(tmp_path):
    file = tmp_path / "a.tflite"
    file.write_bytes(b"x")
    assert [one.backend for one in settings.candidates([str(file)])] == ["litert"]
    with pytest.raises(UsageError, match="is a file for litert, not for onnxrt"):
        settings.candidates([str(file)], backends=["onnxrt"])


def test_no_matplotlib_is_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(PluginError, match="--plot needs matplotlib"):
        plot.check(tmp_path / "plot.png")
