"""Targets by name and by the machine's CPU."""

import platform

import pytest

from edgevision.errors import UsageError
from edgevision.host.quantize.source import open_source
from edgevision.host.quantize.targets import TARGETS, check_target_name, choose_target


def cpu(root, flags):
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(f"model name\t: Some CPU\nflags\t\t: {flags}\n")
    return root


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "sse2 avx2", "x86"),
        ("x86_64", "avx2 avx_vnni", "x86-vnni"),
        ("x86_64", "avx2 avx512f avx512_vnni", "x86-vnni"),
        ("aarch64", "asimd asimddp", "arm64"),
    ],
)
def test_auto_looks_at_the_cpu(tmp_path, monkeypatch, machine, flags, expected):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    target = choose_target("auto", ".onnx", root=cpu(tmp_path, flags))
    assert target.name == expected
    assert target.is_here(flags.split(), machine)


def test_auto_tells_a_jetson_by_its_release_file(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release)")
    assert choose_target("auto", ".onnx", root=cpu(tmp_path, "asimd")).name == "jetson"


def test_auto_keeps_a_tflite_file_a_tflite_file(tmp_path):
    assert choose_target("auto", ".tflite", root=tmp_path).name == "litert"


def test_auto_does_not_guess_on_an_unknown_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(UsageError, match=r"this machine is riscv64; name the target"):
        choose_target("auto", ".onnx", root=tmp_path)


def test_an_unknown_target_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'arm64'"):
        check_target_name("arm")


def test_a_machine_with_vnni_is_no_x86_target():
    assert not TARGETS["x86"].is_here(["avx2", "avx512_vnni"], "x86_64")
    assert not TARGETS["x86-vnni"].is_here(["avx2"], "x86_64")
    assert not TARGETS["arm64"].is_here(["avx2"], "x86_64")


@pytest.mark.parametrize("name", ["jetson", "litert-edgetpu"])
def test_an_accelerator_is_never_what_a_cpu_measures(name):
    assert not TARGETS[name].is_here(["asimd"], "aarch64")


def test_openvino_s_own_format_is_not_quantised_but_what_it_was_made_of(tmp_path):
    (tmp_path / "m.xml").write_text("<net/>")
    with pytest.raises(UsageError, match=r"only \.onnx and \.tflite files can be quantised; give the \.onnx"):
        open_source(str(tmp_path / "m.xml"))


def test_openvino_says_what_a_cpu_with_vnni_cannot_show():
    (words,) = TARGETS["openvino"].caveats(["avx2", "avx512_vnni"])
    assert "without it sums of two products saturate" in words
    assert TARGETS["openvino"].caveats(["avx2"]) == ()
    assert TARGETS["x86-vnni"].caveats(["avx2", "avx512_vnni"]) == ()
