"""``hunyuan data``: prepare a token set from a recipe, look at its report, verify its files."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import UsageError, language

_STAGES_ZH = {
    "benchmarks": "评测集",
    "read": "读取与过滤",
    "exact": "完全重复",
    "signatures": "近似重复：签名",
    "buckets": "近似重复：比较",
    "clusters": "近似重复：分组",
    "tokens": "分词",
    "shards": "合并分片",
    "finish": "报告",
}


@click.group()
def data() -> None:
    """Prepare text for training: filter, deduplicate, tokenise."""


@data.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--restart", is_flag=True, help="Throw away what an earlier run left in OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def prepare(recipe: Path, out: Path, restart: bool, as_json: bool) -> None:
    """Make the token set OUT from the sources that RECIPE, a TOML file, names.

    The same command takes up the work after it was interrupted or killed.
    """
    if find_spec("datatrove") is None:
        raise UsageError(
            "hunyuan data prepare needs datatrove; pip install 'hunyuan[data]'",
            "hunyuan data prepare 需要 datatrove；请运行 pip install 'hunyuan[data]'",
        )
    from hunyuan.data.prepare import prepare as run
    from hunyuan.data.report import read_report, render

    lines: dict[str, ProgressLine] = {}

    def progress(stage: str, done: int, total: int) -> None:
        if stage not in lines:
            for line in lines.values():
                line.close()
            label = _STAGES_ZH[stage] if language() == "zh" else stage
            lines[stage] = ProgressLine(label, unit="tasks")
        lines[stage].update(done, total)

    try:
        run(recipe, out, restart=restart, progress=progress)
    finally:
        for line in lines.values():
            line.close()
    report = read_report(out)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
        return
    text = render(report, language())
    # The tables; the examples are for `hunyuan data report`.
    print(text[: text.rindex("\n## ")].rstrip())
    print(f"\n{out}")


@data.command()
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def report(folder: Path, as_json: bool) -> None:
    """Print what was kept and removed when SET was prepared, with examples."""
    from hunyuan.data.report import read_report, render

    content = read_report(folder)
    if as_json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        sys.stdout.write(render(content, language()))


@data.command()
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(folder: Path, as_json: bool) -> None:
    """Read all of SET and compare it with the hashes in its manifest."""
    from hunyuan.data.shards import TokenSet

    opened = TokenSet.open(folder, verify=True)
    documents = sum(record.documents for record in opened.records)
    tokens = sum(record.tokens for record in opened.records)
    shards = len(opened.records)
    if as_json:
        print(json.dumps({"shards": shards, "documents": documents, "tokens": tokens}))
    elif language() == "zh":
        print(f"完好：{shards} 个分片，{documents:,} 篇文档，{tokens:,} 个词元")
    else:
        print(f"intact: {shards} shards, {documents:,} documents, {tokens:,} tokens")


@data.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
def benchmarks(pack: Path, out: Path) -> None:
    """Turn PACK, copies of benchmarks as their authors publish them, into a folder for `eval`."""
    from hunyuan.evaluate.convert_pack import convert_pack

    def progress(name: str, rows: int) -> None:
        print(f"{name}  {rows:,}")

    if not convert_pack(pack, out, progress=progress):
        raise UsageError(
            f"{pack}: holds no benchmark this knows; it looks for folders such as mmlu and gsm8k",
            f"{pack}：其中没有可识别的评测集；应包含 mmlu、gsm8k 等目录",
        )
    print(out)


@data.command("make-tools")
@click.argument("out", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--count", type=click.IntRange(1), default=2000, show_default=True, help="Conversations."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same files.")
@click.option(
    "--language",
    "languages",
    type=click.Choice(["en", "zh"]),
    multiple=True,
    help="May be repeated; both by default.",
)
@click.option(
    "--form",
    type=click.Choice(["text", "tools"]),
    default="text",
    show_default=True,
    help="Calls as text, for any model, or as fields, for chat templates that know tools.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the statistics as JSON.")
def make_tools(
    out: Path, count: int, seed: int, languages: tuple[str, ...], form: str, as_json: bool
) -> None:
    """Make conversations with tool calls to fine-tune on, each call executed, in the folder DIR.

    Writes train.jsonl, heldout.jsonl (other ways of asking) and statistics.json.
    """
    import asyncio

    from hunyuan.workbench.tool_data.make import make_tool_data, render

    label = "生成对话" if language() == "zh" else "conversations"
    line = ProgressLine(label, unit="")
    try:
        counted = asyncio.run(
            make_tool_data(
                out,
                count=count,
                seed=seed,
                form="tools" if form == "tools" else "text",
                languages=["zh" if one == "zh" else "en" for one in languages or ("en", "zh")],
                progress=line.update,
            )
        )
    finally:
        line.close()
    print(json.dumps(counted, ensure_ascii=False) if as_json else render(counted, language()))
    print(out)
