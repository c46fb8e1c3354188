"""``hunyuan convert``: write a checkpoint in another format."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from hunyuan.cli.options import written_dtype
from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import UsageError, language


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@written_dtype
@click.option(
    "--quantize",
    metavar="SCHEME",
    help="q8 (8.5 bits a weight) or q4 (about 5). A GGUF file "
    "then is readable by other engines, a folder only by this project.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="With --quantize: a text file; what the model makes of it (and of random tokens) "
    "decides which errors matter.",
)
@click.option(
    "--experts-on-disk",
    is_flag=True,
    help="With --quantize: pack the routed experts into a file that they can be run from, for a "
    "model larger than the memory. Killed half-way, the same command goes on.",
)
@click.option("--verify", is_flag=True, help="Compare the logits of both at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def convert(
    source: str,
    target: Path,
    dtype: str,
    quantize: str | None,
    calibration: Path | None,
    experts_on_disk: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Write SOURCE as TARGET: a GGUF file if the name ends in .gguf, else a Hugging Face folder.

    Streams: needs the memory of about two tensors, whatever the size of the model.
    """
    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.convert import convert as run
    from hunyuan.checkpoint.load import parse_dtype
    from hunyuan.checkpoint.quantize import parse_scheme

    if quantize is None and calibration is not None:
        raise UsageError(
            f"--calibration {calibration}: only has a meaning with --quantize; add --quantize q4",
            f"--calibration {calibration}：仅与 --quantize 一起有意义；请加上 --quantize q4",
        )
    if quantize is not None and dtype != "keep":
        raise UsageError(
            f"--dtype {dtype}: the matrices have the type of --quantize {quantize}; give one of "
            "the two",
            f"--dtype {dtype}：矩阵的类型由 --quantize {quantize} 决定；二者只能选一",
        )
    label = "转换" if language() == "zh" else "converting"
    line = ProgressLine(label, unit="parameters")
    result = run(
        locate(source),
        target,
        dtype=None if dtype == "keep" else parse_dtype(dtype),
        quantize=None if quantize is None else parse_scheme(quantize),
        calibration=calibration,
        experts_on_disk=experts_on_disk,
        verify=verify,
        progress=line.update,
    )
    line.close()
    if as_json:
        print(json.dumps({"target": str(target), "verify": asdict(result) if result else None}))
        return
    print(target)
    if result is None:
        return
    if language() == "zh":
        print(
            f"logits 最大相差 {result.max_difference:.3g}，平均 {result.mean_difference:.3g}"
            f"（标准差 {result.spread:.3g}）；首选词元一致 {result.same_argmax:.0%}"
        )
    else:
        print(
            f"logits differ by at most {result.max_difference:.3g}, mean "
            f"{result.mean_difference:.3g} (spread {result.spread:.3g}); "
            f"same first choice at {result.same_argmax:.0%} of positions"
        )
