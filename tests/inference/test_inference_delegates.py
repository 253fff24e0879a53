"""LiteRT's delegates: real libraries, compiled here, that start, refuse, take every node, or take none."""

import shutil
import subprocess

import numpy as np
import pytest
from inference_support import load_shared, zeros_for
from pydantic import ValidationError

from edgevision.doctor import runtimes
from edgevision.errors import ModelError, PluginError
from edgevision.inference._delegates import parse, taken
from edgevision.inference.litert import Options

MODEL = "mobilenet_v2_1.0_224_quant.tflite"

# The structures of TensorFlow Lite's common.h, as far as they are used; new members only ever come at their ends.
SOURCE = r"""
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } IntArray;
struct Context; struct Delegate; struct Node;
typedef struct {
  void *(*init)(struct Context *, const char *, size_t);
  void (*free)(struct Context *, void *);
  int (*prepare)(struct Context *, struct Node *);
  int (*invoke)(struct Context *, struct Node *);
  const char *(*profiling)(const struct Context *, const struct Node *);
  int32_t builtin_code; const char *custom_name; int version; void *external; void *async; uint64_t inplace;
  char room[64];
} Registration;
typedef struct Context {
  size_t tensors_size;
  int (*plan)(struct Context *, IntArray **);
  void *tensors; void *impl; void *resize; void *report; void *add; void *node;
  int (*replace)(struct Context *, Registration, const IntArray *, struct Delegate *);
} Context;
typedef struct Delegate {
  void *data;
  int (*prepare)(Context *, struct Delegate *);
  void *from; void *to; void *give;
  int64_t flags; void *builder;
  char room[64];
} Delegate;

static int nothing(struct Context *c, struct Node *n) { return 0; }
static int take_all(Context *context, Delegate *delegate) {
  IntArray *plan;
  Registration mine;
  memset(&mine, 0, sizeof mine);
  mine.prepare = nothing; mine.invoke = nothing; mine.builtin_code = 51; mine.custom_name = "test_chip"; mine.version = 1;
  if (context->plan(context, &plan)) return 1;
  IntArray *all = malloc(sizeof(int) * (plan->size + 1));
  memcpy(all, plan, sizeof(int) * (plan->size + 1));
  int status = context->replace(context, mine, all, delegate);
  free(all);
  return status;
}
static int take_none(Context *context, Delegate *delegate) { return 0; }

Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  Delegate *made = calloc(1, sizeof *made);
  made->prepare = take_none;
  for (size_t i = 0; i < count; i++) {
    if (!strcmp(keys[i], "all") && !strcmp(values[i], "true")) made->prepare = take_all;
    if (!strcmp(keys[i], "device") && strcmp(values[i], "usb:0")) {
      report("no chip at "); report(values[i]); free(made); return 0;
    }
    if (!strcmp(keys[i], "mute")) { free(made); return 0; }
  }
  return made;
}
void tflite_plugin_destroy_delegate(Delegate *delegate) { free(delegate); }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("delegate")
    (folder / "d.c").write_text(SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libchip.so", folder / "d.c"], check=True)
    return str(folder / "libchip.so")


def load(shared, entries, **more):
    return load_shared("litert", shared, MODEL, delegates=entries, **more)


def test_xnnpack_s_share_of_the_nodes_is_told(shared):
    nodes = load(shared, []).execution.nodes
    assert sum(nodes.values()) == 65
    assert nodes["xnnpack"] >= 60  # LiteRT 2.3: all but the average pooling
    assert load(shared, [], xnnpack=False).execution.shares == {"cpu": 1.0}
    execution = load_shared("litert", shared, "coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite").execution
    assert sum(execution.nodes.values()) == 64
    assert execution.nodes["cpu"] >= 1  # the detection post-processing


@pytest.mark.parametrize("xnnpack", [True, False])
def test_a_delegate_takes_nodes_and_that_is_told(shared, library, xnnpack):
    backend = load(shared, [{"chip": {"library": library, "all": True, "device": "usb:0"}}], xnnpack=xnnpack)
    assert backend.execution.shares == {"chip": 1.0}
    assert backend.run(zeros_for(backend))["output"].shape == (1, 1001)


def test_one_that_takes_nothing_is_told_and_changes_nothing(shared, library):
    backend = load(shared, [{"chip": {"library": library}}])
    assert [*backend.execution.shares] == ["xnnpack", "cpu"]
    assert "chip took none of the 65 nodes" in backend.execution.notes[0]
    given = zeros_for(backend)
    np.testing.assert_array_equal(backend.run(given)["output"], load(shared, []).run(given)["output"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "pci:3"}, "does not start: no chip at pci:3"),
        ({"mute": 1}, "it gives no reason"),
        ({"library": "/none/libchip.so"}, "library /none/libchip.so: no such file"),
        ({"library": "libnonesuch.so.9"}, "library libnonesuch.so.9 is not installed, or give its path as `library`"),
        ({"library": "libc.so.6"}, "is no external delegate: it has no function tflite_plugin_create_delegate"),
    ],
)
def test_one_that_cannot_be_used_is_an_error_unless_it_is_optional(shared, library, options, words):
    entry = {"library": library, **options}
    with pytest.raises(PluginError, match=r"^backend litert: delegate chip: ") as caught:
        load(shared, [{"chip": entry}])
    assert words in str(caught.value)
    backend = load(shared, [{"chip": {**entry, "optional": True}}])
    assert words in backend.execution.left_out["chip"]
    assert [*backend.execution.shares] == ["xnnpack", "cpu"]


def test_a_known_one_names_what_brings_it(shared):
    with pytest.raises(PluginError, match=r"libedgetpu.so.1 is not installed; Coral's package libedgetpu1-std"):
        load(shared, ["edgetpu"])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("edgetpuu", "did you mean 'edgetpu'"),
        ("mine", "another needs its `library`"),
        ("xnnpack", "is inside LiteRT"),
        ({"vx": 3}, "its options must be a mapping"),
        ({"vx": {"optional": 1}}, "`optional` must be true or false"),
        ({"vx": {"library": 7}}, "`library` must be text"),
        ({"vx": {}, "gpu": {}}, "must be one delegate's name"),
    ],
)
def test_a_wrong_entry_is_told_with_the_fix(entry, words):
    with pytest.raises(ValidationError, match=words):
        Options(delegates=(entry,))


def test_options_become_text():
    assert parse({"vx": {"cache": True, "level": 3}}).options == {"cache": "true", "level": "3"}
    assert parse({"vx": None}).library == "libvx_delegate.so"


def test_nodes_are_counted_from_ends_to_ends():
    def node(inputs, outputs):
        return {"inputs": inputs, "outputs": outputs}

    chain = [node([0], [1]), node([1, 9], [2, 3]), node([2], [4]), node([3, 4], [5])]
    assert taken(chain, [node([1, 9], [5])]) == 3
    assert taken(chain, [node([0], [1]), node([4, 3], [5])]) == 2
    assert taken(chain, []) == 0


def test_a_model_of_the_edge_tpu_without_its_delegate(shared, monkeypatch):
    from ai_edge_litert import interpreter

    def refuse(**_):
        raise RuntimeError("Encountered unresolved custom op: edgetpu-custom-op.Node number 0 failed to prepare.")

    monkeypatch.setattr(interpreter, "Interpreter", refuse)
    with pytest.raises(ModelError, match=r"compiled for the Edge TPU; .*`delegates: \[edgetpu\]`"):
        load(shared, [])


def test_the_doctor_looks_into_them(library):
    sections = [{"backend": "litert", "options": {"delegates": [{"chip": {"library": library}}, "vx"]}}]
    found = {one.subject: one for one in runtimes.litert({"models": sections})}
    assert found["litert chip"].state == "ok"
    assert found["litert vx"].state == "fault"
    assert "libedgetpu1-std" in found["litert, not here"].found
