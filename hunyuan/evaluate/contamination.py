"""Whether a model's training data named a benchmark, or were never searched for it.

Read from what training leaves in a model's folder (`hunyuan.train.provenance`). Benchmarks are told
by their names, as people call files and sources after them; a copy under another name is not seen.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hunyuan.evaluate.suites import BenchmarkTask

_SHORTEST = 3


def contamination(
    stages: Sequence[Mapping[str, Any]], benchmarks: Iterable[BenchmarkTask]
) -> dict[str, dict[str, str]]:
    """Benchmark -> a warning in each language, for those that need one."""
    found = {}
    for benchmark in benchmarks:
        if benchmark.dataset is None:
            continue  # it is made on the spot
        warning = _warning(stages, _names(benchmark), benchmark.title)
        if warning is not None:
            found[benchmark.name] = {"en": warning[0], "zh": warning[1]}
    return found


def _warning(
    stages: Sequence[Mapping[str, Any]], names: set[str], title: str
) -> tuple[str, str] | None:
    named = [s for stage in stages for s in stage.get("sources", ()) if _mentions(s, names)]
    if named:
        return (
            f"{title}: the model was trained on {', '.join(named)}, which is named after it; the "
            "score may be memory",
            f"{title}：模型的训练数据包含以其命名的 {'、'.join(named)}；得分可能来自记忆",
        )
    removed = 0
    for stage in stages:
        searched = _searched(stage, names)
        if searched is None:
            data = f"{stage.get('task')}: {stage.get('data')}"
            return (
                f"{title}: the model's training data ({data}) were not searched for its questions; "
                "name it under [decontamination] of `hunyuan data prepare`",
                f"{title}：模型的训练数据（{data}）未检查是否含有其题目；"
                "请在 `hunyuan data prepare` 的 [decontamination] 中列出",
            )
        removed += searched
    if removed:
        return (
            f"{title}: {removed:,} documents with its questions were found in the training data "
            "and removed; rewordings may be left",
            f"{title}：训练数据中发现并移除了 {removed:,} 篇含有其题目的文档；可能仍有改写的题目",
        )
    return None


def _searched(stage: Mapping[str, Any], names: set[str]) -> int | None:
    """Documents that were removed for a benchmark; None where nothing was looked for."""
    counts = [
        int(found["removed"])
        for name, found in (stage.get("decontamination") or {}).items()
        if {_plain(name), _plain(_base(found.get("place")))} & names
    ]
    return sum(counts) if counts else None


def _base(place: object) -> str:
    """``gsm8k`` of ``bench/gsm8k`` and ``bench/gsm8k.jsonl.gz``."""
    return Path(str(place or "")).name.partition(".")[0]


def _names(benchmark: BenchmarkTask) -> set[str]:
    dataset = benchmark.dataset or ""
    given = (benchmark.name, benchmark.title, dataset, dataset.rpartition("/")[2])
    return {_plain(name) for name in given}


def _mentions(source: str, names: set[str]) -> bool:
    """Whether words of a source's name that stand together are a name of the benchmark."""
    words = [word for word in re.split(r"[^0-9a-z\u4e00-\u9fff]+", source.lower()) if word]
    runs = {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
    return any(name in runs for name in names if len(name) >= _SHORTEST)


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z\u4e00-\u9fff]+", "", name.lower())
