from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from edgevision import documents
from edgevision.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    port: int
    password: int | None = None


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    inner: Inner
    several: list[Inner] = []


def parse(text):
    return documents.parse(text, file="f.yaml", error=ConfigError)


def faults_of(text):
    with pytest.raises(ConfigError) as caught:
        documents.validate(parse(text), Outer, error=ConfigError)
    return [(fault.line, fault.key, fault.problem) for fault in caught.value.faults]


def test_every_fault_is_found_at_once_each_with_its_line():
    found = faults_of("nam: x\ninner:\n  port: abc\n  prt: 1\nseveral:\n  - {port: 1}\n  - {}\n")
    assert [(line, key) for line, key, _ in found] == [
        (1, "nam"),
        (1, "name"),
        (3, "inner.port"),
        (4, "inner.prt"),
        (7, "several[1].port"),
    ]
    problems = {key: problem for _, key, problem in found}
    assert "did you mean 'name'?" in problems["nam"]
    assert "found 'abc'" in problems["inner.port"]
    assert "did you mean 'port'?" in problems["inner.prt"]
    assert "missing" in problems["several[1].port"]


def test_a_secret_is_not_shown():
    (fault,) = faults_of("name: x\ninner: {port: 1, password: hunter2}\n")
    assert "hunter2" not in fault[2]


def test_a_key_that_stands_twice_is_a_fault():
    with pytest.raises(ConfigError, match=r"f\.yaml:3: inner\.port: stands twice \(first on line 2\)"):
        parse("inner:\n  port: 1\n  port: 2\n")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1, 2\nb: 3\n", 2, "is not YAML"),
        ("a: *nobody\n", 1, "nobody"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, None),
        ("\ta: 1\n", 1, "is not YAML"),
        ("a: 2026-13-45\n", 1, "is no plain value"),
    ],
)
def test_what_is_no_plain_yaml_is_told_with_its_line(text, line, words):
    if words is None:
        # A tag builds no object: the value stays the plain list that it holds.
        assert parse(text).data == {"a": ["true"]}
        return
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.faults[0].line == line
    assert words in caught.value.faults[0].problem


def test_anchors_work_and_do_not_blow_up():
    assert parse("a: &x {p: 1}\nb:\n  <<: *x\n  q: 2\n").data == {"a": {"p": 1}, "b": {"p": 1, "q": 2}}
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="which is the limit"):
        parse("\n".join(levels))


def test_an_alias_inside_itself_is_refused():
    with pytest.raises(ConfigError, match="which is the limit"):
        parse("a: &a [*a]\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: \xff\xfe\n", "is not UTF-8"),
        (b"x" * (documents.MAX_BYTES + 1), "larger than"),
        (b"", "found nothing"),
        (b"- a\n", "found a list"),
    ],
)
def test_a_file_that_is_no_document(tmp_path: Path, content, words):
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        documents.validate(documents.read(path, error=ConfigError), Outer, error=ConfigError)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        documents.read(tmp_path / "none.yaml", error=ConfigError)


@given(st.text(max_size=200))
def test_any_text_is_a_document_or_one_of_our_errors(text):
    # No text is a whole Outer by chance: what must not happen is any other exception.
    with pytest.raises(ConfigError) as caught:
        documents.validate(parse(text), Outer, error=ConfigError)
    assert caught.value.faults
