"""Execution providers: what a list asks for, what is missing and what to do, and which provider really took which nodes.

No GPU is needed: the list is settled by pure functions, and what runs here are the CPU provider and, where their packages are
installed (`pip install onnxruntime-qnn`, `onnxruntime-ep-openvino`), real plug-in libraries.
"""

import importlib.util
import shutil
import subprocess

import numpy as np
import pytest
from inference_support import add_model, load, load_shared, zeros_for
from pydantic import ValidationError

from edgevision.errors import ModelError, PluginError
from edgevision.inference import _providers as providers
from edgevision.inference._ort_session import notes
from edgevision.inference._providers import CPU, parse, settle
from edgevision.inference.base import Execution
from edgevision.inference.onnxrt import Options

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def test_an_entry_is_a_name_or_a_name_with_options():
    assert parse("cuda") == providers.Wanted(name=CUDA)
    entry = parse({"tensorrt": {"device_id": 1, "optional": True}})
    assert (entry.name, entry.options, entry.optional) == (TENSORRT, {"device_id": 1}, True)
    entry = parse({"MyExecutionProvider": {"library": "/opt/my.so", "device": "npu", "level": 3}})
    assert (entry.library, entry.device, entry.options) == ("/opt/my.so", "npu", {"level": 3})
    assert parse({"my-npu": {"package": "my-npu-ep"}}).name == "my-npu"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("cudda", "did you mean 'cuda'"),
        ({"cuda": {}, "cpu": {}}, "must be one provider's name and its options"),
        ({"cuda": 3}, "its options must be a mapping"),
        ({"cuda": {"optional": "yes"}}, "`optional` must be true or false"),
        ({"x": {"library": "a", "package": "b"}}, "both given; keep one"),
        ({"x": {"library": ""}}, "`library` must be text"),
        ({"x": {"package": 3}}, "`package` must be text"),
        ({"x": {"library": "a", "device": "tpu"}}, "`device` must be cpu, gpu or npu"),
        (7, "must be one provider's name"),
    ],
)
def test_a_wrong_entry_is_told_with_the_fix(entry, words):
    with pytest.raises(ValidationError, match=words):
        Options(providers=[entry])


def test_one_provider_stands_once():
    with pytest.raises(ValidationError, match="cuda stands twice"):
        Options(providers=["cuda", {CUDA: {"device_id": 1}}])


def settled(entries, there=("CPUExecutionProvider",)):
    return settle([parse(entry) for entry in entries], there=there, version="1.32.0")


def test_a_list_goes_on_only_where_it_says_so():
    good = settled(["cuda", "cpu"], (CUDA, CPU))
    assert [entry.name for entry in good.used] == [CUDA, CPU]
    assert good.refused is None
    refused = settled(["tensorrt", "cpu"])
    assert "has no TensorrtExecutionProvider; it has CPUExecutionProvider" in refused.refused
    assert "pip install onnxruntime-gpu in place of onnxruntime" in refused.refused
    assert "`optional: true`" in refused.refused
    goes_on = settled([{"tensorrt": {"optional": True}}, {"cuda": {"optional": True}}, "cpu"])
    assert [entry.name for entry in goes_on.used] == [CPU]
    assert [*goes_on.left_out] == [TENSORRT, CUDA]
    assert "every provider of the list is missing" in settled([{"cuda": {"optional": True}}]).refused


def test_every_known_provider_says_how_to_get_it():
    for short, known in providers.KNOWN.items():
        assert providers.how_to_get(known.name), short
        assert providers.short(known.name) == short
    assert "name its plug-in `library`" in providers.how_to_get("OtherExecutionProvider")


def test_how_nodes_were_shared_out_is_put_in_words():
    assert notes({}, [CUDA]) == ()
    assert notes({CPU: {"Conv": 3}}, [CPU]) == ()
    assert notes({CPU: {"Conv": 3}}, [TENSORRT, CPU]) == (
        "tensorrt took none of the 3 nodes: it can run nothing of this model",
    )
    # A model in QOperator form has no kernels on CUDA at all; one in QDQ form is converted to and fro.
    (one_by_one,) = notes({CUDA: {"Relu": 4}, CPU: {"QLinearConv": 12, "QGemm": 1}}, [CUDA, CPU])
    assert "13 quantised operators have no kernel there and run on the CPU one by one" in one_by_one
    (converted,) = notes({CUDA: {"Conv": 9, "QuantizeLinear": 5, "DequantizeLinear": 6}}, [CUDA, CPU])
    assert "computed in float between 11 conversions" in converted
    assert notes({TENSORRT: {"Conv": 9}, CUDA: {"QuantizeLinear": 1}}, [TENSORRT, CUDA]) == ()


def test_shares_are_the_largest_first():
    assert Execution(nodes={"cpu": 1, "cuda": 3, "tensorrt": 0}).shares == {"cuda": 0.75, "cpu": 0.25}
    assert Execution().shares == {}


def test_the_real_runtime_tells_who_took_the_nodes(shared):
    backend = load_shared("onnxrt", shared, "yolox_nano.onnx")
    assert backend.execution.shares == {"cpu": 1.0}
    assert backend.execution.nodes["cpu"] > 300
    assert backend.execution.notes == ()


def test_an_optional_provider_that_is_not_here_is_left_out_and_told():
    onnxruntime = pytest.importorskip("onnxruntime")
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has CUDA")
    backend = load("onnxrt", add_model(), providers=[{"cuda": {"optional": True}}, "cpu"])
    assert "pip install onnxruntime-gpu" in backend.execution.left_out["cuda"]
    assert backend.run(zeros_for(backend))["y"].shape == (1, 3, 4, 4)


def test_a_library_that_is_none(tmp_path):
    entry = {"MyExecutionProvider": {"library": str(tmp_path / "none.so")}}
    with pytest.raises(PluginError, match=r"library .*none\.so: no such file"):
        load("onnxrt", add_model(), providers=[entry, "cpu"])
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    library = tmp_path / "empty.so"
    (tmp_path / "e.c").write_text("int nothing;\n")
    subprocess.run([compiler, "-shared", "-o", library, tmp_path / "e.c"], check=True)
    options: dict[str, object] = {"library": str(library)}
    entry = {"MyExecutionProvider": options}  # type: ignore[dict-item]
    with pytest.raises(PluginError, match=r"cannot be registered: .*is it made for this ONNX Runtime"):
        load("onnxrt", add_model(), providers=[entry, "cpu"])
    options["optional"] = True
    backend = load("onnxrt", add_model(), providers=[entry, "cpu"])
    assert "cannot be registered" in backend.execution.left_out["MyExecutionProvider"]


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install {package.replace('_', '-')}")


def test_a_plug_in_package_that_is_installed_is_used_by_its_short_name():
    needs("onnxruntime_qnn")
    content = add_model((1, 3, 4, 4))
    # Qualcomm's package has its simulator of the HTP, which runs on x86.
    try:
        backend = load("onnxrt", content, providers=[{"qnn": {"backend_type": "htp"}}, "cpu"])
    except (PluginError, ModelError) as failure:
        pytest.skip(f"the simulator does not run here: {failure}")
    assert backend.execution.shares == {"qnn": 1.0}
    result = backend.run({"x": np.ones((1, 3, 4, 4), np.float32)})["y"]
    np.testing.assert_allclose(result.ravel(), np.arange(1, 49), rtol=1e-3)  # computed in float16
    # With a library that the package lacks it does not start, or starts and takes nothing; never in silence.
    lacking = {"qnn": {"backend_type": "cpu", "optional": True}}
    nothing = load("onnxrt", content, providers=[lacking, "cpu"])
    assert nothing.execution.shares == {"cpu": 1.0}
    assert "qnn" in nothing.execution.left_out or "qnn took none of the 1 nodes" in nothing.execution.notes[0]
    with pytest.raises(PluginError, match="finds no npu on this machine that it can use"):
        load("onnxrt", content, providers=[{"qnn": {"device": "npu"}}, "cpu"])


def test_a_plug_in_that_offers_no_device_says_so():
    needs("onnxruntime_ep_openvino")
    try:
        backend = load("onnxrt", add_model(), providers=["openvino", "cpu"])
    except PluginError as failure:  # on a CPU that is not Intel's
        assert "finds no device on this machine that it can use (it offers none)" in str(failure)  # noqa: PT017
    else:
        assert "openvino" in backend.execution.shares
