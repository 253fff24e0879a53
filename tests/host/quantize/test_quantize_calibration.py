"""The choice of calibration pictures, and their way to the model."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantize_support import pictures

from edgevision.errors import ImageError, UsageError
from edgevision.host.quantize.calibration import calibration_inputs, choose_pictures, refuse_overlap
from edgevision.preprocess import stretch
from edgevision.preprocess.base import InputFormat
from edgevision.types import TensorSpec


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inside").mkdir()
    for number, picture in enumerate(pictures(10, seed=5)):
        cv2.imwrite(str(tmp_path / ("inside" if number % 2 else ".") / f"{number}.png"), picture)
    return tmp_path


def chosen(folder, *, limit=100, seed=0, skip_faulty=False, warn=None):
    return choose_pictures(folder, limit=limit, seed=seed, skip_faulty=skip_faulty, warn=warn or pytest.fail)


def test_the_same_seed_draws_the_same_pictures(folder):
    assert chosen(folder, limit=4).pictures == chosen(folder, limit=4).pictures
    assert chosen(folder, limit=4).digest == chosen(folder, limit=4).digest
    assert chosen(folder, limit=4).digest != chosen(folder, limit=4, seed=1).digest


@given(limit=st.integers(1, 20), seed=st.integers(0, 2**32))
def test_as_many_as_asked_for_and_none_twice(tmp_path_factory, limit, seed):
    folder = tmp_path_factory.getbasetemp() / "ten"
    if not folder.exists():
        folder.mkdir()
        for number, picture in enumerate(pictures(10, seed=5)):
            cv2.imwrite(str(folder / f"{number}.png"), picture)
    drawn = chosen(folder, limit=limit, seed=seed)
    assert len(set(drawn.pictures)) == len(drawn.pictures) == min(limit, 10)
    assert drawn.available == 10


def test_a_changed_picture_changes_the_digest(folder):
    before = chosen(folder).digest
    cv2.imwrite(str(folder / "0.png"), np.zeros((4, 4, 3), np.uint8))
    assert chosen(folder).digest != before


def test_the_document_names_no_path(folder):
    assert str(folder) not in str(chosen(folder).document())
    assert chosen(folder).document()["folder"] == folder.name


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "holds no picture"),
    ],
)
def test_a_wrong_folder_is_one_clear_error(tmp_path, make, words):
    make(tmp_path / "wrong")
    with pytest.raises(UsageError, match=rf"--calibration .*wrong: {words}"):
        chosen(tmp_path / "wrong")


def test_a_corrupt_picture_ends_it_and_is_left_out_when_told(folder):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with pytest.raises(ImageError, match=r"(?s)1 of 11 pictures cannot be read.*--skip-faulty.*broken\.jpg"):
        chosen(folder)
    told: list[str] = []
    drawn = chosen(folder, skip_faulty=True, warn=told.append)
    assert len(drawn.pictures) == 10
    assert drawn.left_out == 1
    assert "broken.jpg" in told[0]


def test_only_corrupt_pictures_are_an_error_in_any_case(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="none of the 1 pictures"):
        chosen(tmp_path, skip_faulty=True, warn=lambda _text: None)


def test_pictures_that_judge_must_not_calibrate(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "renamed.png"
    other.write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(UsageError, match=r"1 of its pictures are also calibrated with \(renamed.png"):
        refuse_overlap(chosen(folder), [other], folder)
    refuse_overlap(chosen(folder), [], folder)


def test_every_pass_gives_the_same_tensors_of_their_own(folder):
    spec = TensorSpec(name="input", shape=(1, 3, 32, 32), dtype=np.dtype(np.float32), layout="NCHW")
    preprocessor = stretch.create(stretch.Options(), spec, InputFormat(size=(32, 32), color="RGB"))
    inputs = calibration_inputs(chosen(folder).pictures, preprocessor)
    first, second = list(inputs()), list(inputs())
    assert len(first) == 10
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["input"], two["input"])
    # A buffer that is handed out again and again would make all of them the last picture.
    assert not np.array_equal(first[0]["input"], first[-1]["input"])
