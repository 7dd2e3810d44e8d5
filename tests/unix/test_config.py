"""Configuration: YAML, overrides, digests, and faults in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from unix.config import Config, json_digest
from unix.errors import ConfigError


class Inner(Config):
    rate: float = Field(default=0.1, gt=0)
    names: tuple[str, ...] = ()


class Outer(Config):
    steps: int
    inner: Inner = Inner()


def test_load_reads_yaml_and_applies_overrides_in_order(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 3\ninner: {rate: 0.5}\n")
    loaded = Outer.load(path, ["steps=4", "inner.rate=1e-3", "inner.names=[a, b]", "steps=5"])
    assert loaded == Outer(steps=5, inner=Inner(rate=0.001, names=("a", "b")))


def test_an_override_may_open_a_group_that_the_file_lacks() -> None:
    assert Outer.build({"steps": 1}, ["inner.rate=2"]).inner.rate == 2


@pytest.mark.parametrize(
    ("values", "overrides", "words"),
    [
        ({"steps": "many"}, (), ["steps", "many"]),
        ({"steps": 1, "inner": {"rate": -1}}, (), ["inner.rate", "-1"]),
        ({"steps": 1, "stepz": 2}, (), ["stepz"]),
        ({}, (), ["steps"]),
        ({"steps": "x", "inner": {"rate": "y"}}, (), ["steps", "inner.rate"]),
        ({"steps": 1}, ("steps",), ["'steps'", "a.b=value"]),
        ({"steps": 1}, ("=3",), ["a.b=value"]),
        ({"steps": 1}, ("steps.deep=3",), ["steps", "not a group"]),
        ({"steps": 1}, ("steps=[3",), ["steps=[3", "YAML"]),
    ],
)
def test_faults_name_the_field_and_the_value_on_one_line(
    values: dict[str, object], overrides: tuple[str, ...], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.build(values, overrides, origin="run.yaml")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("content", [b"a: [1", b"- 1\n- 2\n", b"just text", b"\xff\xfe\x00", b""])
def test_files_that_hold_no_mapping_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        Outer.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        Outer.load(tmp_path / "none.yaml")


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(steps=1).steps = 2  # pyright: ignore[reportAttributeAccessIssue]


def test_the_digest_counts_defaults_and_every_value() -> None:
    assert Outer(steps=1).digest() == Outer(steps=1, inner=Inner(rate=0.1)).digest()
    assert Outer(steps=1).digest() != Outer(steps=2).digest()
    assert Outer(steps=1).digest() != Outer(steps=1, inner=Inner(rate=0.2)).digest()


@given(st.dictionaries(st.text(), st.integers() | st.text()))
def test_the_json_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert json_digest(value) == json_digest(dict(reversed(value.items())))
