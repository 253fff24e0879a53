"""`edgevision dataset` as a user meets it: real processes, exit statuses, one line for a mistake."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest


@pytest.fixture
def run():
    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "edgevision", "dataset", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


@pytest.fixture
def bolts(tmp_path):
    """A YOLO dataset of 20 pictures."""
    for number in range(20):
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        path = tmp_path / "bolts" / "images" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC))
        label = tmp_path / "bolts" / "labels" / f"{number:02d}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(f"{number % 2} .5 .5 .4 .4\n")
    (tmp_path / "bolts" / "data.yaml").write_text("train: images\nval: images\nnames: [bolt, nut]\n")
    return tmp_path / "bolts"


def test_help_has_examples(run):
    for name in ("stats", "split", "convert", "merge", "augment"):
        done = run(name, "--help")
        assert done.returncode == 0
        assert "Example" in done.stdout


def test_stats_as_table_and_as_json(run, bolts):
    table = run("stats", bolts)
    assert table.returncode == 0
    assert "20, 0 of them without a label" in table.stdout
    assert "0 faults" in table.stdout
    found = json.loads(run("stats", bolts, "--json").stdout)
    assert [label["boxes"] for label in found["labels"]] == [10, 10]


def test_faults_are_lines_and_strict_is_a_status(run, bolts):
    (bolts / "labels" / "03.txt").write_text("0 .5 .5 .4 .4\n7 .5 .5 .1 .1\n")
    (bolts / "images" / "05.png").write_bytes((bolts / "images" / "05.png").read_bytes()[:300])
    done = run("stats", bolts)
    assert done.returncode == 0
    assert f"fault: {bolts / 'labels' / '03.txt'}:2: there is no class 7 (known: 0 to 1); it is left out" in done.stdout
    assert "05.png: the PNG file is cut off" in done.stdout
    assert run("stats", bolts, "--strict").returncode == 6
    refused = run("convert", bolts, "--to", "voc", "--out", bolts.parent / "voc")
    assert refused.returncode == 6
    assert "2 faults; mend them, or leave them out with --skip-faulty" in refused.stderr
    assert not (bolts.parent / "voc").exists()
    done = run("convert", bolts, "--to", "voc", "--out", bolts.parent / "voc", "--skip-faulty")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{bolts.parent / 'voc'}: 19 pictures written as voc")
    assert "2 faults; what they name is left out" in done.stderr


def test_split_convert_merge_and_augment(run, bolts, tmp_path):
    shown = run("split", bolts, "--dry-run")
    assert shown.returncode == 0
    assert "(pictures)" in shown.stdout
    done = run("split", bolts, "--out", tmp_path / "parts", "--seed", "3", "--to", "coco")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        f"{tmp_path / 'parts'}: written: train, validation, test",
    )
    assert (
        run("convert", tmp_path / "parts", "--split", "val", "--to", "yolo", "--out", tmp_path / "yolo").returncode == 0
    )
    train = tmp_path / "parts" / "train"
    done = run(
        "augment",
        train,
        "--out",
        tmp_path / "more",
        "--preview",
        tmp_path / "sheet.png",
        "--ops",
        "rotate,erase,cutmix",
    )
    assert done.returncode == 0
    assert "14 pictures and 14 changed copies written" in done.stdout
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
    refused = run("augment", tmp_path / "parts" / "test", "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert "held-out test set" in refused.stderr
    done = run("merge", train, tmp_path / "more", "--out", tmp_path / "all")
    assert done.returncode == 0
    assert "28 pictures with 2 labels written as coco; 0 renamed, 14 copies left out" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["stats", "/nowhere"], 2, "no such file or folder"),
        (["stats", "."], 2, "is of no known format"),
        (["stats", "BOLTS", "--split", "test"], 2, "has no part 'test'"),
        (["stats", "BOLTS", "--format", "yol"], 2, "did you mean 'yolo'"),
        (["split", "BOLTS"], 2, "give --out DIR"),
        (["split", "BOLTS", "--dry-run", "--ratios", "70/30"], 2, "must be three numbers"),
        (["convert", "BOLTS", "--to", "folders", "--out", "x"], 2, "cannot store; choose coco, yolo, voc"),
        (["convert", "BOLTS", "--to", "coco", "--out", "BOLTS"], 2, "is not empty"),
        (["merge", "BOLTS", "--out", "x"], 2, "two or more"),
        (["augment", "BOLTS"], 2, "give --out DIR, or --preview"),
        (["augment", "BOLTS", "--preview", "x.txt"], 2, "must end in .png"),
        (["augment", "BOLTS", "--preview", "x.png", "--ops", "twist"], 2, "unknown operation 'twist'"),
    ],
)
def test_a_users_mistake_is_one_line(run, bolts, monkeypatch, tmp_path, arguments, status, words):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done = run(*(str(bolts) if argument == "BOLTS" else argument for argument in arguments))
    assert done.returncode == status
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "empty").iterdir())
