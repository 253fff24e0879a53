"""Tiles: that they cover, that a batch is what single tiles are, and that parts of an object become one."""

import importlib
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgevision
from edgevision import Detections, Tiling, assembly
from edgevision.capture.images import read_image
from edgevision.clock import SYSTEM_CLOCK
from edgevision.errors import ImageError, ModelError
from edgevision.tiling import Tiles, grid, merge
from edgevision.types import Frame, ImageTransform, ModelInput, TensorSpec

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
REGION = (0, 0, 200, 100)
LEFT, RIGHT = (0, 0, 120, 100), (80, 0, 200, 100)


def boxes(*rows, labels=("a", "b")):
    """Detections of (xyxy, confidence, class)."""
    return Detections(
        xyxy=np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row[1] for row in rows], np.float32),
        class_id=np.array([row[2] for row in rows], np.int32),
        labels=labels,
    )


@given(
    st.tuples(st.integers(0, 500), st.integers(0, 500)),
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(st.integers(16, 900), st.integers(16, 900)),
    st.floats(0, 0.8),
)
def test_tiles_cover_the_region_overlap_enough_and_stay_inside(corner, extent, size, overlap):
    region = (*corner, corner[0] + extent[0], corner[1] + extent[1])
    tiles = grid(region, size, overlap)
    for axis in (0, 1):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert spans[0][0] == region[axis]
        assert spans[-1][1] == region[axis + 2]
        side = min(size[axis], extent[axis])
        assert all(end - begin == side for begin, end in spans)
        for (_, end), (begin, _) in itertools.pairwise(spans):
            assert end - begin >= overlap * side - 1  # whole pixels
    assert len(set(tiles)) == len(tiles)


def test_the_whole_object_wins_against_a_more_confident_part_of_it():
    whole, part = (90, 10, 115, 90), (80, 12, 115, 80)  # the part touches the left edge of the right tile
    for how in ("ios", "nms"):
        tiling = Tiling(merge=how)
        found = merge(
            [(LEFT, boxes((whole, 0.5, 0))), (RIGHT, boxes((part, 0.9, 0)))], REGION, tiling, iou=0.4, max_detections=9
        )
        assert found.xyxy.tolist() == [list(map(float, whole))]
        assert found.labels == ("a", "b")


def test_a_small_part_goes_by_ios_and_stays_by_nms():
    whole, part = (10, 10, 118, 90), (80, 10, 95, 20)
    parts = [(LEFT, boxes((whole, 0.5, 0))), (RIGHT, boxes((part, 0.4, 0)))]
    assert len(merge(parts, REGION, Tiling(merge="ios"), iou=0.45, max_detections=9)) == 1
    assert len(merge(parts, REGION, Tiling(merge="nms"), iou=0.45, max_detections=9)) == 2


def test_small_objects_in_a_large_one_and_other_classes_stay():
    large, small = (10, 10, 118, 90), (20, 20, 40, 40)
    found = merge(
        [(LEFT, boxes((large, 0.9, 0), (small, 0.8, 0))), (RIGHT, boxes(((80, 10, 95, 20), 0.7, 1)))],
        REGION,
        Tiling(),
        iou=0.45,
        max_detections=9,
    )
    assert found.confidence.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_across_classes_one_object_has_one_label():
    left, right = (0, 0, 100, 100), (80, 0, 180, 100)
    parts = [
        (left, boxes(((85, 10, 98, 90), 0.9, 0))),
        (right, boxes(((85, 10, 99, 90), 0.8, 1), ((120, 10, 150, 90), 0.5, 1))),
    ]
    for how in ("ios", "nms"):
        told = {
            agnostic: merge(
                parts, (0, 0, 180, 100), Tiling(merge=how), iou=0.45, max_detections=10, class_agnostic=agnostic
            )
            for agnostic in (False, True)
        }
        assert told[False].class_id.tolist() == [0, 1, 1]
        assert told[True].class_id.tolist() == [0, 1]


def test_the_most_confident_are_kept_where_room_is_short():
    found = merge(
        [
            (LEFT, boxes(((10, 10, 20, 20), 0.3, 0), ((50, 50, 60, 60), 0.2, 0))),
            (RIGHT, boxes(((150, 5, 160, 9), 0.9, 1))),
        ],
        REGION,
        Tiling(),
        iou=0.45,
        max_detections=2,
    )
    assert found.confidence.tolist() == pytest.approx([0.9, 0.3])


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Carrying(Detections):
    """Detections that carry something for each object beside its box."""

    masks: tuple[str, ...] | None = None  # type: ignore[assignment]  # words, so that they are told apart


def test_what_detections_carry_beside_their_boxes_goes_along():
    def carrying(found, masks, track_id):
        return Carrying(
            xyxy=found.xyxy, confidence=found.confidence, class_id=found.class_id, masks=masks,
            track_id=None if track_id is None else np.array(track_id, np.int64),
        )  # fmt: skip

    left = boxes(((10, 10, 20, 20), 0.3, 0), ((90, 10, 115, 90), 0.5, 0))
    right = boxes(((150, 5, 160, 9), 0.9, 1))
    parts = [
        (LEFT, carrying(left, ("small", "whole"), (1, 2))),
        (RIGHT, boxes()),  # nothing found carries nothing
        (RIGHT, carrying(right, ("other",), (3,))),
    ]
    found = merge(parts, REGION, Tiling(), iou=0.45, max_detections=9)
    assert isinstance(found, Carrying)
    assert found.masks == ("other", "whole", "small")
    assert found.track_id is not None
    assert found.track_id.tolist() == [3, 2, 1]
    parts[0] = (LEFT, carrying(left, None, (1, 2)))
    with pytest.raises(ModelError, match="tiling cannot put `masks` together"):
        merge(parts, REGION, Tiling(), iou=0.45, max_detections=9)


@pytest.mark.parametrize("how", ["ios", "nms"])
def test_nothing_found_is_nothing(how):
    found = merge([(LEFT, boxes()), (RIGHT, boxes())], REGION, Tiling(merge=how), iou=0.45, max_detections=9)
    assert found.xyxy.shape == (0, 4)


class Watching:
    """A preprocessor, a backend and a decoder that note what they are shown: one box in the middle of each tile."""

    def __init__(self, *, open_batch=False):
        spec = TensorSpec(name="x", shape=(1, 2), dtype=np.dtype(np.float32), open_batch=open_batch)
        self.inputs = self.outputs = (spec,)
        self.frames = []
        self.runs = []

    def __call__(self, frame):
        self.frames.append(frame)
        height, width = frame.image.shape[:2]
        transform = ImageTransform(
            frame_size=(width, height), input_size=(32, 32), scale=(1, 1), offset=(0, 0), region=frame.roi
        )
        return ModelInput(tensors={"x": np.array([frame.roi[:2]], np.float32)}, transform=transform)

    def run(self, tensors):
        self.runs.append(len(tensors["x"]))
        return {"x": tensors["x"].copy()}

    def close(self):
        pass

    def decode(self, tensors, transform):
        assert tensors["x"].tolist() == [list(map(float, transform.region[:2]))]  # its own picture of the batch
        left, top, right, bottom = transform.region
        return boxes(((left + 14, top + 14, right - 14, bottom - 14), 0.5, 0))


def tiles_of(watching, tiling, places=1):
    return Tiles(
        tiling,
        class_agnostic=False,
        input_size=(32, 32),
        preprocessors=[watching] * places,
        batch=np.zeros((places, 2), np.float32) if places > 1 else None,
        backend=watching,
        decoder=watching.decode,
        decoded=["x"],
        iou=0.45,
        max_detections=100,
        clock=SYSTEM_CLOCK,
    )


def frame_of(width, height, roi=None):
    return Frame(
        image=np.zeros((height, width, 3), np.uint8),
        camera="c",
        sequence=0,
        captured_at_ns=0,
        captured_mono_ns=0,
        roi=roi,
    )


@pytest.mark.parametrize("places", [1, 4])
def test_tiles_are_views_of_the_frame_level_by_level_and_the_whole(places):
    watching = Watching(open_batch=places > 1)
    frame = frame_of(100, 60)
    tiles = tiles_of(watching, Tiling(size=(32, 32), overlap=0.0, levels=2), places)
    found, spent = tiles.look(frame)
    assert all(shown.image is frame.image for shown in watching.frames)  # no pixel is copied
    # 4x2 of 32, 2x1 of 64 (no higher than the picture), the whole.
    assert [shown.roi for shown in watching.frames] == [
        *((left, top, left + 32, top + 32) for top in (0, 28) for left in (0, 23, 45, 68)),
        (0, 0, 64, 60), (36, 0, 100, 60), (0, 0, 100, 60),
    ]  # fmt: skip
    assert watching.runs == ([1] * 11 if places == 1 else [4, 4, 3])
    assert len(found) > 8
    assert spent.inference_ns > 0


def test_tiles_stay_in_the_region_of_interest():
    watching = Watching()
    tiles = tiles_of(watching, Tiling(size=(32, 32), include_whole=False, levels=1, overlap=0))
    tiles.look(frame_of(500, 500, roi=(100, 100, 150, 130)))
    assert [shown.roi for shown in watching.frames] == [(100, 100, 132, 130), (118, 100, 150, 130)]


def test_a_picture_that_is_no_larger_than_a_tile_is_looked_at_once():
    watching = Watching()
    found, _ = tiles_of(watching, Tiling()).look(frame_of(32, 20))
    assert watching.runs == [1]
    assert len(found) == 1


def test_too_many_tiles_are_an_error_that_says_how_many_and_the_fix():
    tiles = tiles_of(Watching(), Tiling(max_tiles=100))
    with pytest.raises(
        ImageError, match=r"4000x3000 pixels make 160x120 tiles of 32x32, and tiling.max_tiles is 100; give"
    ):
        tiles.look(frame_of(4000, 3000))


def test_a_batch_that_is_open_in_name_only_is_refused():
    class First(Watching):
        def run(self, tensors):
            return {"x": tensors["x"][:1]}

    watching = First(open_batch=True)
    with pytest.raises(ModelError, match=r"output 'x' is \[1, 2\] for 4 pictures.*tiling.batch: 1"):
        tiles_of(watching, Tiling(), 4).warm_up()


def open_batch(content):
    """An ONNX model as if it had been exported with an open batch."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(content)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in shapes:
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[0] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return model.SerializeToString()


def test_a_real_model_finds_the_same_in_batches_as_one_by_one(shared, tmp_path):
    file = tmp_path / "open.onnx"
    file.write_bytes(open_batch((shared / "models" / "yolox_nano.onnx").read_bytes()))
    picture = read_image(str(shared / "images" / "cats_and_dogs.jpg"))
    answers: list[Detections] = []
    for batch in (1, 4):
        model = edgevision.load_model(file, like="yolox-nano", tiling=Tiling(batch=batch, levels=1))
        assert model.backend.inputs[0].open_batch
        found = model.predict(picture)
        assert isinstance(found, Detections)
        assert model.tiles is not None
        answers.append(found)
        assert len(model.tiles.planned) % 4 != 0  # the last batch is not full
        model.close()
    one, four = answers
    assert len(one) >= 4
    np.testing.assert_allclose(four.xyxy, one.xyxy, atol=0.01)
    np.testing.assert_allclose(four.confidence, one.confidence, atol=1e-4)
    assert four.class_id.tolist() == one.class_id.tolist()


def test_a_fixed_batch_is_looked_at_one_by_one_and_said(shared, caplog):
    with caplog.at_level("INFO"):
        model = edgevision.load_model(shared / "models" / "yolox_nano.onnx", like="yolox-nano", tiling=Tiling())
    assert "takes one picture at a time" in caplog.text
    assert model.most_passes == 257
    model.close()


def test_a_model_without_boxes_cannot_be_tiled():
    with pytest.raises(ModelError, match="tiling puts boxes together, and efficientnet-lite0 does classification"):
        edgevision.load_model("efficientnet-lite0", tiling=Tiling())


def test_what_single_pictures_give_is_found_in_their_mosaic(shared):
    pytest.importorskip("pycocotools")
    sys.path.insert(0, str(BENCHMARKS))
    benchmark = importlib.import_module("tiling")

    from edgevision.host.dataset.formats import read

    data = read(shared / "images" / "coco-val" / "instances.json")

    def load(tiling):
        settings = assembly.ModelSettings(threads=2, tiling=tiling, confidence=0.01, iou=0.65, max_detections=1000)
        return assembly.load_model(shared / "models" / "yolox_nano.onnx", like="yolox-nano", settings=settings)

    found = benchmark.measure(load, data, data.samples[:12], (2000, 1500), [Tiling()])
    (tiled,) = found["tiled"]
    assert found["pictures"] == 12
    assert tiled["recall_of_single"] >= 0.9
    assert tiled["ap_of_single"] >= 0.9
    assert found["whole"]["recall"] < 0.5 * found["single"]["recall"]  # that there is something to gain
