"""What came of a preparation, for programs (``report.json``) and for people (``report.md``).

Everything in it is added up from the tallies that the tasks wrote, so a run that was killed and
taken up again reports the same as one that was not. Each document that was read is in exactly one
column: kept, rejected, duplicate, contaminated.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hunyuan.data.shards import ShardRecord
from hunyuan.data.tally import Tally
from hunyuan.errors import BadDataError, Language, UsageError

Report = dict[str, Any]

REPORT = "report.json"


def make_report(
    recipe: Mapping[str, Any], tally: Tally, passages: Mapping[str, int], shards: list[ShardRecord]
) -> Report:
    """The report of a finished run; ``passages`` counts those of each benchmark."""
    names = [source["name"] for source in recipe["source"]]
    sources = {name: _source(name, tally, shards) for name in names}
    licenses = {source["name"]: source["license"] for source in recipe["source"]}
    for name, source in sources.items():
        source["license"] = licenses[name]
    benchmarks = {
        name: {
            "passages": count,
            "removed": sum(source["contaminated"].get(name, 0) for source in sources.values()),
        }
        for name, count in passages.items()
    }
    examples = [
        {"source": source, "event": event, "document": example.name, "text": example.text}
        for (source, event), found in sorted(tally.examples.items())
        for example in found
    ]
    return {
        "recipe": recipe,
        "sources": sources,
        "benchmarks": benchmarks,
        "shards": len(shards),
        "examples": examples,
    }


def _source(name: str, tally: Tally, shards: list[ShardRecord]) -> dict[str, Any]:
    counts = {event: count for (source, event), count in tally.counts.items() if source == name}

    def named(prefix: str) -> dict[str, int]:
        begin = prefix + " "
        found = {e.removeprefix(begin): n for e, n in counts.items() if e.startswith(begin)}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    labels = {label for label in ("zh", "en", "code", "other") if f"kept {label}" in counts}
    heldout = [s for s in shards if s.source == name and s.split == "heldout"]
    return {
        "read": counts.get("read", 0),
        "read_bytes": counts.get("read bytes", 0),
        "bad_lines": counts.get("bad lines", 0),
        "rejected": named("rejected"),
        "exact_duplicates": counts.get("exact duplicate", 0),
        "near_duplicates": counts.get("near duplicate", 0),
        "contaminated": named("contaminated"),
        "redacted": named("redacted"),
        "other_licenses": named("license"),
        "kept": {
            label: {
                "documents": counts[f"kept {label}"],
                "tokens": counts[f"kept tokens {label}"],
                "bytes": counts[f"kept bytes {label}"],
                "characters": counts[f"kept characters {label}"],
            }
            for label in sorted(labels)
        },
        "heldout": {
            "documents": sum(s.documents for s in heldout),
            "tokens": sum(s.tokens for s in heldout),
        },
    }


def read_report(folder: Path) -> Report:
    """The report of a token set; `UsageError` if it has none."""
    path = folder / REPORT
    try:
        report: Report = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; give a folder that `hunyuan data prepare` has finished",
            f"{path}：{error.strerror}；请给出 `hunyuan data prepare` 已完成的目录",
        ) from error
    except ValueError as error:
        raise BadDataError(
            f"{path}: is no valid JSON ({error}); prepare the set again",
            f"{path}：不是有效的 JSON（{error}）；请重新生成该数据集",
        ) from error
    return report


def render(report: Report, language: Language) -> str:
    """The report as Markdown."""
    zh = language == "zh"
    return "\n".join(_render(report, zh)) + "\n"


def _render(report: Report, zh: bool) -> Iterator[str]:
    sources = report["sources"]
    yield "# 数据报告" if zh else "# Data report"
    yield from _kept(sources, zh)
    yield from _removed(sources, zh)
    columns = [kind for kind in ("email", "phone", "identity", "card", "ip")]
    yield from _section(
        "个人信息替换" if zh else "Personal data replaced",
        ["来源" if zh else "source", *columns],
        ([name, *(s["redacted"].get(k, 0) for k in columns)] for name, s in sources.items()),
    )
    if report["benchmarks"]:
        hit = [name for name, b in report["benchmarks"].items() if b["removed"]]
        yield from _section(
            "评测集污染" if zh else "Benchmarks found",
            ["评测集" if zh else "benchmark", "片段" if zh else "passages", *sources],
            (
                [name, b["passages"], *(s["contaminated"].get(name, 0) for s in sources.values())]
                for name, b in report["benchmarks"].items()
            ),
        )
        clean = len(report["benchmarks"]) - len(hit)
        yield f"\n{clean} 个评测集未被发现。" if zh else f"\n{clean} benchmarks were not found."
    yield from _licenses(sources, zh)
    yield from _examples(report["examples"], zh)


def _kept(sources: Mapping[str, Any], zh: bool) -> Iterator[str]:
    rows: list[list[Any]] = []
    total = [0, 0, 0]
    for name, source in sources.items():
        for label, kept in source["kept"].items():
            numbers = (kept["documents"], kept["tokens"], kept["bytes"])
            total = [a + b for a, b in zip(total, numbers, strict=True)]
            per_token = kept["characters"] / max(kept["tokens"], 1)
            rows.append([name, label, *numbers, f"{per_token:.2f}"])
        if not source["kept"]:
            rows.append([name, "-", 0, 0, 0, "-"])
    rows.append(["**合计**" if zh else "**total**", "", *total, ""])
    heads = (
        ["来源", "语言", "文档", "词元", "字节", "字符/词元"]
        if zh
        else ["source", "language", "documents", "tokens", "bytes", "characters per token"]
    )
    yield from _section("保留" if zh else "Kept", heads, rows)
    heldout = [source["heldout"] for source in sources.values()]
    documents, tokens = (sum(h[key] for h in heldout) for key in ("documents", "tokens"))
    yield (
        f"\n其中留出集 {documents:,} 篇、{tokens:,} 词元。"
        if zh
        else f"\nOf these held out: {documents:,} documents, {tokens:,} tokens."
    )


def _removed(sources: Mapping[str, Any], zh: bool) -> Iterator[str]:
    heads = (
        ["来源", "读入", "坏行", "质量", "完全重复", "近似重复", "污染", "保留"]
        if zh
        else ["source", "read", "bad lines", "quality", "exact", "near", "benchmarks", "kept"]
    )
    rows = [
        [
            name,
            s["read"],
            s["bad_lines"],
            sum(s["rejected"].values()),
            s["exact_duplicates"],
            s["near_duplicates"],
            sum(s["contaminated"].values()),
            f"{_documents(s) / max(s['read'], 1):.1%}",
        ]
        for name, s in sources.items()
    ]
    yield from _section("移除" if zh else "Removed", heads, rows)
    reasons = sorted({reason for s in sources.values() for reason in s["rejected"]})
    if reasons:
        yield from _section(
            "质量与语言规则" if zh else "Rules of quality and language",
            ["原因" if zh else "reason", *sources],
            ([r, *(s["rejected"].get(r, 0) for s in sources.values())] for r in reasons),
        )


def _documents(source: Mapping[str, Any]) -> int:
    return sum(kept["documents"] for kept in source["kept"].values())


def _licenses(sources: Mapping[str, Any], zh: bool) -> Iterator[str]:
    rows = [
        [name, s["license"], "; ".join(f"{k} ({n:,})" for k, n in s["other_licenses"].items())]
        for name, s in sources.items()
    ]
    heads = ["来源", "许可证", "文档自述"] if zh else ["source", "licence", "stated by documents"]
    yield from _section("许可证" if zh else "Licences", heads, rows)


def _examples(examples: Sequence[Mapping[str, str]], zh: bool) -> Iterator[str]:
    yield "\n## " + ("示例" if zh else "Examples")
    event = None
    for example in sorted(examples, key=lambda e: (e["event"], e["source"], e["document"])):
        if example["event"] != event:
            event = example["event"]
            yield f"\n### {event}\n"
        text = " ".join(example["text"].split()).replace("`", "'")
        yield f"- {example['document']}: `{text}`"


def _section(title: str, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "|".join("---:" if i else "---" for i in range(len(heads))) + "|"
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
