"""Settings files: what is unknown, of a wrong type or missing is named; overrides are TOML."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hunyuan.errors import UsageError
from hunyuan.settings import changed, read_table, settings


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float
    inner: Inner
    kind: Literal["small", "large"] = "small"
    on: bool = False
    maybe: int | None = None
    path: Path = Path("here")
    free: dict[str, Any] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    inners: tuple[Inner, ...] = ()
    count: int = 0


GOOD: dict[str, Any] = {"rate": 0.5, "inner": {"depth": 3}}


def refused(table: dict[str, Any], where: str = "") -> UsageError:
    with pytest.raises(UsageError) as caught:
        settings(Outer, table, where)
    assert "\n" not in caught.value.en
    return caught.value


def test_a_table_becomes_the_dataclass() -> None:
    table = GOOD | {
        "inner": {"depth": 3, "names": ["a", "b"]},
        "kind": "large",
        "on": True,
        "maybe": 4,
        "path": "there/too",
        "free": {"a": [1, {"b": 2}]},
        "numbers": {"x": 1},
        "inners": [{"depth": 1}, {"depth": 2}],
    }
    assert settings(Outer, table) == Outer(
        rate=0.5,
        inner=Inner(depth=3, names=("a", "b")),
        kind="large",
        on=True,
        maybe=4,
        path=Path("there/too"),
        free={"a": [1, {"b": 2}]},
        numbers={"x": 1.0},
        inners=(Inner(depth=1), Inner(depth=2)),
    )


def test_whole_numbers_serve_as_numbers_and_become_them() -> None:
    made = settings(Outer, GOOD | {"rate": 2, "numbers": {"x": 3}})
    assert isinstance(made.rate, float)
    assert isinstance(made.numbers["x"], float)


@pytest.mark.parametrize(
    ("table", "english", "chinese"),
    [
        ({"rat": 1.0}, "rat is unknown; did you mean rate?", "未知的设置项 rat；是否想用 rate？"),
        ({"inner": {"deph": 1}}, "inner.deph is unknown; did you mean inner.depth?", "inner.deph"),
        (
            {"zzz": 1},
            "zzz is unknown; known: rate, inner, kind, on, maybe, path, free, numbers, inners, "
            "count",
            "未知的设置项 zzz；可用：rate",
        ),
        ({"inner": {}}, "inner.depth is missing", "缺少 inner.depth"),
        ({"rate": "fast"}, "rate='fast' must be a number", "rate='fast' 必须是数字"),
        ({"rate": True}, "rate=True must be a number", "rate=True 必须是数字"),
        ({"count": 1.5}, "count=1.5 must be a whole number", "必须是整数"),
        ({"count": False}, "count=False must be a whole number", "必须是整数"),
        ({"maybe": "4"}, "maybe='4' must be a whole number", "必须是整数"),
        ({"on": 1}, "on=1 must be true or false", "必须是true 或 false"),
        ({"path": 3}, "path=3 must be a path", "必须是路径"),
        ({"inner": 3}, "inner=3 must be a table", "inner=3 必须是表"),
        ({"free": []}, "free=[] must be a table", "必须是表"),
        ({"numbers": {"x": "y"}}, "numbers.x='y' must be a number", "numbers.x='y'"),
        ({"inners": {"depth": 1}}, "inners={'depth': 1} must be a list", "必须是列表"),
        ({"inners": [{"depth": 1}, {"dept": 2}]}, "inners[1].dept is unknown", "inners[1].dept"),
        (
            {"inner": {"depth": 1, "names": ["a", 2]}},
            "inner.names[1]=2 must be a text",
            "inner.names[1]=2 必须是文本",
        ),
        ({"kind": "big"}, "kind='big' is unknown; use small, large", "请使用 small、large"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, Any], english: str, chinese: str) -> None:
    error = refused(GOOD | table)
    assert english in error.en
    assert chinese in error.zh


def test_a_missing_key_is_named_with_its_section() -> None:
    assert refused({"inner": {"depth": 1}}).en == "rate is missing"
    assert refused({"rate": 1.0, "inner": {}}, "part.").en == "part.inner.depth is missing"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["depth", "names", "x"]), st.integers(), max_size=2),
)


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from([f.name for f in fields(Outer)]), SCALARS))
def test_anything_is_either_taken_with_its_types_or_refused_in_one_line(
    table: dict[str, Any],
) -> None:
    try:
        made = settings(Outer, GOOD | table)
    except UsageError:
        assert any(refused(GOOD | table).en.startswith(name) for name in table)
        return
    assert type(made.rate) is float
    assert type(made.count) is int
    assert type(made.on) is bool
    assert made.maybe is None or type(made.maybe) is int
    assert isinstance(made.inner, Inner)
    assert made.kind in ("small", "large")


# ---------------------------------------------------------------- files and overrides


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_overrides_are_read_as_toml_and_else_are_text(tmp_path: Path) -> None:
    path = written(tmp_path, "task = 'a'\n[section]\nkeep = 1\nnumber = 2\n")
    overrides = (
        "section.number=0.5",
        "section.new.deep=[1, 2]",
        "other.flag = true",
        "task=plain text",
        "section.table={ a = 1 }",
        'quoted="x=y"',
    )
    assert read_table(path, overrides) == {
        "task": "plain text",
        "section": {"keep": 1, "number": 0.5, "new": {"deep": [1, 2]}, "table": {"a": 1}},
        "other": {"flag": True},
        "quoted": "x=y",
    }


@pytest.mark.parametrize(
    ("override", "english"),
    [
        ("section.number", "--set section.number: must be section.key=value"),
        ("=3", "must be section.key=value"),
        ("section..number=3", "must be section.key=value"),
        ("task.number=3", "--set task.number=3: task is no section"),
    ],
)
def test_a_malformed_override_is_named(tmp_path: Path, override: str, english: str) -> None:
    path = written(tmp_path, "task = 'a'\n")
    with pytest.raises(UsageError) as caught:
        read_table(path, (override,))
    assert english in caught.value.en


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml: No such file.*give a recipe"):
        read_table(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="Is a directory"):
        read_table(tmp_path)
    with pytest.raises(UsageError, match=r"r\.toml: .*line 2"):
        read_table(written(tmp_path, "a = 1\nb = \n"))
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"b\.toml: is no UTF-8 text"):
        read_table(tmp_path / "b.toml")


def test_changes_are_listed_key_by_key() -> None:
    before = {"a": 1, "s": {"x": 1, "y": [1]}, "gone": True}
    after = {"a": 1, "s": {"x": 2, "y": [1]}, "new": "n"}
    assert changed(before, after) == ["gone: True -> None", "new: None -> 'n'", "s.x: 1 -> 2"]
    assert changed(before, before) == []
