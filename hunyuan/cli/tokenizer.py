"""``hunyuan tokenizer``: learn a vocabulary from text and tell how well it compresses."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from hunyuan.cli.columns import columns
from hunyuan.errors import UsageError, language

MEASURED_FROM, MEASURED_CHARACTERS = 0.98, 2_000_000
"""Texts whose own fraction is above the first are never learnt from but measured, up to the second
in each language."""

_LANGUAGES_ZH = {"zh": "中文", "en": "英文", "code": "代码", "other": "其他"}


@click.group()
def tokenizer() -> None:
    """Learn a tokenizer from text."""


@tokenizer.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--vocab", required=True, type=int, help="Tokens, special ones included.")
@click.option(
    "--share",
    default=1.0,
    show_default=True,
    help="Share of the texts to learn from; the same share draws the same texts.",
)
@click.option(
    "--field",
    "fields",
    multiple=True,
    default=("text",),
    show_default=True,
    help="jsonl: field that holds the text; several are joined.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train(
    out: Path,
    files: tuple[Path, ...],
    vocab: int,
    share: float,
    fields: tuple[str, ...],
    as_json: bool,
) -> None:
    """Learn a byte-pair vocabulary from FILES (jsonl, jsonl.gz or text) into the folder OUT.

    Two texts in a hundred are not learnt from; on them the compression is measured.
    """
    from hunyuan.data.languages import language_of
    from hunyuan.files import atomic_folder
    from hunyuan.tokenizer.save import save_tokenizer
    from hunyuan.tokenizer.train import fraction, measure, read_texts, train_tokenizer

    if not 0 < share <= 1:
        raise UsageError(
            f"--share {share}: must be above 0 and at most 1",
            f"--share {share}：须大于 0 且不超过 1",
        )
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise UsageError(
            f"{out}: exists already; give a new folder", f"{out}：已存在；请给出新的目录"
        )
    apart: dict[str, list[str]] = {}
    room: dict[str, int] = {}
    learnt = 0

    def texts() -> Iterator[str]:
        nonlocal learnt
        for path in files:
            for text in read_texts(path, fields):
                place = fraction(text)
                if place < min(share, MEASURED_FROM):
                    learnt += 1
                    yield text
                elif place >= MEASURED_FROM:
                    label = language_of(text)
                    left = room.setdefault(label, MEASURED_CHARACTERS)
                    apart.setdefault(label, []).append(text[:left])
                    room[label] = left - len(text[:left])

    result = train_tokenizer(texts(), vocab)
    if not learnt:
        raise UsageError(
            f"--share {share}: no text of the files was drawn; raise it or give more files",
            f"--share {share}：没有抽到任何文本；请调大或提供更多文件",
        )
    measured = {
        label: {
            "characters": found.characters,
            "bytes": found.bytes,
            "tokens": found.tokens,
            "characters_per_token": found.characters_per_token,
            "bytes_per_token": found.bytes_per_token,
        }
        for label, found in sorted(measure(result, apart).items())
        if found.tokens
    }
    report = {
        "vocab": result.vocab_size,
        "wanted": vocab,
        "texts": learnt,
        "compression": measured,
    }
    with atomic_folder(out) as folder:
        save_tokenizer(result, folder)
        content = json.dumps(report, ensure_ascii=False, indent=1)
        (folder / "compression.json").write_text(content + "\n", encoding="utf-8")
    if as_json:
        print(json.dumps({"tokenizer": str(out), **report}))
        return
    zh = language() == "zh"
    if result.vocab_size < vocab:
        print(
            f"文本只能产生 {result.vocab_size} 个词元，少于所要的 {vocab} 个；请提供更多文本"
            if zh
            else f"the texts gave only {result.vocab_size} of {vocab} tokens: no pair occurs "
            "twice any more; give more text for more"
        )
    heads = ("语言", "字符/词元", "字节/词元") if zh else ("language", "chars/token", "bytes/token")
    rows = [heads] + [
        (
            _LANGUAGES_ZH[label] if zh else label,
            f"{found['characters_per_token']:.2f}",
            f"{found['bytes_per_token']:.2f}",
        )
        for label, found in measured.items()
    ]
    widths = [max(columns(row[i]) for row in rows) for i in range(3)]
    for row in rows if measured else []:
        cells = (c + " " * (w - columns(c)) for c, w in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(out)
