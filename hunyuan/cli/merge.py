"""``hunyuan merge``: work a LoRA adapter into its model."""

import json
from pathlib import Path

import click

from hunyuan.cli.options import written_dtype
from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import language


@click.command()
@click.argument("base")
@click.argument("adapter", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@written_dtype
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def merge(base: str, adapter: Path, target: Path, dtype: str, as_json: bool) -> None:
    """Write BASE with ADAPTER (a folder, PEFT's format) added as the Hugging Face folder TARGET.

    Streams: needs the memory of about two tensors, whatever the size of the model.
    """
    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.load import parse_dtype
    from hunyuan.train.adapter import merge as run

    line = ProgressLine("合并" if language() == "zh" else "merging", unit="parameters")
    config = run(
        locate(base),
        adapter,
        target,
        dtype=None if dtype == "keep" else parse_dtype(dtype),
        progress=line.update,
    )
    line.close()
    if as_json:
        print(json.dumps({"target": str(target), "parameters": config.total_parameters}))
    else:
        print(target)
