"""The real tools behind the calls: mathematics, graphs, a sandbox, a search in a few documents."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from hunyuan.errors import UsageError
from hunyuan.knowledge.words import index_terms, query_terms
from hunyuan.maths.call import tool_call
from hunyuan.maths.graphs import function_graph
from hunyuan.maths.worker import MathsWorker
from hunyuan.sandbox.monty import MontyRunner

SHOWN_DIGITS = 6
PASSAGES = 2


@dataclass(frozen=True)
class Outcome:
    """What a tool gave back: the text the model reads, and the texts an answer must repeat."""

    content: str
    shown: str
    failed: bool = False


class Tools:
    """Executes calls by the usual name of the tool; the same call is executed once."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._worker = MathsWorker()
        self._python = MontyRunner()
        self._documents = documents
        self._known: dict[str, Outcome] = {}

    async def close(self) -> None:
        """End the worker processes."""
        self._worker.close()
        await self._python.close()

    async def run(self, tool: str, arguments: Mapping[str, str]) -> Outcome:
        """The outcome of a call; what a tool refuses is an outcome too."""
        key = json.dumps([tool, dict(arguments)])
        if key not in self._known:
            try:
                self._known[key] = await self._run(tool, arguments)
            except UsageError as error:
                content = json.dumps({"error": error.en}, ensure_ascii=False)
                self._known[key] = Outcome(content, error.en, failed=True)
        return self._known[key]

    async def _run(self, tool: str, arguments: Mapping[str, str]) -> Outcome:
        match tool:
            case "calculate":
                return _computed(await self._maths("calculate", **arguments))
            case "solve":
                found = await self._maths(
                    "solve", equations=arguments["equation"], variables=arguments["variable"]
                )
                return _result(found["exact"] or "")
            case "convert" | "statistics":
                return _computed(await self._maths(tool, **arguments))
            case "plot":
                chart = function_graph(
                    arguments["expression"], arguments["lower"], arguments["upper"]
                )
                points = sum(len(series.points) for series in chart.series)
                content = json.dumps({"chart": chart.title, "points": points}, ensure_ascii=False)
                return Outcome(content, chart.title)
            case "search_documents":
                return self._found(arguments["query"])
            case "run_python":
                ran = await self._python.run(arguments["code"])
                if ran.error is not None:
                    raise UsageError(ran.error.message, ran.error.message)
                return _result(ran.stdout.strip())
        raise AssertionError(tool)

    async def _maths(self, operation: str, **arguments: str) -> dict[str, str | None]:
        return await self._worker.run(tool_call(operation, **arguments))

    def _found(self, query: str) -> Outcome:
        wanted = set(query_terms(query))
        scores = [len(wanted & set(index_terms(text))) for text in self._documents]
        best = sorted(range(len(scores)), key=lambda i: -scores[i])[:PASSAGES]
        passages = [
            {"id": place, "text": self._documents[i]}
            for place, i in enumerate(best, 1)
            if scores[i]
        ]
        content = json.dumps({"passages": passages}, ensure_ascii=False)
        return Outcome(content, self._documents[best[0]] if passages else "")


def _computed(found: Mapping[str, str | None]) -> Outcome:
    """The exact value where it is a whole number, else a decimal of a few digits."""
    exact, decimal = found["exact"] or "", found["decimal"]
    return _result(_short(decimal) if decimal else exact)


def _result(text: str) -> Outcome:
    return Outcome(json.dumps({"result": text}, ensure_ascii=False), text)


def _short(text: str) -> str:
    """``3.10685596118667 mi`` -> ``3.10686 mi``."""
    number, space, unit = text.partition(" ")
    try:
        short = f"{float(Decimal(number)):.{SHOWN_DIGITS}g}"
    except InvalidOperation:
        return text
    return (number if "e" in short else short) + space + unit
