"""Results as rows that others can check: written from a run's folder, validated, made a table.

A file holds a JSON array of rows. A row is one benchmark of one model with what is needed to run it
again: the hash of the weights and of the data, versions, and the command. docs/results.md
describes every field.
"""

import hashlib
import json
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hunyuan.errors import BadDataError, Language, UsageError
from hunyuan.evaluate.run_folder import EvaluationRun, Result
from hunyuan.evaluate.suites import BenchmarkTask, benchmarks
from hunyuan.redact import gives_away, without_private

FORMAT = 1
_SIZES = Path(__file__).parent / "sizes.toml"
_HASH = re.compile(r"[0-9a-f]{64}")
_DATA = re.compile(r"hub|made|sha256:[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?((a|b|rc|\.dev|\.post)\d+)?")
_MOST_CHARACTERS = 2000


@dataclass(frozen=True, kw_only=True)
class SharedRow:
    """One benchmark of one model."""

    format: int
    """`FORMAT` of the release that wrote it."""

    model: str
    """Name of the model's file or folder."""

    model_sha256: str
    """`hunyuan.evaluate.subjects.weights_hash` of it."""

    backend: str
    dtype: str
    benchmark: str
    metric: str
    """``metric,filter`` of the harness."""

    score: float
    """Between 0 and 1; a perplexity above 0."""

    stderr: float | None
    items: int
    of: int
    """Items of the whole benchmark; more than ``items`` for a sample."""

    shots: int
    repeats: int
    chat: bool
    task_version: str
    hunyuan: str
    """Version of this project."""

    commit: str | None
    """Its commit, where it ran from a clone."""

    harness: str
    """Version of lm-evaluation-harness."""

    command: str
    data: str
    """``hub``, ``made`` on the spot, or ``sha256:`` and the hash of the data's description."""

    date: str
    """When the run began, in UTC: ``2025-01-31``."""


class Problem(NamedTuple):
    """What is wrong with a row, in two languages."""

    en: str
    zh: str


# ------------------------------------------------------------------ writing


def rows_of(run: EvaluationRun) -> list[SharedRow]:
    """The finished benchmarks of a run.

    Raises `UsageError` for a folder without results, and for a model without a hash of its weights,
    such as one behind a server: nobody else could say which it was.
    """
    described = run.described()
    results = run.results()
    if described is None or not results:
        raise UsageError(
            f"{run.folder}: holds no finished evaluation; give a folder that hunyuan eval wrote",
            f"{run.folder}：没有已完成的评测；请给出 hunyuan eval 写出的目录",
        )
    model = described["model"]
    if "sha256" not in model:
        raise UsageError(
            f"{run.folder}: the weights of this model were out of reach, so they have no hash and "
            "nobody can check the result; evaluate a file or folder of weights",
            f"{run.folder}：无法取得该模型的权重，因而没有哈希，他人无法核对；请评测权重文件或目录",
        )
    return [_row(described, result) for result in results.values()]


def _row(described: Mapping[str, Any], result: Result) -> SharedRow:
    model = described["model"]
    started = datetime.fromtimestamp(described["started"], UTC)
    return SharedRow(
        format=FORMAT,
        model=Path(str(model.get("name") or model["pretrained"])).name,
        model_sha256=model["sha256"],
        backend=model["backend"],
        dtype=str(model.get("dtype", "auto")),
        benchmark=result.benchmark,
        metric=result.metric,
        score=result.score.value,
        stderr=result.score.stderr,
        items=result.score.items,
        of=result.of,
        shots=result.shots,
        repeats=result.repeats,
        chat=bool(described["plan"]["chat"]),
        task_version=result.version,
        hunyuan=described["version"],
        commit=described["commit"],
        harness=described["packages"]["lm_eval"],
        command=without_private(described["command"].replace(" --traceback", "")),
        data=_data(described["data"], result.benchmark),
        date=started.date().isoformat(),
    )


def _data(data: Any, benchmark: str) -> str:
    task = benchmarks().get(benchmark)
    if task is not None and task.dataset is None:
        return "made"
    if data == "hub" or task is None:
        return "hub"
    content = json.dumps(data[task.dataset], sort_keys=True, ensure_ascii=False)
    return f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"


def to_json(rows: Sequence[SharedRow]) -> str:
    """The content of a file of rows."""
    return json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1) + "\n"


# ------------------------------------------------------------------ checking


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file as they stand, unchecked; `BadDataError` where it is no array of rows."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read ({error.strerror}); check the path",
            f"{path}：无法读取（{error.strerror}）；请检查路径",
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadDataError(
            f"{path}: is not JSON ({error}); write it by `hunyuan share RUN -o FILE`",
            f"{path}：不是 JSON（{error}）；请用 `hunyuan share RUN -o FILE` 写出",
        ) from error
    if not isinstance(found, list) or not found or not all(isinstance(r, dict) for r in found):
        raise BadDataError(
            f"{path}: must be a JSON array of rows; write it by `hunyuan share RUN -o FILE`",
            f"{path}：必须是由结果行组成的 JSON 数组；请用 `hunyuan share RUN -o FILE` 写出",
        )
    return found


def problems(row: Mapping[str, Any]) -> list[Problem]:
    """Why a row cannot be shared; empty if it can."""
    shape = [*_missing_or_unknown(row), *_wrong_types(row)]
    # What the values say has no meaning where they are of the wrong kind.
    return shape or [problem for check in _CHECKS for problem in check(row)]


def repeated(rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Rows that say again what an earlier one says, by everything that identifies a run."""
    seen: set[tuple[Any, ...]] = set()
    found = []
    for row in rows:
        key = tuple(str(row.get(name)) for name in _IDENTITY)
        if key in seen:
            what = f"{row.get('benchmark')} of {row.get('model')}"
            found.append(
                Problem(
                    f"{what}: the same run is there already; leave one of them out",
                    f"{what}：同一次评测已存在；请去掉其中之一",
                )
            )
        seen.add(key)
    return found


_IDENTITY = ("model_sha256", "benchmark", "command", "data", "hunyuan", "commit", "date")


def _missing_or_unknown(row: Mapping[str, Any]) -> Iterable[Problem]:
    names = [field.name for field in fields(SharedRow)]
    for name in names:
        if name not in row:
            yield Problem(
                f"{name}: is missing; write the row by hunyuan share",
                f"{name}：缺失；请用 hunyuan share 写出该行",
            )
    for name in row:
        if name not in names:
            near = get_close_matches(name, names, 1)
            yield Problem(
                f"{name}: is no field of a row" + (f"; did you mean {near[0]}?" if near else ""),
                f"{name}：不是结果行的字段" + (f"；是否指 {near[0]}？" if near else ""),
            )


def _wrong_types(row: Mapping[str, Any]) -> Iterable[Problem]:
    for field in fields(SharedRow):
        if field.name not in row:
            continue
        value, kind = row[field.name], field.type
        if value is None and "None" in str(kind):
            continue
        wanted, en, zh = _TYPES[str(kind)]
        is_flag = isinstance(value, bool)
        if not isinstance(value, wanted) or is_flag != (wanted is bool):
            shown = _shown(value)
            yield Problem(
                f"{field.name}={shown}: must be {en}", f"{field.name}={shown}：必须是{zh}"
            )
        elif isinstance(value, float) and not math.isfinite(value):
            yield Problem(
                f"{field.name}={value}: must be finite", f"{field.name}={value}：必须是有限数"
            )
        elif isinstance(value, str) and not 0 < len(value) <= _MOST_CHARACTERS:
            size = len(value)
            yield Problem(
                f"{field.name}: has {size} characters; must have 1 to {_MOST_CHARACTERS}",
                f"{field.name}：有 {size} 个字符；必须为 1 到 {_MOST_CHARACTERS} 个",
            )


_WHOLE = (int, "a whole number", "整数")
_NUMBER = ((int, float), "a number", "数")
_TEXT = (str, "a text", "文本")
_TYPES: Mapping[str, tuple[Any, str, str]] = {
    repr(int): _WHOLE,
    repr(float): _NUMBER,
    repr(str): _TEXT,
    repr(bool): (bool, "true or false", " true 或 false"),
    str(float | None): _NUMBER,
    str(str | None): _TEXT,
}


def _identity(row: Mapping[str, Any]) -> Iterable[Problem]:
    if row["format"] != FORMAT:
        yield Problem(
            f"format={row['format']}: this release reads format {FORMAT}; write the row anew",
            f"format={row['format']}：本版本只读取格式 {FORMAT}；请重新写出该行",
        )
    forms = {
        "model_sha256": (_HASH, "64 hexadecimal digits in lower case", " 64 位小写十六进制数字"),
        "data": (
            _DATA,
            "hub, made, or sha256: and 64 digits",
            " hub、made，或 sha256: 加 64 位数字",
        ),
        "hunyuan": (_VERSION, "a version such as 0.1.0", "版本号，例如 0.1.0"),
        "harness": (_VERSION, "a version such as 0.4.13", "版本号，例如 0.4.13"),
    }
    if row["commit"] is not None:
        forms["commit"] = (_COMMIT, "7 to 40 hexadecimal digits", " 7 到 40 位十六进制数字")
    for name, (form, en, zh) in forms.items():
        if not form.fullmatch(row[name]):
            shown = _shown(row[name])
            yield Problem(f"{name}={shown}: must be {en}", f"{name}={shown}：必须是{zh}")
    if _day(row["date"]) is None:
        shown = _shown(row["date"])
        yield Problem(
            f"date={shown}: must be a day such as 2025-01-31, not in the future",
            f"date={shown}：必须是日期，例如 2025-01-31，且不晚于今天",
        )


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if len(text) == 10 and day <= datetime.now(UTC).date() else None


def _command(row: Mapping[str, Any]) -> Iterable[Problem]:
    shown = _shown(row["command"])
    try:
        words = shlex.split(row["command"])
    except ValueError:
        words = []
    if words[:2] != ["hunyuan", "eval"] or len(words) < 3:
        yield Problem(
            f"command={shown}: must be the whole command, `hunyuan eval MODEL ...`",
            f"command={shown}：必须是完整命令 `hunyuan eval MODEL ...`",
        )
    elif gives_away(row["command"]):
        yield Problem(
            "command: names a home folder or a key; write ~ or leave it out",
            "command：含有主目录或密钥；请写成 ~ 或去掉",
        )


def _figures(row: Mapping[str, Any]) -> Iterable[Problem]:
    task = benchmarks().get(row["benchmark"])
    if task is None:
        near = get_close_matches(row["benchmark"], benchmarks(), 3, 0.5) or list(benchmarks())
        yield Problem(
            f"benchmark={_shown(row['benchmark'])}: is unknown; one of {', '.join(near)}? "
            "(the benchmark of a plug-in needs the plug-in)",
            f"benchmark={_shown(row['benchmark'])}：未知；是否为 {'、'.join(near)}？"
            "（插件的评测需要先安装插件）",
        )
        return
    if row["metric"] != task.metric:
        yield Problem(
            f"metric={_shown(row['metric'])}: {task.name} is counted by {task.metric}",
            f"metric={_shown(row['metric'])}：{task.name} 以 {task.metric} 计分",
        )
    yield from _score(row, task)
    yield from _counts(row, task)


def _score(row: Mapping[str, Any], task: BenchmarkTask) -> Iterable[Problem]:
    score, stderr = row["score"], row["stderr"]
    if task.lower_is_better:
        if score < 1:
            yield Problem(
                f"score={score}: a perplexity is at least 1", f"score={score}：困惑度至少为 1"
            )
        return
    if not 0 <= score <= 1:
        hint = f"; {score / 100:g}?" if 1 < score <= 100 else ""
        yield Problem(
            f"score={score}: must be between 0 and 1{hint}",
            f"score={score}：必须在 0 到 1 之间" + (f"；是否为 {score / 100:g}？" if hint else ""),
        )
    if stderr is None and row["items"] > 1:
        yield Problem(
            f"stderr: is missing for {row['items']} items", f"stderr：{row['items']} 题却没有标准误"
        )
    if stderr is not None and row["items"] > 1:
        # Of scores between 0 and 1 no mean is less certain than that of as many zeros as ones.
        most = 0.5 / math.sqrt(row["items"] - 1)
        if not 0 <= stderr <= 1.001 * most:
            yield Problem(
                f"stderr={stderr:g}: must be between 0 and {most:.4f} for {row['items']} items",
                f"stderr={stderr:g}：{row['items']} 题的标准误必须在 0 到 {most:.4f} 之间",
            )


def _counts(row: Mapping[str, Any], task: BenchmarkTask) -> Iterable[Problem]:
    for name, least in (("items", 1), ("of", 1), ("shots", 0), ("repeats", 1)):
        if row[name] < least:
            yield Problem(
                f"{name}={row[name]}: must be at least {least}",
                f"{name}={row[name]}：必须不小于 {least}",
            )
    if row["items"] > row["of"]:
        yield Problem(
            f"items={row['items']}: more than the {row['of']} of the whole benchmark",
            f"items={row['items']}：超过该评测的总题数 {row['of']}",
        )
    size = sizes().get(task.name)
    if size is not None and row["of"] > size:
        yield Problem(
            f"of={row['of']}: {task.name} has {size} items",
            f"of={row['of']}：{task.name} 共有 {size} 题",
        )
    if size is not None and row["data"] == "hub" and row["of"] < size:
        yield Problem(
            f"of={row['of']}: the hub's {task.name} has {size} items; a part needs data=sha256:...",
            f"of={row['of']}：hub 上的 {task.name} 共有 {size} 题；部分数据须写明 data=sha256:...",
        )
    if (row["data"] == "made") != (task.dataset is None):
        wanted = (
            ("made", "made") if task.dataset is None else ("hub or sha256:...", "hub 或 sha256:…")
        )
        yield Problem(
            f"data={row['data']}: must be {wanted[0]} for {task.name}",
            f"data={row['data']}：{task.name} 应为 {wanted[1]}",
        )


_CHECKS: Sequence[Callable[[Mapping[str, Any]], Iterable[Problem]]] = (
    _identity,
    _command,
    _figures,
)


@cache
def sizes() -> dict[str, int]:
    """Items of the published benchmarks whose number is fixed."""
    return tomllib.loads(_SIZES.read_text(encoding="utf-8"))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------ the table

_HEADS: Mapping[Language, Sequence[str]] = {
    "en": ("Benchmark", "Model", "Score", "Items", "Shots", "Chat", "Data", "Version", "Date"),
    "zh": ("评测", "模型", "得分", "题数", "示例数", "对话", "数据", "版本", "日期"),
}


def table(rows: Sequence[Mapping[str, Any]], lang: Language) -> str:
    """Checked rows as a Markdown table with the commands below, by benchmark, best first."""
    ordered = sorted(rows, key=lambda row: (row["benchmark"], _rank(row), row["model"]))
    lines = ["| # | " + " | ".join(_HEADS[lang]) + " |", "|---" * 10 + "|"]
    lines += [f"| {n} | {' | '.join(_cells(row, lang))} |" for n, row in enumerate(ordered, 1)]
    lines.append("")
    for number, row in enumerate(ordered, 1):
        commit = f"@{row['commit']}" if row["commit"] else ""
        lines.append(
            f"{number}. `{row['command']}` (hunyuan {row['hunyuan']}{commit}, lm_eval "
            f"{row['harness']}, sha256 `{row['model_sha256'][:16]}…`)"
        )
    return "\n".join(lines)


def _rank(row: Mapping[str, Any]) -> float:
    better_low = benchmarks()[row["benchmark"]].lower_is_better
    return float(row["score"] if better_low else -row["score"])


def _cells(row: Mapping[str, Any], lang: Language) -> list[str]:
    task = benchmarks()[row["benchmark"]]
    score = f"{row['score']:.3f}" if task.lower_is_better else f"{100 * row['score']:.2f} %"
    if row["stderr"] is not None:
        score += f" ± {1.96 * 100 * row['stderr']:.2f}"
    items = f"{row['items']:,}" + ("" if row["items"] == row["of"] else f" / {row['of']:,}")
    chat = {"en": ("no", "yes"), "zh": ("否", "是")}[lang][row["chat"]]
    name = row["model"].replace("|", r"\|")
    data = row["data"][:15] + ("…" if len(row["data"]) > 15 else "")
    cells = [task.title, name, score, items, str(row["shots"]), chat, data, row["hunyuan"]]
    return [*cells, row["date"]]
