"""Evaluations as one HTML page and as Markdown, beside the figures that were published.

Published and measured figures never share a column: the former come from published.toml, which
names the source of each table, the latter from folders of `hunyuan eval`.
"""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hunyuan import __version__
from hunyuan.errors import Language, UsageError
from hunyuan.evaluate.run_folder import EvaluationRun, Result
from hunyuan.evaluate.suites import benchmarks
from hunyuan.report.document import document, rounded

SCRIPTS = ("evaluation_texts.js", "element.js", "evaluation.js")
MOST_RUNS = 6
"""As many as the page has colours."""
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 600
_PUBLISHED = Path(__file__).parent / "published.toml"


def evaluation_page(runs: Sequence[EvaluationRun]) -> bytes:
    """The page of one or several evaluations; `UsageError` where one has no result yet."""
    return document("evaluation · hunyuan", SCRIPTS, page_data(runs))


def page_data(runs: Sequence[EvaluationRun]) -> dict[str, Any]:
    """What the page draws, as plain data."""
    if len(runs) > MOST_RUNS:
        raise UsageError(
            f"{len(runs)} evaluations: one page shows at most {MOST_RUNS}; make several pages",
            f"{len(runs)} 次评测：一页最多显示 {MOST_RUNS} 次；请分成多页",
        )
    found = [_run_data(run) for run in runs]
    measured = {name for run in found for name in run["results"]}
    tables = {}
    for name, table in published().items():
        rows = _rows(table, _like(table, found))
        if rows:
            tables[name] = {**table, "rows": rows}
    return {
        "version": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "benchmarks": {
            name: {
                "title": benchmark.title,
                "lower": benchmark.lower_is_better,
                "language": benchmark.language,
            }
            for name, benchmark in benchmarks().items()
            if name in measured or any(name in table["rows"] for table in tables.values())
        },
        "published": tables,
        "runs": found,
    }


def _like(table: Mapping[str, Any], runs: Sequence[Any]) -> list[Any]:
    """The runs that a table is about: base models as they are, instruct models in a chat."""
    return [run for run in runs if run["described"]["plan"]["chat"] == table["chat"]]


def _rows(table: Mapping[str, Any], runs: Sequence[Any]) -> dict[str, list[float | None]]:
    """The published rows that some run has measured."""
    measured = {name for run in runs for name in run["results"]}
    return {name: row for name, row in table["rows"].items() if name in measured}


def published() -> dict[str, dict[str, Any]]:
    """The tables of published figures, per cent; None where none was reported."""
    with _PUBLISHED.open("rb") as file:
        tables = tomllib.load(file)["table"]
    for table in tables.values():
        for name, row in table["rows"].items():
            table["rows"][name] = [None if math.isnan(value) else value for value in row]
    return tables  # type: ignore[no-any-return]


def _run_data(run: EvaluationRun) -> dict[str, Any]:
    results = run.results()
    described = run.described()
    if described is None or not results:
        raise UsageError(
            f"{run.folder}: has no finished benchmark; run hunyuan eval with --out {run.folder}",
            f"{run.folder}：还没有完成的评测；请运行 hunyuan eval 并加 --out {run.folder}",
        )
    contamination = described.get("contamination")
    warnings = contamination["warnings"] if contamination else {}
    return {
        "name": run.folder.name,
        "described": {
            "model": described["model"],
            "plan": described["plan"],
            "command": described["command"],
            "started": described["started"],
            "version": described["version"],
            "commit": described.get("commit"),
            "packages": described["packages"],
            "notes": _data_notes(described["data"]),
            "trained_on": None if contamination is None else contamination["stages"],
        },
        "results": {
            name: {
                "value": rounded(result.score.value, 6),
                "stderr": rounded(result.score.stderr, 4),
                "items": result.score.items,
                "of": result.of,
                "shots": result.shots,
                "metric": result.metric,
                "version": result.version,
                "truncated": result.truncated,
                "repeats": result.repeats,
                "more": {
                    figure: [rounded(score.value, 4), rounded(score.stderr, 3)]
                    for figure, score in result.more.items()
                },
                "warning": warnings.get(name),
                "parts": {
                    part: [rounded(score.value, 4), rounded(score.stderr, 3), score.items]
                    for part, score in result.parts.items()
                },
                "examples": _mistakes(run, result),
            }
            for name, result in results.items()
        },
    }


def _data_notes(data: Any) -> dict[str, list[str]]:
    if not isinstance(data, Mapping):
        return {}
    return {name: value["notes"] for name, value in data.items() if value["notes"]}


def _mistakes(run: EvaluationRun, result: Result) -> list[dict[str, str]]:
    """A few items that were answered wrongly, from all over the benchmark."""
    wrong = [item for item in run.items(result.benchmark) if item["score"] == 0]
    step = max(1, len(wrong) // _EXAMPLES)
    return [
        {
            "task": f"{item['task']}[{item['doc_id']}]",
            "prompt": _end(item["prompt"]),
            "reference": _reference(item),
            "answer": _answer(item),
        }
        for item in wrong[::step][:_EXAMPLES]
    ]


def _end(text: str) -> str:
    cut = text[-_EXAMPLE_CHARACTERS:]
    return cut if len(cut) == len(text) else f"…{cut}"


def _reference(item: Mapping[str, Any]) -> str:
    choices, reference = item["choices"], item["reference"]
    if choices and isinstance(reference, int):
        return str(choices[reference]).strip()
    return str(reference)[:_EXAMPLE_CHARACTERS]


def _answer(item: Mapping[str, Any]) -> str:
    choices = item["choices"]
    if choices:
        values = [answer[0][0] for answer in item["output"]]
        return str(choices[max(range(len(values)), key=values.__getitem__)]).strip()
    first = item["output"][0]
    return str(first[0] if isinstance(first, list) else first)[:_EXAMPLE_CHARACTERS]


def evaluation_markdown(runs: Sequence[EvaluationRun], lang: Language) -> str:
    """The tables as Markdown: published columns, then what was measured here."""
    data = page_data(runs)
    chinese = lang == "zh"
    blocks = [f"# {'评测' if chinese else 'Evaluation'}"]
    rest = {name for run in data["runs"] for name in run["results"]}
    for table in data["published"].values():
        alike = _like(table, data["runs"])
        rows = _rows(table, alike)
        rest -= set(rows)
        title = table["title_zh" if chinese else "title_en"]
        source = f"{'公布值来源' if chinese else 'Published figures'}: {table['source']}"
        blocks += [f"## {title}", source, _table(data, alike, rows, table["models"], chinese)]
    if rest:
        rows = {name: [] for name in data["benchmarks"] if name in rest}
        title = "仅有实测值" if chinese else "Measured only"
        blocks += [f"## {title}", _table(data, data["runs"], rows, [], chinese)]
    warned = [
        f"- {run['name']}: {result['warning'][lang]}"
        for run in data["runs"]
        for result in run["results"].values()
        if result["warning"]
    ]
    if warned:
        blocks.insert(1, "\n".join(warned))
    several = [
        f"- {run['name']}, {data['benchmarks'][name]['title']}: "
        + ", ".join(f"{figure} {100 * value:.1f}" for figure, (value, _) in result["more"].items())
        for run in data["runs"]
        for name, result in run["results"].items()
        if result["more"]
    ]
    if several:
        blocks += [f"## {'多次回答' if chinese else 'Several answers'}", "\n".join(several)]
    for run in data["runs"]:
        about = run["described"]
        model = json.dumps(
            {k: v for k, v in about["model"].items() if k != "chat_template"}, ensure_ascii=False
        )
        blocks.append(
            f"**{run['name']}** ({'实测' if chinese else 'measured'}): `{about['command']}`, "
            f"hunyuan {about['version']}, {model}"
        )
    return "\n\n".join(blocks) + "\n"


def _table(
    data: Mapping[str, Any],
    runs: Sequence[Any],
    rows: Mapping[str, list[Any]],
    models: Sequence[str],
    chinese: bool,
) -> str:
    measured = "实测" if chinese else "measured"
    head = ["评测" if chinese else "benchmark", *models]
    head += [f"{run['name']} ({measured})" for run in runs]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, figures in rows.items():
        cells = [data["benchmarks"][name]["title"]]
        cells += ["-" if value is None else f"{value:g}" for value in figures]
        for run in runs:
            cells.append(_cell(run["results"].get(name), data["benchmarks"][name]["lower"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(result: Mapping[str, Any] | None, lower: bool) -> str:
    if result is None:
        return "-"
    if lower:
        return f"{result['value']:.2f} (n={result['items']})"
    spread = "" if result["stderr"] is None else f" ± {196 * result['stderr']:.1f}"
    return f"**{100 * result['value']:.1f}**{spread} (n={result['items']}, {result['shots']}-shot)"
