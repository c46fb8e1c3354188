"""A chart as data: checked, limited in size, drawn by the page, exported to files.

The page makes its drawing from this alone; no text of a model or a file ever becomes an option of
the drawing library.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_POINTS = 20_000
MAX_SERIES = 24
MAX_CELLS = 10_000
MAX_CATEGORIES = 2_000
MAX_SLICES = 40

Kind = Literal["line", "bar", "scatter", "pie", "histogram", "heatmap", "function"]
Label = Annotated[str, Field(max_length=200)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Point = tuple[Finite, Finite | None]
"""x, or the place of a category, and y; None is a gap."""


class Strict(BaseModel):
    """Nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Axis(Strict):
    """An axis; ``categories`` name the places 0, 1, 2, ... on it."""

    label: Label = ""
    scale: Literal["linear", "log", "time"] = "linear"
    categories: list[Label] | None = Field(default=None, max_length=MAX_CATEGORIES)


class Series(Strict):
    """One line, set of bars or cloud of points."""

    name: Label = ""
    points: list[Point]


class ChartSpec(Strict):
    """A chart.

    A pie has one series whose x are places in ``x.categories``; a histogram has bars at the
    middles of its bins; a heat-map has ``cells`` (x place, y place, value) over two sets of
    categories.
    """

    kind: Kind
    title: Label = ""
    x: Axis = Axis()
    y: Axis = Axis()
    series: list[Series] = Field(default_factory=list, max_length=MAX_SERIES)
    cells: list[tuple[int, int, Finite | None]] | None = Field(default=None, max_length=MAX_CELLS)
    source: Label = ""
    computed_by: Label = ""

    @model_validator(mode="after")
    def _fits(self) -> "ChartSpec":
        if sum(len(series.points) for series in self.series) > MAX_POINTS:
            raise ValueError(f"a chart has at most {MAX_POINTS} points")
        if self.kind == "heatmap":
            if self.cells is None or self.x.categories is None or self.y.categories is None:
                raise ValueError("a heat-map needs cells and categories on both axes")
            wide, high = len(self.x.categories), len(self.y.categories)
            if not all(0 <= i < wide and 0 <= j < high for i, j, _ in self.cells):
                raise ValueError("a cell lies outside the categories")
        elif not self.series:
            raise ValueError("a chart needs a series")
        elif self.cells is not None:
            raise ValueError("only a heat-map has cells")
        if self.kind == "pie":
            if self.x.categories is None or len(self.series) != 1:
                raise ValueError("a pie needs categories and one series")
            if len(self.series[0].points) > MAX_SLICES:
                raise ValueError(f"a pie has at most {MAX_SLICES} slices")
            if any(y is not None and y < 0 for _, y in self.series[0].points):
                raise ValueError("a slice of a pie cannot be negative")
        if self.x.categories is not None and self.kind != "heatmap":
            places = range(len(self.x.categories))
            if any(x not in places for series in self.series for x, _ in series.points):
                raise ValueError("a point lies outside the categories")
        return self
