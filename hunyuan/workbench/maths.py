"""Routes of mathematics and charts: questions, computations, formulas, graphs, tables.

Numbers come from the tools alone. A question is read by rules, and by the model only where these
do not understand; what neither understands is answered with examples, never with a guess.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from hunyuan.charts.aggregate import DataChart, data_chart
from hunyuan.charts.apart import read_table_apart
from hunyuan.charts.export import to_csv, to_vega_lite
from hunyuan.charts.spec import ChartSpec
from hunyuan.charts.table import MAX_BYTES, Table
from hunyuan.errors import HunyuanError, Language, UsageError
from hunyuan.maths import formulas, slots
from hunyuan.maths.call import MAX_QUESTION, ToolCall, checked
from hunyuan.maths.grammar import SyntaxProblem, parse_list
from hunyuan.maths.latex import LatexProblem, looks_like_latex, to_plain
from hunyuan.maths.show import latex as tree_latex
from hunyuan.maths.worker import MathsWorker
from hunyuan.serve.backend import Backend
from hunyuan.workbench.maths_model import (
    FREE,
    Explanation,
    explain,
    is_story,
    name_quantities,
    read_question,
    write_formula,
)
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.streaming import (
    Body,
    Event,
    EventStream,
    WorkbenchRoute,
    event_stream,
    language_of,
)
from hunyuan.workbench.templates import Templates
from hunyuan.workbench.uploads import received

Question = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]

EXAMPLES: dict[Language, list[str]] = {
    "en": [
        "what is 15% of 240",
        "solve x^2 - 5x + 6 = 0",
        "derivative of sin(x)^2",
        "average of 3, 5, 8",
        "plot x^2 - 3x + 2",
    ],
    "zh": [
        "240 的 15% 是多少",
        "求 x^2-5x+6=0 的解",
        "sin(x)^2 的导数",
        "3, 5, 8 的平均数",
        "画出 y=x^2-3x+2 的图像",
    ],
}


class AskBody(Body):
    """POST /workbench/maths/ask."""

    question: Question
    model: bool = True
    """Whether the model may be asked where the rules do not understand."""


class ReadBody(Body):
    """POST /workbench/maths/read."""

    text: str = Field(max_length=MAX_QUESTION)


class ComputeBody(Body):
    """POST /workbench/maths/compute."""

    operation: str = Field(max_length=40)
    arguments: dict[str, str] = Field(max_length=8)


class FormulaBody(Body):
    """POST /workbench/maths/formula."""

    description: str = Field(min_length=1, max_length=400)


class ExplainBody(Body):
    """POST /workbench/maths/explain: a call whose result is to be said in words."""

    question: Question
    operation: str = Field(max_length=40)
    arguments: dict[str, str] = Field(max_length=8)


class FunctionBody(Body):
    """POST /workbench/charts/function."""

    expressions: str = Field(min_length=1, max_length=1000)
    lower: str = Field(default="", max_length=100)
    upper: str = Field(default="", max_length=100)


class DataBody(Body):
    """POST /workbench/charts/data."""

    table: str = Field(max_length=64)
    chart: DataChart


class ExportBody(BaseModel):
    """POST /workbench/charts/export."""

    model_config = ConfigDict(extra="forbid")

    chart: ChartSpec
    form: Literal["csv", "vega-lite"]


NUMERIC = re.compile(r"(?:(?:[A-Za-z]\w* = )?-?[\d./]+(?:, )?)+")

RETRY_HEAT = 0.7
"""Temperature of a third reading, where the first two differ."""


class TableShelf:
    """The last few uploaded tables, by the hash of their file; in memory only."""

    def __init__(self, most: int = 6) -> None:
        self._most = most
        self._tables: OrderedDict[str, Table] = OrderedDict()

    def put(self, key: str, table: Table) -> None:
        """Keep a table; the one used longest ago makes room."""
        self._tables[key] = table
        self._tables.move_to_end(key)
        while len(self._tables) > self._most:
            self._tables.popitem(last=False)

    def get(self, key: str) -> Table:
        """A kept table; 404 where it has made room."""
        if key not in self._tables:
            raise RefusedError(
                f"table={key[:16]!r} is no longer kept; upload the file again",
                f"表格 {key[:16]!r} 已不在内存中；请重新上传文件",
                status=404,
                code="not_found",
                param="table",
            )
        self._tables.move_to_end(key)
        return self._tables[key]


def maths_router(
    backend: Callable[[], Backend],
    templates: Templates,
    worker: MathsWorker | None = None,
    *,
    uploads: Path | None = None,
) -> APIRouter:
    """Routes under /workbench/maths and /workbench/charts; the worker ends with the application.

    ``uploads`` is the folder of files while they are read; None: the system's temporary one.
    """
    computer = worker or MathsWorker()
    reading = asyncio.Semaphore(2)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await asyncio.to_thread(computer.close)

    router = APIRouter(
        prefix="/workbench", route_class=WorkbenchRoute, tags=["maths"], lifespan=lifespan
    )
    answers = _Answers(backend, templates, computer)
    shelf = TableShelf()

    @router.post("/maths/ask", response_class=EventStream)
    async def ask(body: AskBody, request: Request) -> Response:
        lang = language_of(request)
        return event_stream(answers.ask(body.question, body.model, lang), lang)

    @router.post("/maths/read")
    async def read(body: ReadBody) -> dict[str, Any]:
        # Somebody types: the process that will compute can be started meanwhile.
        computer.warm()
        return await asyncio.to_thread(_reading, body.text)

    @router.post("/maths/compute")
    async def compute(body: ComputeBody) -> dict[str, Any]:
        return await answers.answer(checked(body.operation, dict(body.arguments)))

    @router.post("/maths/explain", response_class=EventStream)
    async def explained(body: ExplainBody, request: Request) -> Response:
        lang = language_of(request)
        call = checked(body.operation, dict(body.arguments))
        return event_stream(answers.explain(body.question, call, lang), lang)

    @router.get("/maths/formulas")
    def all_formulas() -> dict[str, Any]:
        return {"formulas": [formula.json() for formula in formulas.table().values()]}

    @router.post("/maths/formula", response_class=EventStream)
    async def formula(body: FormulaBody, request: Request) -> Response:
        lang = language_of(request)
        return event_stream(answers.formula(body.description, lang), lang)

    @router.post("/charts/function")
    async def function(body: FunctionBody) -> dict[str, Any]:
        chart = await answers.graph(body.expressions, body.lower, body.upper)
        return {"chart": chart.model_dump(mode="json")}

    @router.put("/charts/table")
    async def table(
        request: Request,
        name: Annotated[str, Query(max_length=200)] = "table",
        sheet: Annotated[str, Query(max_length=64)] = "",
    ) -> dict[str, Any]:
        async with received(request, MAX_BYTES, uploads) as upload, reading:
            found = await asyncio.to_thread(read_table_apart, upload.path, name, sheet)
        key = sha256(f"{upload.sha256} {sheet}".encode()).hexdigest()[:32]
        shelf.put(key, found)
        return {"id": key, **_described(found)}

    @router.post("/charts/data")
    async def data(body: DataBody) -> dict[str, Any]:
        made = await asyncio.to_thread(data_chart, shelf.get(body.table), body.chart)
        return {"chart": made.model_dump(mode="json")}

    @router.post("/charts/export")
    def export(body: ExportBody) -> dict[str, Any]:
        if body.form == "csv":
            return {"text": to_csv(body.chart)}
        return {"document": to_vega_lite(body.chart)}

    return router


class _Answers:
    """Answers questions with the tools, and with the model's help in reading them."""

    def __init__(
        self, backend: Callable[[], Backend], templates: Templates, worker: MathsWorker
    ) -> None:
        self._backend = backend
        self._templates = templates
        self._worker = worker

    async def ask(
        self, question: str, with_model: bool, lang: Language
    ) -> AsyncGenerator[Event, None]:
        """Progress, then one result, as events."""
        started = time.perf_counter()
        call = await asyncio.to_thread(_understood, question)
        by = "rules"
        reason: dict[str, Any] = {}
        if call is None and with_model:
            by = "model"
            yield {"type": "progress", "stage": "model"}
            try:
                reading = await read_question(self._backend(), self._templates, question, lang)
                call = reading.call
                reason = {"invented": reading.invented, "ignored": reading.ignored}
                if (call is None and is_story(question)) or (call and call.operation in FREE):
                    confirmed = await self._confirmed(question, call, lang)
                    call = confirmed if isinstance(confirmed, ToolCall) else None
                    if isinstance(confirmed, dict):
                        reason = reason if any(reason.values()) else confirmed
            except HunyuanError as error:
                reason = {"model_error": error.text(lang)}
        if call is None:
            yield {"type": "result", "kind": "not_understood", **_not_understood(reason, lang)}
            return
        yield {"type": "progress", "stage": "computing", "understood_by": by, "call": call.json()}
        try:
            answer = await self.answer(call)
        except UsageError as error:
            if by == "rules":
                raise
            # The model's reading was no good; its failure is not the user's.
            reason = {"tool_error": error.text(lang)}
            yield {"type": "result", "kind": "not_understood", **_not_understood(reason, lang)}
            return
        milliseconds = round(1000 * (time.perf_counter() - started))
        yield {"type": "result", "understood_by": by, "milliseconds": milliseconds, **answer}

    async def _confirmed(
        self, question: str, first: ToolCall | None, lang: Language
    ) -> ToolCall | dict[str, Any]:
        """The call that two of three readings of a story agree on, or why there is none."""
        backend = self._backend()
        found: list[tuple[ToolCall, dict[str, Any]]] = []
        failure: dict[str, Any] = {}
        for turn in range(3):
            if turn == 0:
                call = first
            elif turn == 1:
                call = await name_quantities(backend, self._templates, question, lang)
            else:
                again = await read_question(backend, self._templates, question, lang, RETRY_HEAT)
                call = again.call if again.call and again.call.operation in FREE else None
            if call is None:
                if turn == 1 and not found:
                    break  # a third reading alone would confirm nothing
                continue
            try:
                result = await self._worker.run(call)
            except UsageError as error:
                failure = failure or {"tool_error": error.text(lang)}
                continue
            # The answer of a story is a number; letters are names read as products.
            if not all(NUMERIC.fullmatch(value) for value in result["values"]):
                continue
            for earlier, known in found:
                if await self._same(result["values"], known["values"]):
                    return earlier
            found.append((call, result))
        if not found:
            return failure
        return {"disagree": [str(r["decimal"] or r["exact"]) for _, r in found]}

    async def _same(self, first: list[str], second: list[str]) -> bool:
        return await self._worker.agrees(", ".join(first), second)

    async def answer(self, call: ToolCall) -> dict[str, Any]:
        """``{"kind": value | chart | formula, "call", ...}`` for a call."""
        made = {"call": call.json()}
        if call.operation == "plot":
            chart = await self.graph(**{"lower": "", "upper": "", **call.arguments})
            return {**made, "kind": "chart", "chart": chart.model_dump(mode="json")}
        if call.operation == "chart":
            given = call.arguments
            drawn = await asyncio.to_thread(_data_graph, given["kind"], given.get("data", ""))
            return {**made, "kind": "chart", "chart": drawn.model_dump(mode="json")}
        if call.operation == "formula" and "values" not in call.arguments:
            return {
                **made,
                "kind": "formula",
                "formula": formulas.get(call.arguments["name"]).json(),
            }
        return {**made, "kind": "value", "result": await self._worker.run(call)}

    async def graph(self, expressions: str, lower: str, upper: str) -> ChartSpec:
        """The graph of functions in plain notation or LaTeX."""
        texts = []
        for text in (expressions, lower, upper):
            texts.append(await self._worker.read(text) if looks_like_latex(text) else text)
        return await asyncio.to_thread(_graph, *texts)

    async def formula(self, description: str, lang: Language) -> AsyncGenerator[Event, None]:
        """Known formulas that fit; where none clearly does, one written by the model as well."""
        found = formulas.search(description)
        near = [formula for score, formula in found if score >= 0.25]
        clear = bool(found) and found[0][0] >= 0.7
        written: dict[str, Any] | None = None
        failure: str | None = None
        if not clear:
            yield {"type": "progress", "stage": "model"}
            try:
                text = await write_formula(self._backend(), self._templates, description, lang)
                written = {"latex": text, **_computable(text)} if text else None
            except HunyuanError as error:
                failure = error.text(lang)
        yield {
            "type": "result",
            "formulas": [one.json() for one in near],
            "clear": clear,
            "written": written,
            "model_error": failure,
        }

    async def explain(
        self, question: str, call: ToolCall, lang: Language
    ) -> AsyncGenerator[Event, None]:
        """The model's words on a result; computed anew, so that nothing false can be explained."""
        answer = await self.answer(call)
        if answer["kind"] != "value":
            raise UsageError(
                f"operation={call.operation}: only values are explained",
                f"operation={call.operation}：只能解释数值结果",
            )
        pieces = explain(
            self._backend(), self._templates, self._worker, question, answer["result"], lang
        )
        try:
            async for piece in pieces:
                if isinstance(piece, Explanation):
                    yield {"type": "result", "text": piece.text, "agrees": piece.agrees}
                else:
                    yield {"type": "delta", "text": piece}
        finally:
            await pieces.aclose()


def _understood(question: str) -> ToolCall | None:
    # Some hundred patterns, compiled at the first question.
    from hunyuan.maths.words import understand

    return understand(question)


def _graph(expressions: str, lower: str, upper: str) -> ChartSpec:
    # NumPy, at the first graph.
    from hunyuan.maths.graphs import function_graph

    return function_graph(expressions, lower, upper)


def _data_graph(kind: str, data: str) -> ChartSpec:
    from hunyuan.maths.graphs import data_graph

    return data_graph(kind, data)


def _not_understood(reason: dict[str, Any], lang: Language) -> dict[str, Any]:
    if reason.get("invented"):
        shown = ", ".join(reason["invented"][:4])
        message = {
            "en": f"The model used numbers that are not in the question ({shown}), so its reading "
            "is not shown. Please write it as an expression.",
            "zh": f"模型使用了题目中没有的数字（{shown}），因此不采用它的理解。请改写成算式。",
        }[lang]
    elif reason.get("ignored"):
        shown = ", ".join(reason["ignored"][:4])
        message = {
            "en": f"The model's reading leaves out numbers of the question ({shown}), so it is not "
            "shown. Please write it as an expression.",
            "zh": f"模型的理解漏掉了题目中的数字（{shown}），因此不予采用。请改写成算式。",
        }[lang]
    elif reason.get("disagree"):
        shown = ", ".join(reason["disagree"])
        message = {
            "en": f"The model's readings of this do not agree ({shown}), so none is shown as the "
            "answer. Please write it as an expression.",
            "zh": f"模型的几次理解得不到一致的结果（{shown}），因此都不采用。请改写成算式。",
        }[lang]
        if len(reason["disagree"]) == 1:
            message = {
                "en": "A second reading by the model did not confirm its first one, so it is not "
                "shown. Please write it as an expression.",
                "zh": "模型的第二次理解没有证实第一次的结果，因此不予采用。请改写成算式。",
            }[lang]
    elif reason.get("model_error"):
        message = {
            "en": "The rules do not understand this, and the model cannot be asked: "
            + reason["model_error"],
            "zh": "规则无法理解这个问题，也无法询问模型：" + reason["model_error"],
        }[lang]
    elif reason.get("tool_error"):
        message = {
            "en": "The model's reading of this could not be computed: " + reason["tool_error"],
            "zh": "按模型的理解无法计算：" + reason["tool_error"],
        }[lang]
    else:
        message = {
            "en": "This was not understood as a question of mathematics. Nothing is guessed here; "
            "try a form like these.",
            "zh": "没有把它理解为数学问题。这里不会猜测答案；请参考下面的写法。",
        }[lang]
    return {"message": message, "examples": EXAMPLES[lang]}


def _reading(text: str) -> dict[str, Any]:
    """What is understood of a text while it is typed: the call and its LaTeX, by rules alone."""
    call = _understood(text) if text.strip() else None
    if call is None:
        return {"call": None, "latex": None}
    return {"call": call.json(), "latex": call_latex(call)}


def call_latex(call: ToolCall) -> str | None:
    """What a call is about, as LaTeX; None where it is not an expression."""
    given = call.arguments
    if call.operation == "formula":
        return formulas.get(given["name"]).latex
    text = given.get("expression") or given.get("equations") or given.get("expressions")
    if text is None:
        matrices = [given[name] for name in ("a", "b") if name in given]
        text = ", ".join(matrices) if call.operation == "matrix" else None
    if text is None:
        return None
    try:
        plain = to_plain(text) if looks_like_latex(text) else text
        return r",\quad ".join(tree_latex(tree) for tree in parse_list(plain))
    except (SyntaxProblem, LatexProblem):
        return None


def _computable(text: str) -> dict[str, Any]:
    """Whether a formula in LaTeX can also be computed with, in plain notation."""
    try:
        plain = to_plain(text)
        return {"plain": plain if slots.trees(plain) is not None else None}
    except LatexProblem:
        return {"plain": None}


def _described(table: Table) -> dict[str, Any]:
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "sample": [cell for cell in column.cells if cell is not None][:5],
            "different": len({cell for cell in column.cells if cell is not None}),
            "empty": sum(cell is None for cell in column.cells),
        }
        for column in table.columns
    ]
    return {"name": table.name, "rows": table.rows, "columns": columns}
