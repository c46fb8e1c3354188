"""From a table and a few choices to a chart: group, combine, bin, sort, cut."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from pydantic import Field, ValidationError

from hunyuan.charts.spec import MAX_SLICES, Axis, ChartSpec, Point, Series, Strict
from hunyuan.charts.table import Cell, Column, Table, TableError

DataKind = Literal["line", "bar", "scatter", "pie", "histogram", "heatmap"]
Verb = Literal["none", "sum", "mean", "count", "min", "max", "median"]

MAX_BARS = 200
MAX_LINES = 12
MAX_DRAWN = 10_000


class DataChart(Strict):
    """What to draw: the columns, how rows of one group are combined, what is kept."""

    kind: DataKind
    x: str = Field(max_length=80)
    y: list[str] = Field(default_factory=list, max_length=MAX_LINES)
    group: str | None = Field(default=None, max_length=80)
    """A column whose values become series (or the rows of a heat-map)."""

    verb: Verb = "none"
    bins: int = Field(default=0, ge=0, le=100)
    """Bars of a histogram; 0 chooses by the number of values."""

    sort: Literal["none", "x", "ascending", "descending"] = "none"
    top: int = Field(default=0, ge=0, le=1000)
    """Keep the largest so many groups; 0 keeps all."""

    title: str = Field(default="", max_length=200)


def data_chart(table: Table, wanted: DataChart) -> ChartSpec:
    """The chart. Raises `TableError` where columns and kind do not go together."""
    draw: dict[DataKind, Callable[[Table, DataChart], ChartSpec]] = {
        "histogram": _histogram,
        "scatter": _scatter,
        "heatmap": _heatmap,
        "pie": _pie,
        "line": _grouped,
        "bar": _grouped,
    }
    try:
        return draw[wanted.kind](table, wanted)
    except ValidationError as error:
        raise TableError(
            "the chart would have more points or groups than can be drawn; group by another "
            "column, or combine rows",
            "图中的点或分组过多，无法绘制；请换一列分组，或先合并行",
        ) from error


def _combine(verb: Verb, values: list[float]) -> float | None:
    if verb == "count":
        return float(len(values))
    if not values:
        return None
    match verb:
        case "sum" | "none":
            return math.fsum(values)
        case "mean":
            return math.fsum(values) / len(values)
        case "min":
            return min(values)
        case "max":
            return max(values)
        case _:
            ordered, half = sorted(values), len(values) // 2
            return ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _numeric(table: Table, name: str) -> Column:
    column = table.column(name)
    if column.type != "number":
        raise TableError(
            f"column {name[:40]!r} holds {column.type}s; numbers are needed here",
            f"列 {name[:40]!r} 不是数值列；此处需要数值",
        )
    return column


def _label(cell: Cell) -> str:
    if cell is None:
        return "—"
    return f"{cell:g}" if isinstance(cell, float) else cell[:80]


def _verb_label(verb: Verb, name: str) -> str:
    return name if verb == "none" else f"{verb}({name})" if name else verb


def _spec(table: Table, wanted: DataChart, **parts: object) -> ChartSpec:
    return ChartSpec.model_validate(
        {
            "kind": wanted.kind,
            "title": wanted.title or table.name,
            "source": table.name,
            "computed_by": "hunyuan.charts",
            **parts,
        }
    )


def _grouped(table: Table, wanted: DataChart) -> ChartSpec:
    """Lines or bars: y over x, rows with equal x combined."""
    x = table.column(wanted.x)
    if wanted.verb != "count" and not wanted.y:
        raise TableError("choose a column of numbers for y", "请为 y 选择一个数值列")
    if wanted.kind == "line" and x.type == "number" and wanted.verb == "none" and not wanted.group:
        return _plain_lines(table, wanted, x)
    values = [(name, _numeric(table, name).cells) for name in wanted.y] or [
        ("", [1.0] * table.rows)
    ]
    if wanted.group:
        by = table.column(wanted.group)
        series_of = [_label(cell) for cell in by.cells]
    else:
        series_of = []
    groups: dict[str, dict[str, list[float]]] = {}
    order: dict[str, None] = {}
    for row, cell in enumerate(x.cells):
        key = _label(cell)
        order.setdefault(key)
        pairs = (
            [(series_of[row], values[0][1][row])]
            if wanted.group
            else [(name, cells[row]) for name, cells in values]
        )
        for name, value in pairs:
            if isinstance(value, float):
                groups.setdefault(name, {}).setdefault(key, []).append(value)
    if len(groups) > MAX_LINES:
        largest = sorted(groups, key=lambda n: -sum(len(v) for v in groups[n].values()))
        groups = {name: groups[name] for name in largest[:MAX_LINES]}
    keys = _kept(list(order), x, groups, wanted)
    series = []
    for name, found in groups.items():
        points: list[Point] = [
            (float(place), _combine(wanted.verb, found.get(key, [])) if key in found else None)
            for place, key in enumerate(keys)
        ]
        label = _verb_label(wanted.verb, name) if not wanted.group else name
        series.append(Series(name=label[:200], points=points))
    label = (
        series[0].name if len(series) == 1 else (wanted.y[0] if wanted.group and wanted.y else "")
    )
    return _spec(
        table,
        wanted,
        x=Axis(label=x.name, categories=keys),
        y=Axis(label=label),
        series=series,
    )


def _kept(
    keys: list[str], x: Column, groups: dict[str, dict[str, list[float]]], wanted: DataChart
) -> list[str]:
    """The categories in the order that was asked for, not more than can be drawn."""

    def size(key: str) -> float:
        total = (_combine(wanted.verb, found.get(key, [])) for found in groups.values())
        return sum(value or 0.0 for value in total)

    limit = wanted.top or (MAX_BARS if wanted.kind == "bar" else 2000)
    if wanted.top or (len(keys) > limit and wanted.kind != "line"):
        kept = set(sorted(keys, key=size, reverse=True)[:limit])
        keys = [key for key in keys if key in kept]
    if wanted.sort in ("ascending", "descending"):
        return sorted(keys, key=size, reverse=wanted.sort == "descending")
    if wanted.sort == "x" or x.type == "date" or (wanted.kind == "line" and x.type == "number"):
        if x.type == "number":
            return sorted(keys, key=lambda key: float(key) if key != "—" else math.inf)
        return sorted(keys)
    return keys[:2000]


def _plain_lines(table: Table, wanted: DataChart, x: Column) -> ChartSpec:
    series = []
    for name in wanted.y:
        cells = _numeric(table, name).cells
        pairs = [
            (a, b if isinstance(b, float) else None)
            for a, b in zip(x.cells, cells, strict=True)
            if isinstance(a, float)
        ]
        pairs.sort(key=lambda pair: pair[0])
        series.append(Series(name=name, points=_thinned(pairs, len(wanted.y))))
    return _spec(
        table,
        wanted,
        x=Axis(label=x.name),
        y=Axis(label=wanted.y[0] if len(wanted.y) == 1 else ""),
        series=series,
    )


def _thinned(points: list[Point], parts: int) -> list[Point]:
    limit = MAX_DRAWN // max(parts, 1)
    step = -(-len(points) // limit) if len(points) > limit else 1
    return points[::step]


def _scatter(table: Table, wanted: DataChart) -> ChartSpec:
    x = _numeric(table, wanted.x)
    if not wanted.y:
        raise TableError("choose a column of numbers for y", "请为 y 选择一个数值列")
    series = []
    labels = [_label(c) for c in table.column(wanted.group).cells] if wanted.group else []
    for name in wanted.y if not wanted.group else wanted.y[:1]:
        cells = _numeric(table, name).cells
        clouds: dict[str, list[Point]] = {}
        for row, (a, b) in enumerate(zip(x.cells, cells, strict=True)):
            if isinstance(a, float) and isinstance(b, float):
                clouds.setdefault(labels[row] if labels else name, []).append((a, b))
        for label, points in list(clouds.items())[:MAX_LINES]:
            series.append(Series(name=label, points=_thinned(points, len(clouds))))
    if not series:
        raise TableError("no row has both numbers", "没有同时含有两个数值的行")
    return _spec(
        table,
        wanted,
        x=Axis(label=x.name),
        y=Axis(label=wanted.y[0]),
        series=series,
    )


def _histogram(table: Table, wanted: DataChart) -> ChartSpec:
    column = _numeric(table, wanted.x)
    values = [value for value in column.cells if isinstance(value, float)]
    if not values:
        raise TableError(f"column {wanted.x[:40]!r} is empty", f"列 {wanted.x[:40]!r} 没有数值")
    low, high = min(values), max(values)
    # Sturges' rule, bounded; a column of one value gets one bar.
    bins = wanted.bins or min(40, max(5, math.ceil(math.log2(len(values))) + 1))
    width = (high - low) / bins
    if width == 0 or not math.isfinite(width):
        bins, width = 1, 1.0
        low -= 0.5
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / width), bins - 1)] += 1
    edges = [low + k * width for k in range(bins + 1)]
    names = [f"{a:.4g} – {b:.4g}" for a, b in pairwise(edges)]
    points: list[Point] = [(float(k), float(count)) for k, count in enumerate(counts)]
    return _spec(
        table,
        wanted,
        x=Axis(label=column.name, categories=names),
        y=Axis(label="count"),
        series=[Series(name="count", points=points)],
    )


def _pie(table: Table, wanted: DataChart) -> ChartSpec:
    x = table.column(wanted.x)
    counting = wanted.verb == "count" or not wanted.y
    cells = [1.0] * table.rows if counting else _numeric(table, wanted.y[0]).cells
    totals: dict[str, list[float]] = {}
    for key, value in zip(x.cells, cells, strict=True):
        if isinstance(value, float):
            totals.setdefault(_label(key), []).append(value)
    verb: Verb = "count" if counting else ("sum" if wanted.verb == "none" else wanted.verb)
    sizes = {key: _combine(verb, values) or 0.0 for key, values in totals.items()}
    if any(size < 0 for size in sizes.values()):
        raise TableError(
            "a pie cannot show negative numbers; choose bars", "饼图不能表示负数；请改用柱状图"
        )
    ordered = sorted(sizes.items(), key=lambda pair: -pair[1])
    most = min(wanted.top or MAX_SLICES, MAX_SLICES)
    kept = ordered if len(ordered) <= most else ordered[: most - 1]
    rest = math.fsum(size for _, size in ordered[len(kept) :])
    if rest > 0:
        kept = [*kept, ("…", rest)]
    if not kept:
        raise TableError("there is nothing to show", "没有可以显示的数据")
    points: list[Point] = [(float(k), size) for k, (_, size) in enumerate(kept)]
    name = _verb_label(verb, "" if counting else wanted.y[0])
    return _spec(
        table,
        wanted,
        x=Axis(label=x.name, categories=[key for key, _ in kept]),
        series=[Series(name=name, points=points)],
    )


def _heatmap(table: Table, wanted: DataChart) -> ChartSpec:
    x = table.column(wanted.x)
    if not wanted.group:
        raise TableError("a heat-map needs a second column of groups", "热力图需要第二个分组列")
    y = table.column(wanted.group)
    counting = wanted.verb == "count" or not wanted.y
    cells = [1.0] * table.rows if counting else _numeric(table, wanted.y[0]).cells
    verb: Verb = "count" if counting else ("sum" if wanted.verb == "none" else wanted.verb)
    found: dict[tuple[str, str], list[float]] = {}
    for a, b, value in zip(x.cells, y.cells, cells, strict=True):
        if isinstance(value, float):
            found.setdefault((_label(a), _label(b)), []).append(value)
    columns = _ordered({a for a, _ in found}, x)[:100]
    rows = _ordered({b for _, b in found}, y)[:100]
    placed = [
        (columns.index(a), rows.index(b), _combine(verb, values))
        for (a, b), values in found.items()
        if a in set(columns) and b in set(rows)
    ]
    return _spec(
        table,
        wanted,
        x=Axis(label=x.name, categories=columns),
        y=Axis(label=y.name, categories=rows),
        cells=placed,
    )


def _ordered(keys: set[str], column: Column) -> list[str]:
    if column.type == "number":
        return sorted(keys, key=lambda key: float(key) if key != "—" else math.inf)
    return sorted(keys)
