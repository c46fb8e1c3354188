"""``hunyuan judge``: answers to open questions, judged by another model."""

import json
from pathlib import Path
from typing import Any

import click

from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import UsageError, language


@click.command()
@click.argument("model")
@click.option("--judge", "judge_spec", required=True, metavar="api:URL#MODEL", help="Who judges.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Compare with the answers of an earlier run instead of giving points.",
)
@click.option(
    "--questions",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="questions.jsonl and the judge's prompts. Default: those of this package.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the run."
)
@click.option("--yes", is_flag=True, help="A server is elsewhere, and I know what it costs.")
@click.option(
    "--max-tokens",
    type=click.IntRange(16),
    default=1024,
    show_default=True,
    help="Tokens of an answer at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the scores as one JSON object.")
def judge(
    model: str,
    judge_spec: str,
    against: Path | None,
    folder: Path | None,
    out: Path,
    yes: bool,
    max_tokens: int,
    as_json: bool,
) -> None:
    """Let MODEL (a name, a folder or api:URL#MODEL) answer open questions and a judge judge them.

    The same command goes on after an interruption.
    """
    from hunyuan.evaluate import judge as judging
    from hunyuan.evaluate.ask import ask_server
    from hunyuan.evaluate.response_log import ResponseLog
    from hunyuan.evaluate.server import split_server

    url, name = split_server(judge_spec)
    prompts = folder or judging.FOLDER
    questions = judging.read_questions(prompts)
    calls = len(questions) * (2 if against else 1)
    _require_consent(url, calls, yes)
    if model.startswith("api:"):
        _require_consent(split_server(model)[0], 2 * len(questions), yes)
    answers = judging.answer_all(
        questions,
        _subject(model, max_tokens),
        ResponseLog(out / "answers.jsonl"),
        _line("answers", len(questions)),
    )
    ask = ask_server(url, name, max_tokens=max_tokens)
    kind = "comparisons" if against else "judgements"
    log = ResponseLog(out / f"{kind}.jsonl")
    if against is None:
        scores = judging.score_all(
            questions, answers, ask, log, _line(kind, len(questions)), prompts
        )
    else:
        earlier = ResponseLog(against / "answers.jsonl")
        missing = [question.id for question in questions if question.id not in earlier]
        if missing:
            raise UsageError(
                f"{against}: has no answer to {missing[0]}; answer the same questions first",
                f"{against}：没有 {missing[0]} 的回答；请先回答同样的题目",
            )
        before = {question.id: tuple(earlier[question.id]) for question in questions}
        scores = judging.compare_all(
            questions, before, answers, ask, log, _line(kind, len(questions)), prompts
        )
    described = {"model": model, "judge": judge_spec, "against": against and str(against)}
    judging.write_scores(out, {**described, **scores})
    if as_json:
        print(json.dumps({**described, **scores}, ensure_ascii=False))
        return
    _show(scores)
    print(out)


def _require_consent(url: str, calls: int, yes: bool) -> None:
    """`UsageError` if a server elsewhere would be asked and nobody said that it may."""
    from hunyuan.evaluate.server import is_elsewhere

    if is_elsewhere(url) and not yes:
        raise UsageError(
            f"{url} would be asked {calls} times, which may cost money; allow it with --yes",
            f"将向 {url} 提问 {calls} 次，可能产生费用；请用 --yes 允许",
        )


def _subject(model: str, max_tokens: int) -> Any:
    from hunyuan.evaluate.ask import ask_engine, ask_server
    from hunyuan.evaluate.server import split_server

    if model.startswith("api:"):
        return ask_server(*split_server(model), max_tokens=max_tokens)
    asked: list[Any] = []

    def ask(messages: Any) -> str:
        # Loaded with the first question that has no answer yet.
        if not asked:
            from hunyuan.cli.options import load_engine

            engine = load_engine(model, "auto", "auto", None, max_sequences=1)
            asked.append(ask_engine(engine, max_tokens=max_tokens))
        return str(asked[0](messages))

    return ask


def _line(kind: str, total: int) -> Any:
    chinese = {"answers": "回答", "judgements": "评分", "comparisons": "比较"}
    line = ProgressLine(chinese[kind] if language() == "zh" else kind, unit="")
    return lambda done: line.update(done, total)


def _show(scores: dict[str, Any]) -> None:
    names = {"all": "全部"} if language() == "zh" else {"all": "all"}
    rows = [(names["all"], scores["all"]), *scores["languages"].items()]
    for name, mean in [*rows, *scores["categories"].items()]:
        if mean is not None:
            spread = f"{mean['value']:.2f} ± {1.96 * mean['stderr']:.2f}"
            print(f"{name}: {spread} ({mean['questions']})")
    if scores["unclear"]:
        unclear = ", ".join(scores["unclear"])
        print(f"无法读出结论：{unclear}" if language() == "zh" else f"no verdict found: {unclear}")
