"""A chart's data as CSV, and the chart as Vega-Lite for other programs."""

import csv
import io
from typing import Any

from hunyuan.charts.spec import ChartSpec

RISKY = ("=", "+", "-", "@", "\t", "\r")


def safe_cell(text: str) -> str:
    """A text that a spreadsheet shows and does not run as a formula."""
    return f"'{text}" if text.startswith(RISKY) else text


def to_csv(spec: ChartSpec) -> str:
    """One row a point: the x, then a column for each series (or x, y, value of a heat-map)."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    names = [safe_cell(series.name or spec.y.label or "y") for series in spec.series]
    x_label = safe_cell(spec.x.label or "x")
    if spec.kind == "heatmap":
        assert spec.cells is not None
        assert spec.x.categories is not None
        assert spec.y.categories is not None
        writer.writerow([x_label, safe_cell(spec.y.label or "y"), "value"])
        for i, j, value in spec.cells:
            writer.writerow(
                [safe_cell(spec.x.categories[i]), safe_cell(spec.y.categories[j]), _number(value)]
            )
        return out.getvalue()
    if any(len({x for x, _ in series.points}) < len(series.points) for series in spec.series):
        # A cloud may have several points above one x: a row for each, with its series.
        writer.writerow(["series", x_label, safe_cell(spec.y.label or "y")])
        for series in spec.series:
            writer.writerows([safe_cell(series.name), x, _number(y)] for x, y in series.points)
        return out.getvalue()
    writer.writerow([x_label, *names])
    rows: dict[float, list[float | None]] = {}
    for index, series in enumerate(spec.series):
        for x, y in series.points:
            rows.setdefault(x, [None] * len(spec.series))[index] = y
    for x in sorted(rows):
        shown: object = x
        if spec.x.categories is not None:
            shown = safe_cell(spec.x.categories[int(x)])
        writer.writerow([shown, *(_number(y) for y in rows[x])])
    return out.getvalue()


def _number(value: float | None) -> object:
    return "" if value is None else value


def to_vega_lite(spec: ChartSpec) -> dict[str, Any]:
    """A Vega-Lite 5 document with the data inside."""
    marks = {
        "line": "line", "function": "line", "bar": "bar", "histogram": "bar",
        "scatter": "point", "pie": "arc", "heatmap": "rect",
    }  # fmt: skip
    head = {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": spec.title,
        "mark": marks[spec.kind],
    }
    categories = spec.x.categories

    def x_of(x: float) -> object:
        return x if categories is None else categories[int(x)]

    if spec.kind == "heatmap":
        assert spec.cells is not None
        assert categories is not None
        assert spec.y.categories is not None
        cells = [{"x": categories[i], "y": spec.y.categories[j], "v": v} for i, j, v in spec.cells]
        encoding: dict[str, Any] = {
            "x": {"field": "x", "type": "nominal", "title": spec.x.label},
            "y": {"field": "y", "type": "nominal", "title": spec.y.label},
            "color": {"field": "v", "type": "quantitative"},
        }
        return {**head, "data": {"values": cells}, "encoding": encoding}
    values = [
        {"x": x_of(x), "y": y, "series": series.name}
        for series in spec.series
        for x, y in series.points
    ]
    if spec.kind == "pie":
        encoding = {
            "theta": {"field": "y", "type": "quantitative"},
            "color": {"field": "x", "type": "nominal", "title": spec.x.label},
        }
    else:
        kind = "quantitative" if categories is None else "ordinal"
        encoding = {
            "x": {"field": "x", "type": kind, "title": spec.x.label, "sort": None},
            "y": {"field": "y", "type": "quantitative", "title": spec.y.label},
            "color": {"field": "series", "type": "nominal", "title": None},
        }
    return {**head, "data": {"values": values}, "encoding": encoding}
