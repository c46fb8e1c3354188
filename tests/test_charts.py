"""Charts: sampling, tables, aggregation, exports, their routes; hostile files."""

import csv
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from maths_app import NOT_MATHS, served
from pydantic import ValidationError
from scripted import ScriptedBackend
from starlette.testclient import TestClient

from hunyuan.charts import table as tables
from hunyuan.charts.aggregate import DataChart, data_chart
from hunyuan.charts.export import safe_cell, to_csv, to_vega_lite
from hunyuan.charts.sample import MAX_POINTS, sample
from hunyuan.charts.spec import Axis, ChartSpec, Series
from hunyuan.charts.table import Table, TableError, read_table
from hunyuan.maths.grammar import parse
from hunyuan.maths.graphs import function_graph
from hunyuan.maths.numeric import PlotError, function_of

# ---------------------------------------------------------------- functions


@pytest.mark.parametrize(
    ("expression", "reference"),
    [
        ("x^2 - 3x + 2", lambda x: x * x - 3 * x + 2),
        ("sin(x)^2 + cos 2x", lambda x: math.sin(x) ** 2 + math.cos(2 * x)),
        ("e^(-x^2)", lambda x: math.exp(-x * x)),
        ("|x| + floor(x)", lambda x: abs(x) + math.floor(x)),
        ("x^(1/3)", lambda x: math.copysign(abs(x) ** (1 / 3), x)),
        ("5", lambda x: 5.0),
        ("x % 3", lambda x: x % 3),
    ],
)
def test_a_function_is_evaluated_on_arrays(
    expression: str, reference: Callable[[float], float]
) -> None:
    points = np.array([-2.3, -0.4, 0.7, 1.9, 3.3])
    found = function_of(parse(expression), "x")(points)
    assert found == pytest.approx([reference(float(x)) for x in points])


def test_a_pole_and_a_jump_are_gaps_but_a_steep_climb_is_not() -> None:
    def gaps(expression: str) -> int:
        spec = function_graph(expression, "-5", "5")
        return sum(y is None for _, y in spec.series[0].points)

    assert gaps("1/x") == 1
    assert gaps("tan(x)") == 4
    assert gaps("floor(x)") == 10
    assert gaps("atan(1000 x)") == 0
    assert gaps("x^3") == 0
    assert gaps("sqrt(x)") == 1


def test_a_bend_gets_more_points_than_a_line() -> None:
    line = sample(lambda x: 2 * x, -10, 10)
    bent = sample(lambda x: np.abs(np.sin(3 * x)), -10, 10)
    assert len(line) < len(bent) <= MAX_POINTS + 200
    xs = [x for x, _ in bent]
    assert xs == sorted(xs)


@given(st.floats(-50, 49), st.floats(0.1, 50))
@settings(max_examples=40, deadline=None)
def test_samples_lie_on_the_function_and_span_the_domain(low: float, width: float) -> None:
    points = sample(lambda x: x**3 - x, low, low + width)
    assert points[0][0] == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert points[-1][0] == pytest.approx(low + width, rel=1e-9, abs=1e-9)
    for x, y in points:
        if y is not None:
            assert y == pytest.approx(x**3 - x, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("expressions", "ends"),
    [
        ("x + y", ("", "")),
        ("sqrt(-1 - x^2)", ("", "")),
        ("x", ("5", "1")),
        ("x", ("0", "oo")),
        ("x", ("0", "")),
        ("x", ("0", "10^300")),
        ("x^2 + y^2 = 1", ("", "")),
        ("[1, 2]", ("", "")),
        ("i x", ("", "")),
        (", ".join(f"x + {n}" for n in range(9)), ("", "")),
        ("integrate(x, x)", ("", "")),
        ("9^9^9^9", ("", "")),
    ],
)
def test_what_cannot_be_drawn_says_why(expressions: str, ends: tuple[str, str]) -> None:
    with pytest.raises(PlotError) as caught:
        function_graph(expressions, *ends)
    assert any("\u4e00" <= c <= "\u9fff" for c in caught.value.zh)


def test_the_domain_may_be_an_expression() -> None:
    points = function_graph("sin(x)", "-2 pi", "2 pi").series[0].points
    assert points[0][0] == pytest.approx(-2 * math.pi)


# ---------------------------------------------------------------- tables

SALES = (
    "city,when,sales,rate\n北京,2024-01-05,10,5%\nParis,2024-01-06,20,n/a\n"
    '北京,2024-02-01,"1,005",7.5%\nParis,2024-02-02,,1%\nParis,2024-02-03,7,2%\n'
    "Lima,2024-02-03,1,2%\nLima,2024-02-03,1,2%\nLima,2024-02-03,1,2%\nLima,2024-02-04,1,2%\n"
    "Lima,2024-02-05,1,2%\nLima,2024-02-06,1,3%\n"
)


@pytest.fixture
def sales() -> Table:
    return read_table("sales.csv", SALES.encode())


def test_columns_get_their_types(sales: Table) -> None:
    kinds = {column.name: column.type for column in sales.columns}
    assert kinds == {"city": "text", "when": "date", "sales": "number", "rate": "number"}
    assert sales.column("sales").cells[:4] == [10.0, 20.0, 1005.0, None]
    assert sales.column("rate").cells[:2] == [0.05, None]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_encodings_and_delimiters_of_the_world(encoding: str, delimiter: str) -> None:
    text = f"城市{delimiter}人口\n北京{delimiter}2189\n上海{delimiter}2487\n"
    table = read_table("x", text.encode(encoding))
    assert [c.name for c in table.columns] == ["城市", "人口"]
    assert table.column("人口").cells == [2189.0, 2487.0]


def workbook(rows: list[list[Any]]) -> bytes:
    openpyxl = pytest.importorskip("openpyxl", reason="openpyxl is not installed")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def test_a_workbook_reads_like_a_csv_file() -> None:
    data = workbook([["city", "n"], ["北京", 1], ["Paris", 2.5], [None, None], ["Lima", "=1+1"]])
    table = read_table("book.xlsx", data)
    assert table.rows == 3
    assert table.column("n").cells == [1.0, 2.5, None]  # a formula without a stored value


def chart(table: Table, **choice: Any) -> ChartSpec:
    return data_chart(table, DataChart.model_validate(choice))


def test_groups_are_combined_by_each_verb(sales: Table) -> None:
    expected = {
        "sum": {"北京": 1015.0, "Paris": 27.0, "Lima": 6.0},
        "mean": {"北京": 507.5, "Paris": 13.5, "Lima": 1.0},
        "count": {"北京": 2.0, "Paris": 2.0, "Lima": 6.0},
        "min": {"北京": 10.0, "Paris": 7.0, "Lima": 1.0},
        "max": {"北京": 1005.0, "Paris": 20.0, "Lima": 1.0},
        "median": {"北京": 507.5, "Paris": 13.5, "Lima": 1.0},
    }
    for verb, values in expected.items():
        spec = chart(sales, kind="bar", x="city", y=["sales"], verb=verb)
        assert spec.x.categories is not None
        points = spec.series[0].points
        assert {spec.x.categories[int(x)]: y for x, y in points} == values


def test_bars_are_sorted_and_cut(sales: Table) -> None:
    spec = chart(sales, kind="bar", x="city", y=["sales"], verb="sum", sort="descending", top=2)
    assert spec.x.categories == ["北京", "Paris"]


def test_lines_run_along_the_dates_with_gaps_where_nothing_is_known(sales: Table) -> None:
    spec = chart(sales, kind="line", x="when", y=["sales"], group="city")
    assert spec.x.categories == sorted(spec.x.categories or [])
    beijing = next(s for s in spec.series if s.name == "北京")
    assert [y for _, y in beijing.points if y is not None] == [10.0, 1005.0]


def test_a_histogram_counts_every_value_once(sales: Table) -> None:
    for bins in (0, 1, 7, 100):
        points = chart(sales, kind="histogram", x="sales", bins=bins).series[0].points
        assert sum(y or 0 for _, y in points) == 10


def test_a_histogram_of_one_value_has_one_bar() -> None:
    table = read_table("x", b"n\n5\n5\n5\n")
    assert [y for _, y in chart(table, kind="histogram", x="n").series[0].points] == [3.0]


def test_small_slices_of_a_pie_are_joined_and_the_whole_stays(sales: Table) -> None:
    spec = chart(sales, kind="pie", x="city", y=["sales"], top=2)
    assert spec.x.categories == ["北京", "…"]
    assert sum(y or 0 for _, y in spec.series[0].points) == 1048.0


def test_a_heat_map_has_a_cell_for_each_pair(sales: Table) -> None:
    spec = chart(sales, kind="heatmap", x="when", group="city", y=["sales"], verb="sum")
    assert spec.cells is not None
    assert sum(v or 0 for _, _, v in spec.cells) == 1048.0


@pytest.mark.parametrize(
    "choice",
    [
        {"kind": "bar", "x": "nowhere", "y": ["sales"]},
        {"kind": "bar", "x": "city", "y": ["when"]},
        {"kind": "bar", "x": "city"},
        {"kind": "scatter", "x": "city", "y": ["sales"]},
        {"kind": "scatter", "x": "sales"},
        {"kind": "histogram", "x": "city"},
        {"kind": "heatmap", "x": "city", "y": ["sales"]},
    ],
)
def test_columns_that_do_not_fit_the_chart_are_named(sales: Table, choice: dict[str, Any]) -> None:
    with pytest.raises(TableError):
        chart(sales, **choice)


# ---------------------------------------------------------------- the specification


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "line", "series": []},
        {"kind": "line", "series": [{"points": [[0, float("nan")]]}]},
        {"kind": "line", "series": [{"points": [[0, float("inf")]]}]},
        {"kind": "line", "series": [{"points": [[0, 0]] * 20_001}]},
        {"kind": "line", "series": [{"points": []}] * 25},
        {"kind": "radar", "series": [{"points": []}]},
        {"kind": "line", "series": [{"points": []}], "formatter": "<b>"},
        {"kind": "line", "title": "x" * 201, "series": [{"points": []}]},
        {"kind": "bar", "x": {"categories": ["a"]}, "series": [{"points": [[1, 1]]}]},
        {"kind": "bar", "x": {"categories": ["a"]}, "series": [{"points": [[0.5, 1]]}]},
        {"kind": "pie", "x": {"categories": ["a"]}, "series": [{"points": [[0, -1]]}]},
        {"kind": "pie", "series": [{"points": [[0, 1]]}]},
        {"kind": "heatmap", "x": {"categories": ["a"]}, "y": {"categories": ["b"]},
         "cells": [[1, 0, 1]]},
        {"kind": "heatmap", "cells": [[0, 0, 1]]},
        {"kind": "line", "series": [{"points": []}], "cells": []},
    ],
)  # fmt: skip
def test_a_specification_that_could_mislead_the_page_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ChartSpec.model_validate(bad)


RISKY = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


def test_exported_cells_cannot_be_formulas() -> None:
    names = [*RISKY, "plain", "a,b", 'quote"']
    spec = ChartSpec(
        kind="bar",
        x=Axis(label="=HYPERLINK(1)", categories=names),
        series=[Series(name="@x", points=[(float(i), -1.0) for i in range(len(names))])],
    )
    rows = list(csv.reader(io.StringIO(to_csv(spec), newline="")))
    assert rows[0] == ["'=HYPERLINK(1)", "'@x"]
    texts = [row[0] for row in rows[1:]]
    assert texts == [safe_cell(name) for name in names]
    assert all(not text.startswith(("=", "+", "-", "@", "\t", "\r")) for text in texts)
    assert {row[1] for row in rows[1:]} == {"-1.0"}  # numbers stay numbers


def test_exports_have_every_point() -> None:
    spec = function_graph("x^2, 1/x", "-1", "1")
    rows = list(csv.reader(io.StringIO(to_csv(spec), newline="")))
    assert rows[0] == ["x", "x^2", "1/x"]
    assert len(rows) - 1 == len({x for s in spec.series for x, _ in s.points})
    document = to_vega_lite(spec)
    assert len(document["data"]["values"]) == sum(len(s.points) for s in spec.series)
    json.dumps(document, allow_nan=False)
    cloud = ChartSpec(kind="scatter", series=[Series(name="a", points=[(1, 2), (1, 3)])])
    assert to_csv(cloud).count("\n") == 3


# ---------------------------------------------------------------- routes and hostile files


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served(ScriptedBackend([NOT_MATHS])) as started:
        yield started


def put(client: TestClient, data: bytes, name: str = "x", lang: str = "en") -> Any:
    headers = {"Content-Type": "application/octet-stream", "Accept-Language": lang}
    return client.put(f"/workbench/charts/table?name={name}", content=data, headers=headers)


def test_from_upload_to_export(client: TestClient) -> None:
    made = put(client, SALES.encode(), "sales").json()
    assert made["rows"] == 11
    assert made["columns"][2] | {"sample": 0} == {
        "name": "sales", "type": "number", "sample": 0, "different": 5, "empty": 1
    }  # fmt: skip
    wish = {"kind": "bar", "x": "city", "y": ["sales"], "verb": "sum"}
    reply = client.post("/workbench/charts/data", json={"table": made["id"], "chart": wish}).json()
    assert reply["chart"]["series"][0]["name"] == "sum(sales)"
    for form, key in (("csv", "text"), ("vega-lite", "document")):
        body = {"chart": reply["chart"], "form": form}
        assert client.post("/workbench/charts/export", json=body).json()[key]


def test_a_forgotten_table_is_a_404(client: TestClient) -> None:
    wish = {"kind": "bar", "x": "a", "verb": "count"}
    reply = client.post("/workbench/charts/data", json={"table": "no", "chart": wish})
    assert reply.status_code == 404


def test_graphs_of_plain_notation_and_latex(client: TestClient) -> None:
    for text in ("x^2", r"\frac{1}{2}x^2", "y = x^2"):
        reply = client.post("/workbench/charts/function", json={"expressions": text})
        assert reply.json()["chart"]["kind"] == "function"
    bad = client.post("/workbench/charts/function", json={"expressions": "x + y"})
    assert bad.status_code == 400


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def rezipped(change: Callable[[str, bytes], bytes]) -> bytes:
    """A good workbook with its parts changed."""
    good = workbook([["a", "b"], ["x", 1], ["y", 2]])
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        return zipped({n: change(n, archive.read(n)) for n in archive.namelist()})


def laughs(name: str, content: bytes) -> bytes:
    if name != "xl/worksheets/sheet1.xml":
        return content
    entities = b'<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9)
    )
    return content.replace(b"<worksheet", b"<!DOCTYPE x [" + entities + b"]><worksheet", 1)


def late_laughs(name: str, content: bytes) -> bytes:
    if name != "xl/worksheets/sheet1.xml":
        return content
    padding = b"<!-- " + b"x" * 2_000_000 + b" -->"
    return padding + laughs(name, content)


def external(name: str, content: bytes) -> bytes:
    if name != "xl/workbook.xml":
        return content
    entity = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    return content.replace(b"<workbook", entity + b"<workbook", 1)


def bomb() -> bytes:
    return rezipped(lambda n, c: b" " * 200_000_000 if n == "xl/worksheets/sheet1.xml" else c)


def rows(count: int, columns: int) -> bytes:
    return ("\n".join([",".join(f"c{i}" for i in range(columns))] * count)).encode()


HOSTILE: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "headings"),
    ("headings only", lambda: b"a,b\n", "headings"),
    ("nothing in it", lambda: b"a,b\n,\n \n", "headings"),
    ("zeros", lambda: b"\x00" * 1000, "not text"),
    ("an image", lambda: b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" * 20, "not text"),
    ("old Excel", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 100, ".xls"),
    ("too many rows", lambda: rows(100_003, 1), "rows"),
    ("too many columns", lambda: rows(3, 201), "columns"),
    ("a field without end", lambda: b'a,b\n"' + b"x" * 300_000, "line"),
    ("a zip of nothing", lambda: zipped({}) or b"PK\x03\x04", "not text"),
    ("a zip of something else", lambda: zipped({"a.txt": b"hello"}), "readable"),
    ("half a zip", lambda: rezipped(lambda n, c: c)[:600], "readable"),
    ("a zip bomb", bomb, "unpacks"),
    ("many parts", lambda: zipped({f"p{i}": b"" for i in range(2001)}), "unpacks"),
    ("billion laughs", lambda: rezipped(laughs), "entities"),
    ("billion laughs behind padding", lambda: rezipped(late_laughs), "entities"),
    ("an external entity", lambda: rezipped(external), "entities"),
    ("UTF-16 parts", lambda: rezipped(
        lambda n, c: c.decode().encode("utf-16") if n.endswith("sheet1.xml") else c), "entities"),
    ("broken XML", lambda: rezipped(
        lambda n, c: c[:200] if n.endswith("sheet1.xml") else c), "readable|headings"),
    ("names with dots", lambda: zipped({"../../evil": b"x", "a.xml": b"<a/>"}), "readable"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "made", "reason"), HOSTILE, ids=[h[0] for h in HOSTILE])
def test_hostile_files_are_refused_quickly_and_the_next_is_fine(
    client: TestClient, name: str, made: Callable[[], bytes], reason: str
) -> None:
    data = made()
    start = time.monotonic()
    reply = put(client, data)
    assert time.monotonic() - start < 3
    assert reply.status_code == 400, reply.text
    message = reply.json()["error"]["message"]
    assert any(part in message for part in reason.split("|")), message
    chinese = put(client, data, lang="zh").json()["error"]["message"]
    assert any("\u4e00" <= c <= "\u9fff" for c in chinese)
    assert put(client, b"a,b\n1,2\n").status_code == 200


def test_a_body_without_end_is_cut_off(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hunyuan.workbench.maths.MAX_BYTES", 1000)
    assert put(client, b"a,b\n" + b"1,2\n" * 1000).status_code == 413


def test_numbers_that_are_none_stay_out() -> None:
    table = read_table("x", b"n,m\n1,nan\n2,inf\n3,1e999\n4,-Infinity\n5,7\n")
    assert table.column("n").type == "number"
    assert table.column("m").type == "text"
    assert tables._number("1e400") is None
    assert tables._number(float("nan")) is None
    assert tables._number(True) is None


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_table_or_refused(data: bytes) -> None:
    try:
        table = read_table("x", data)
    except TableError:
        return
    assert table.columns
    assert len({len(column.cells) for column in table.columns}) == 1
