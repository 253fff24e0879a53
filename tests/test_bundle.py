"""Bundles: what goes in comes out, byte for byte; what does not belong there is refused and leaves nothing."""

import json
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import yaml

from edgevision import bundle as bundles
from edgevision import model_store
from edgevision.bundle import INDEX, export_bundle, import_bundle
from edgevision.errors import EdgevisionError, ModelError, StateError, UsageError

PHOTOS = Path(bundles.__file__).parent / "data" / "photos"


@pytest.fixture(autouse=True)
def models_dir(tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("EDGEVISION_MODELS", str(folder))
    return folder


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The shipped model's bundle."""
    path = tmp_path_factory.mktemp("bundle") / "b.bundle"
    done = export_bundle(model_store.find("efficientnet-lite0"), path)
    assert done.missing == ()
    return path.read_bytes()


@pytest.fixture
def members(content, tmp_path):
    path = tmp_path / "whole"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def pack(path, members, *, index=None, **settings):
    """A bundle of these members, its index made to fit unless one is given."""
    import hashlib

    if index is None:
        index = json.loads(members[INDEX])
        index["members"] = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in members.items()
            if name != INDEX
        }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in {**members, INDEX: json.dumps(index).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), data, **settings)
    return path


def refused(path, words, models_dir):
    with pytest.raises(ModelError, match=words) as caught:
        import_bundle(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not models_dir.exists() or list(models_dir.iterdir()) == []


def test_what_goes_in_comes_out_and_works(content, tmp_path, models_dir):
    path = tmp_path / "b"
    path.write_bytes(content)
    shipped = model_store.find("efficientnet-lite0")
    own = import_bundle(path)
    assert own.path == models_dir / "efficientnet-lite0"
    assert own.manifest == shipped.manifest
    for file in own.path.iterdir():
        assert file.read_bytes() == (shipped.path / file.name).read_bytes()
    assert {"model.yaml", "labels.txt", "README.md", "NOTICE"} <= {file.name for file in own.path.iterdir()}
    assert model_store.verify(own) == {"onnxrt": "ok", "litert": "ok"}
    assert sorted(path.name for path in models_dir.iterdir()) == ["efficientnet-lite0"]
    again = tmp_path / "again"
    export_bundle(own, again)
    assert again.read_bytes() == content  # other times, another folder: the same bytes


def test_names_and_replacing(content, tmp_path, models_dir):
    path = tmp_path / "b"
    path.write_bytes(content)
    import_bundle(path)
    with pytest.raises(UsageError, match="is there already; choose another with --name, or say --replace"):
        import_bundle(path)
    other = import_bundle(path, name="second")
    assert other.manifest.name == "second"
    assert model_store.verify(other) == {"onnxrt": "ok", "litert": "ok"}
    (models_dir / "efficientnet-lite0" / "stray").write_text("old")
    replaced = import_bundle(path, replace=True)
    assert not (replaced.path / "stray").exists()
    assert sorted(folder.name for folder in models_dir.iterdir()) == ["efficientnet-lite0", "second"]
    for name in ("../up", "", "Upper", "a/b", ".hidden"):
        with pytest.raises(UsageError, match="is no name for a model"):
            import_bundle(path, name=name)


def test_weights_that_are_missing_or_altered_are_not_exported_in_silence(tmp_path, models_dir, content):
    path = tmp_path / "b"
    path.write_bytes(content)
    own = import_bundle(path)
    (own.path / "efficientnet-lite0-int8.tflite").unlink()
    assert export_bundle(own, tmp_path / "half").missing == ("efficientnet-lite0-int8.tflite",)
    half = import_bundle(tmp_path / "half", name="half")
    assert model_store.verify(half)["onnxrt"] == "ok"
    assert model_store.verify(half)["litert"].startswith("not here")
    (own.path / "efficientnet-lite0-int8.onnx").write_bytes(b"altered")
    with pytest.raises(ModelError, match=r"is not what model.yaml says"):
        export_bundle(own, tmp_path / "no")
    (own.path / "efficientnet-lite0-int8.onnx").unlink()
    with pytest.raises(ModelError, match="none of its weights are here"):
        export_bundle(own, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".part")] == []


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    path = tmp_path / "b"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        export_bundle(model_store.find("efficientnet-lite0"), path)
    assert path.read_text() == "mine"
    with pytest.raises(StateError, match="cannot be written"):
        export_bundle(model_store.find("efficientnet-lite0"), tmp_path / "no" / "b")
    with pytest.raises(StateError, match="cannot be read"):
        import_bundle(tmp_path / "none")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/b", "..", ".hidden", "a\\b", "x" * 200, "evil\n", "ünicode"]
)
def test_a_member_cannot_leave_the_folder(members, tmp_path, models_dir, name):
    refused(pack(tmp_path / "b", {**members, name: b"evil"}), INDEX, models_dir)
    assert not (tmp_path / "evil").exists()


def test_only_what_belongs_to_a_model_is_taken(members, tmp_path, models_dir):
    refused(
        pack(tmp_path / "b", {**members, "run.sh": b"evil"}),
        r"holds 'run.sh', which its model.yaml does not name",
        models_dir,
    )
    without = {name: data for name, data in members.items() if name != "model.yaml"}
    refused(pack(tmp_path / "c", without), r"holds no model.yaml", models_dir)
    index = json.loads(members[INDEX])
    refused(pack(tmp_path / "d", {**members, "extra": b""}, index=index), "does not list 'extra'", models_dir)
    index["members"]["gone"] = {"sha256": "0" * 64, "size": 1}
    refused(pack(tmp_path / "e", members, index=index), "lists, and it does not hold, 'gone'", models_dir)
    refused(pack(tmp_path / "f", {f"m{n}": b"" for n in range(40)}, index={}), "holds 41 files", models_dir)


def test_hashes_are_checked_against_the_index_and_against_model_yaml(members, tmp_path, models_dir):
    labels = members["labels.txt"]
    index = json.loads(members[INDEX])
    swapped = {**members, "labels.txt": labels[:-2] + b"X\n"}
    refused(pack(tmp_path / "b", swapped, index=index), "labels.txt: was altered", models_dir)
    weights = {**members, "efficientnet-lite0-int8.onnx": b"\0" * len(members["efficientnet-lite0-int8.onnx"])}
    refused(pack(tmp_path / "c", weights), "say different sizes or sha256s", models_dir)
    manifest = {**members, "model.yaml": members["model.yaml"].replace(b"version: ", b"version: 9")}
    refused(pack(tmp_path / "d", manifest, index=index), "model.yaml", models_dir)
    broken = {**members, "model.yaml": b"name: [\n"}
    refused(pack(tmp_path / "e", broken), "is not YAML", models_dir)


def test_compressed_double_and_overlapping_members_are_refused(members, tmp_path, models_dir):
    packed = pack(tmp_path / "b", members, compress_type=zipfile.ZIP_DEFLATED)
    refused(packed, "is compressed or encrypted", models_dir)
    double = pack(tmp_path / "c", members)
    with zipfile.ZipFile(double, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("labels.txt", b"other")
    refused(double, "holds a file twice", models_dir)
    # Two entries whose data are the same bytes: the directory's offsets are turned to one place.
    overlapping = tmp_path / "d"
    with zipfile.ZipFile(overlapping, "w") as archive:
        for name in ("a", "b", "c"):
            archive.writestr(name, b"x" * 1000)
    content = bytearray(overlapping.read_bytes())
    content[content.index(b"PK\x03\x04", 1) : content.index(b"PK\x01\x02")] = b""
    directory = content.index(b"PK\x01\x02")
    for _ in range(3):
        struct.pack_into("<I", content, directory + 42, 0)
        directory = content.find(b"PK\x01\x02", directory + 1)
    struct.pack_into("<I", content, len(content) - 6, content.index(b"PK\x01\x02"))
    overlapping.write_bytes(content)
    refused(overlapping, "its members are larger than the file|is damaged", models_dir)


def test_every_cut_and_a_huge_directory_are_refused_before_they_are_read(content, tmp_path, models_dir):
    path = tmp_path / "b"
    for length in (0, 1, 21, 22, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, "is no bundle, or is cut off", models_dir)
    for field, value in ((8, 1000), (10, 1000), (12, 1 << 20), (4, 1), (20, 5)):
        spoiled = bytearray(content)
        struct.pack_into("<H" if field != 12 else "<I", spoiled, len(content) - 22 + field, value)
        path.write_bytes(spoiled)
        refused(path, "files; a bundle holds|of a kind", models_dir)
    path.write_bytes(b"PK\x06\x07" + bytes(16) + content[-22:])
    refused(path, "of a kind that", models_dir)


def test_a_huge_index_or_manifest_is_refused(members, tmp_path, models_dir):
    index = json.loads(members[INDEX])
    index["version"] = "x" * 100_000
    refused(pack(tmp_path / "b", members, index=index), "is the limit", models_dir)
    huge = {**members, "model.yaml": b"#" * (2 << 20)}
    refused(pack(tmp_path / "c", huge), "is the limit", models_dir)
    deep = pack(tmp_path / "d", members, index=json.loads(members[INDEX]) | {"version": "x" * 300})
    refused(deep, "version", models_dir)


def test_the_commands(command_line, tmp_path, models_dir, monkeypatch):
    monkeypatch.setenv("EDGEVISION_MODELS", str(models_dir))
    path = tmp_path / "b.bundle"
    done = command_line("models", "export", "efficientnet-lite0", path)
    assert done.returncode == 0, done.stderr
    assert model_store.digest(path) in done.stdout
    assert command_line("models", "export", "efficientnet-lite0", path).returncode == 2
    done = command_line("models", "import", path, "--name", "mine")
    assert done.returncode == 0, done.stderr
    assert "mine: imported" in done.stdout
    done = command_line("predict", "mine", PHOTOS / "coffee.jpg")
    assert "espresso" in done.stdout
    path.write_bytes(path.read_bytes()[:-1])
    done = command_line("models", "import", path, "--name", "other")
    assert done.returncode == 4
    assert "is cut off" in done.stderr


def own(models_dir, name="mine"):
    shutil.copytree(model_store.find("efficientnet-lite0").path, models_dir / name)
    manifest = yaml.safe_load((models_dir / name / "model.yaml").read_text())
    (models_dir / name / "model.yaml").write_text(yaml.safe_dump({**manifest, "name": name}))


def test_removing(command_line, tmp_path, models_dir, monkeypatch):
    monkeypatch.setenv("EDGEVISION_MODELS", str(models_dir))
    own(models_dir)
    own(models_dir, "efficientnet-lite0")
    config = tmp_path / "c.yaml"
    for named in ("mine", str(models_dir / "mine")):
        config.write_text(f"device: x\nmodels:\n  m: {{threads: 1,\n    model: {named}}}\n")
        done = command_line("models", "remove", "mine", "-c", config, "--yes")
        assert done.returncode == 2
        assert f"{config}:4: models.m.model: uses" in done.stderr
    config.write_text("models:\n  m:\n    model: ${LINE_MODEL}\n")
    done = command_line("models", "remove", "mine", "-c", config, "--yes")
    assert done.returncode == 2
    assert "the environment has no LINE_MODEL" in done.stderr
    monkeypatch.setenv("LINE_MODEL", "mine")
    done = command_line("models", "remove", "mine", "-c", config, "--yes")
    assert f"{config}:3: models.m.model: uses" in done.stderr
    done = command_line("models", "remove", "mine")
    assert done.returncode == 2
    assert "say --yes" in done.stderr
    assert (models_dir / "mine" / "model.yaml").is_file()
    config.write_text("models: {m: {model: efficientnet-lite0}, odd: 3}\n")
    done = command_line("models", "remove", "mine", "--yes", "-c", config)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in models_dir.iterdir()) == ["efficientnet-lite0"]
    done = command_line("models", "remove", "efficientnet-lite0", "--yes")
    assert "the shipped one in" in done.stdout
    done = command_line("models", "remove", "efficientnet-lite0", "--yes")
    assert done.returncode == 2
    assert "is shipped with edgevision and stays" in done.stderr
    assert command_line("models", "remove", "none", "--yes").returncode == 2
    assert command_line("models", "remove", "efficientnet-lite0", "-c", tmp_path / "none.yaml").returncode == 2


def test_a_model_elsewhere_is_not_removed(tmp_path, models_dir):
    own(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="does not lie in"):
        model_store.remove(model_store.find(str(tmp_path / "elsewhere" / "mine")))
    models_dir.mkdir()
    (models_dir / "mine").symlink_to(tmp_path / "elsewhere" / "mine")
    model_store.remove(model_store.find("mine"))
    assert (tmp_path / "elsewhere" / "mine" / "model.yaml").is_file()  # only the link is ours
    assert list(models_dir.iterdir()) == []


def test_every_error_is_one_of_ours(tmp_path, models_dir):
    """Single bytes spoiled, of a bundle that is nearly all structure."""
    folder = models_dir / "tiny"
    folder.mkdir(parents=True)
    (folder / "m.onnx").write_bytes(b"weights")
    entry = {"path": "m.onnx", "sha256": model_store.digest_of(b"weights"), "size": 7}
    manifest = {
        "name": "tiny", "version": "1", "task": "detection", "family": "yolox", "files": {"onnxrt": entry},
        "input": {"size": [4, 4], "resize": "stretch"}, "outputs": {"predictions": "o"}, "licence": "x", "source": "test",
    }  # fmt: skip
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    path = tmp_path / "b"
    export_bundle(model_store.find("tiny"), path)
    content = path.read_bytes()
    taken = 0
    for place in range(0, len(content), 3):
        spoiled = bytearray(content)
        spoiled[place] ^= 0xFF
        path.write_bytes(spoiled)
        try:
            own = import_bundle(path, name="m", replace=True)
        except EdgevisionError:
            continue
        taken += 1
        assert model_store.verify(own) == {"onnxrt": "ok"}  # a date, or a flag that says nothing
    assert taken < 0.2 * len(content)
    assert sorted(folder.name for folder in models_dir.iterdir()) == ["m", "tiny"]
