"""Several answers to each item: mean score, pass@k, majority vote.

pass@k is the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374): of n answers, c of them
right, the probability that k drawn without replacement hold a right one. maj@N scores the answer
that most of the N agree on (Wang et al. 2022, arXiv 2203.11171); of equally frequent ones, the
first.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hunyuan.evaluate.run_folder import Score

EACH = "each"
"""Name under which an item's metrics hold the score of each answer."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How several answers are drawn."""

    repeats: int
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0
    """Of the first answer to each item; the next ones count up from it."""


def draw_answers(task: Any, sampling: Sampling, metric: str) -> None:
    """Let a generation task of the harness ask each item ``sampling.repeats`` times.

    The scores of an item become means over its answers, and ``EACH`` lists those of ``metric``.
    """
    from lm_eval.filters.selection import TakeFirstFilter

    task.set_config("repeats", sampling.repeats)
    task.config.generation_kwargs |= {
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    for pipeline in task._filters:
        pipeline.filters = [f for f in pipeline.filters if not isinstance(f(), TakeFirstFilter)]
    score_one = task.process_results

    def score_all(doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, Any]:
        (answers,) = results
        scored = [score_one(doc, [answer]) for answer in answers]
        means = {name: _mean([float(one[name]) for one in scored]) for name in scored[0]}
        return {**means, EACH: [float(one[metric]) for one in scored]}

    task.process_results = score_all
    # The harness adds up everything that an item has; this is no figure.
    task.aggregation()[EACH] = len


def pass_at_k(answers: int, right: int, k: int) -> float:
    """Probability that ``k`` of ``answers``, of which ``right`` are right, hold a right one."""
    assert 0 <= right <= answers, (answers, right)
    assert 1 <= k <= answers, (answers, k)
    return 1.0 - math.comb(answers - right, k) / math.comb(answers, k)


def figures(items: Sequence[Mapping[str, Any]], repeats: int, *, vote: bool) -> dict[str, Score]:
    """``pass@k`` for every k where answers are right or wrong, and ``maj@N`` if ``vote``."""
    each = [item["answer_scores"] for item in items]
    if not each or any(score not in (0.0, 1.0) for scores in each for score in scores):
        return {}
    found = {
        f"pass@{k}": mean_score([pass_at_k(repeats, round(sum(scores)), k) for scores in each])
        for k in range(1, repeats + 1)
    }
    if vote:
        votes = [majority(item["extracted"][0], item["answer_scores"]) for item in items]
        found[f"maj@{repeats}"] = mean_score(votes)
    return found


def majority(answers: Sequence[Any], scores: Sequence[float]) -> float:
    """The score of the answer that is given most often."""
    texts = [" ".join(str(answer).split()) for answer in answers]
    ((winner, _),) = Counter(texts).most_common(1)
    return scores[texts.index(winner)]


def mean_score(scores: Sequence[float]) -> Score:
    """Mean of items' scores with its standard error, which a single item does not have."""
    return Score(value=_mean(scores), stderr=standard_error(scores), items=len(scores))


def standard_error(scores: Sequence[float]) -> float | None:
    """Of the mean; None for a figure that is no mean of items' scores, or a single item."""
    if len(scores) < 2:
        return None
    mean = _mean(scores)
    variance = sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)
    return math.sqrt(variance / len(scores))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
