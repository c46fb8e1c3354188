"""Two evaluations side by side: which differences are real, and which items flipped.

Items are paired by task and place, so what both find easy or hard cancels out. Scores that are 0 or
1 are compared by the exact McNemar test (McNemar 1947) on the items that flipped; others by the
normal approximation of the mean paired difference.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hunyuan.errors import UsageError
from hunyuan.evaluate.run_folder import EvaluationRun


@dataclass(frozen=True, kw_only=True)
class Flip:
    """An item the two runs score differently."""

    task: str
    doc_id: int
    before: float
    after: float
    reference: Any


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One benchmark in both runs, over the items both have."""

    benchmark: str
    items: int
    before: float
    after: float
    stderr: float
    """Of the paired difference."""

    p: float
    """Probability of a difference this large if there were none."""

    flips: tuple[Flip, ...]

    @property
    def significant(self) -> bool:
        """At the 5 % level."""
        return self.p < 0.05


def compare(first: EvaluationRun, second: EvaluationRun) -> list[Difference]:
    """Every benchmark that both runs finished; `UsageError` if there is none."""
    left, right = first.results(), second.results()
    common = [name for name in left if name in right]
    if not common:
        raise UsageError(
            f"{first.folder} and {second.folder} have no finished benchmark in common: "
            f"{', '.join(left) or '-'} and {', '.join(right) or '-'}",
            f"{first.folder} 与 {second.folder} 没有共同完成的评测："
            f"{'、'.join(left) or '-'} 与 {'、'.join(right) or '-'}",
        )
    differences = []
    for name in common:
        if left[name].metric != right[name].metric or left[name].shots != right[name].shots:
            raise UsageError(
                f"{name}: the runs differ in metric or shots ({left[name].metric}, "
                f"{left[name].shots} and {right[name].metric}, {right[name].shots}); only equal "
                "settings can be compared",
                f"{name}：两次评测的指标或示例数不同（{left[name].metric}，{left[name].shots} 与 "
                f"{right[name].metric}，{right[name].shots}）；只有设置相同才能比较",
            )
        differences.append(_difference(name, _scores(first, name), _scores(second, name)))
    return differences


def _scores(run: EvaluationRun, benchmark: str) -> dict[tuple[str, int], tuple[float, Any]]:
    return {
        (item["task"], item["doc_id"]): (item["score"], item["reference"])
        for item in run.items(benchmark)
        if item["score"] is not None
    }


def _difference(
    name: str,
    left: Mapping[tuple[str, int], tuple[float, Any]],
    right: Mapping[tuple[str, int], tuple[float, Any]],
) -> Difference:
    pairs = [key for key in left if key in right]
    before = [left[key][0] for key in pairs]
    after = [right[key][0] for key in pairs]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    count = len(changes)
    mean = sum(changes) / count if count else 0.0
    variance = sum((change - mean) ** 2 for change in changes) / max(count - 1, 1)
    stderr = math.sqrt(variance / count) if count else 0.0
    flips = tuple(
        Flip(task=key[0], doc_id=key[1], before=a, after=b, reference=left[key][1])
        for key, a, b in zip(pairs, before, after, strict=True)
        if a != b
    )
    if all(value in (0.0, 1.0) for value in (*before, *after)):
        p = mcnemar(sum(change < 0 for change in changes), sum(change > 0 for change in changes))
    else:
        p = math.erfc(abs(mean) / stderr / math.sqrt(2)) if stderr else float(mean == 0)
    return Difference(
        benchmark=name,
        items=count,
        before=sum(before) / count if count else 0.0,
        after=sum(after) / count if count else 0.0,
        stderr=stderr,
        p=p,
        flips=flips,
    )


def mcnemar(worse: int, better: int) -> float:
    """Two-sided exact probability that flips fall at least this unevenly."""
    flips = worse + better
    fewer = min(worse, better)
    # In logarithms: 2 ** -flips underflows for a large benchmark.
    tail = sum(
        math.exp(
            math.lgamma(flips + 1)
            - math.lgamma(k + 1)
            - math.lgamma(flips - k + 1)
            - flips * math.log(2)
        )
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
