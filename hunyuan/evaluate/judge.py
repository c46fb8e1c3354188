"""Answers judged by another model: two-turn questions in the manner of MT-Bench and AlignBench
(Zheng et al. 2023, Liu et al. 2024), in English and Chinese.

A judge gives each pair of answers 1 to 10 points, or compares those of two models. Comparisons are
made twice with the places exchanged, and only a verdict that survives the exchange counts: judges
prefer what stands first. The questions and the judge's prompts are files beside this one, and a
folder of one's own may replace them.

    OUT/answers.jsonl    the model's answers     OUT/judgements.jsonl   what the judge wrote
    OUT/scores.json      means with standard errors, over all and by category
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hunyuan.errors import BadDataError
from hunyuan.evaluate.response_log import ResponseLog
from hunyuan.files import atomic_file

FOLDER = Path(__file__).parent / "judging"
Messages = list[dict[str, str]]
Ask = Callable[[Messages], str]
"""A conversation to the text that answers it."""

Verdict = Literal["first", "second", "tie", "unclear"]


@dataclass(frozen=True, kw_only=True)
class Question:
    """Two turns."""

    id: str
    language: Literal["en", "zh"]
    category: str
    turns: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over questions."""

    value: float
    stderr: float
    questions: int


def read_questions(folder: Path = FOLDER) -> list[Question]:
    """The questions of ``questions.jsonl``; `BadDataError` names the line that is no question."""
    path = folder / "questions.jsonl"
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            first, second = row["turns"]
            if row["language"] not in ("en", "zh"):
                raise ValueError("language")
            question = Question(**{**row, "turns": (str(first), str(second))})
        except (ValueError, TypeError, KeyError) as error:
            raise BadDataError(
                f"{path}:{number}: no question ({type(error).__name__}); each line needs id, "
                "language (en or zh), category and two turns",
                f"{path}:{number}：不是有效的题目（{type(error).__name__}）；"
                "每行需要 id、language（en 或 zh）、category 和两个 turns",
            ) from error
        questions.append(question)
    return questions


def answer_all(
    questions: Sequence[Question], ask: Ask, log: ResponseLog, progress: Callable[[int], None]
) -> dict[str, tuple[str, str]]:
    """Both answers to every question, asked only where ``log`` has none."""
    answers = {}
    for count, question in enumerate(questions):
        if question.id not in log:
            first = ask([_user(question.turns[0])])
            talk = [_user(question.turns[0]), {"role": "assistant", "content": first}]
            log.add([(question.id, [first, ask([*talk, _user(question.turns[1])])])])
        one, two = log[question.id]
        answers[question.id] = (one, two)
        progress(count + 1)
    return answers


def score_all(
    questions: Sequence[Question],
    answers: Mapping[str, tuple[str, str]],
    judge: Ask,
    log: ResponseLog,
    progress: Callable[[int], None],
    folder: Path = FOLDER,
) -> dict[str, Any]:
    """Points from 1 to 10: means over all and by category, and which judgements had none."""
    points: dict[str, float] = {}
    for count, question in enumerate(questions):
        if question.id not in log:
            one, two = answers[question.id]
            prompt = _template(folder, "score", question).format(
                question1=question.turns[0],
                question2=question.turns[1],
                answer1=one,
                answer2=two,
            )
            log.add([(question.id, judge([_user(prompt)]))])
        found = rating(log[question.id])
        if found is not None:
            points[question.id] = found
        progress(count + 1)
    return _summary(questions, points)


def compare_all(
    questions: Sequence[Question],
    first: Mapping[str, tuple[str, str]],
    second: Mapping[str, tuple[str, str]],
    judge: Ask,
    log: ResponseLog,
    progress: Callable[[int], None],
    folder: Path = FOLDER,
) -> dict[str, Any]:
    """Wins of the second model over the first: 1, 0.5 or 0 a question, places exchanged once."""
    points: dict[str, float] = {}
    for count, question in enumerate(questions):
        verdicts = []
        for swapped in (False, True):
            key = f"{question.id}/{'swapped' if swapped else 'straight'}"
            if key not in log:
                a, b = (second, first) if swapped else (first, second)
                prompt = _template(folder, "pair", question).format(
                    question1=question.turns[0],
                    question2=question.turns[1],
                    first1=a[question.id][0],
                    first2=a[question.id][1],
                    second1=b[question.id][0],
                    second2=b[question.id][1],
                )
                log.add([(key, judge([_user(prompt)]))])
            verdicts.append(verdict(log[key], swapped=swapped))
        if "unclear" not in verdicts:
            agreed = verdicts[0] if verdicts[0] == verdicts[1] else "tie"
            points[question.id] = {"first": 0.0, "second": 1.0}.get(agreed, 0.5)
        progress(count + 1)
    return _summary(questions, points)


def rating(judgement: str) -> float | None:
    """The number in the last ``[[...]]`` of a judgement, or None."""
    found = re.findall(r"\[\[(\d+(?:\.\d+)?)\]\]", judgement)
    return float(found[-1]) if found and 1 <= float(found[-1]) <= 10 else None


def verdict(judgement: str, *, swapped: bool) -> Verdict:
    """Who is better by the last ``[[A]]``, ``[[B]]`` or ``[[C]]``, in the places before a swap."""
    found = re.findall(r"\[\[([ABC])\]\]", judgement)
    if not found:
        return "unclear"
    if found[-1] == "C":
        return "tie"
    return "first" if (found[-1] == "A") is not swapped else "second"


def write_scores(out: Path, scores: Mapping[str, Any]) -> None:
    """Write scores.json."""
    with atomic_file(out / "scores.json") as file:
        file.write(json.dumps(scores, ensure_ascii=False, indent=1).encode())


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _template(folder: Path, kind: str, question: Question) -> str:
    return (folder / f"{kind}.{question.language}.txt").read_text(encoding="utf-8")


def _summary(questions: Sequence[Question], points: Mapping[str, float]) -> dict[str, Any]:
    def mean(chosen: Iterable[Question]) -> dict[str, Any] | None:
        values = [points[question.id] for question in chosen if question.id in points]
        if not values:
            return None
        value = sum(values) / len(values)
        spread = sum((each - value) ** 2 for each in values) / max(len(values) - 1, 1)
        stderr = math.sqrt(spread / len(values))
        return asdict(Mean(value=value, stderr=stderr, questions=len(values)))

    categories = sorted({question.category for question in questions})
    return {
        "all": mean(questions),
        "languages": {
            language: mean(q for q in questions if q.language == language)
            for language in ("en", "zh")
        },
        "categories": {
            category: mean(q for q in questions if q.category == category)
            for category in categories
        },
        "unclear": [question.id for question in questions if question.id not in points],
        "points": dict(points),
    }
