"""``hunyuan upcycle``: turn a dense checkpoint into a mixture of experts."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hunyuan.cli.options import written_dtype
from hunyuan.cli.progress import ProgressLine
from hunyuan.errors import language

if TYPE_CHECKING:
    from hunyuan.checkpoint.upcycle import Upcycled


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--experts", type=int, required=True, help="Routed experts per layer, 2 or more.")
@click.option("--top-k", type=int, default=1, show_default=True, help="Experts a token visits.")
@click.option("--shared", type=int, help="Shared experts, together as wide as the dense MLP.")
@click.option("--expert-ffn", type=int, help="Width of an expert, a divisor of the dense width.")
@click.option(
    "--cla",
    type=int,
    default=1,
    show_default=True,
    help="Consecutive layers that share K and V. Above 1 the model changes and must be trained.",
)
@click.option(
    "--routing",
    default="dropless",
    show_default=True,
    metavar="MODE",
    help="dropless, capacity-drop or capacity-recycle: what the configuration asks of training.",
)
@written_dtype
@click.option("--seed", type=int, default=0, show_default=True, help="Of neurons, noise, router.")
@click.option(
    "--text",
    type=click.Path(path_type=Path),
    help="A text file to compute the loss on. With --cla its first part also fits how layers "
    "read the keys and values of others.",
)
@click.option("--verify", is_flag=True, help="Compare the logits of both at the end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def upcycle(
    source: str,
    target: Path,
    experts: int,
    top_k: int,
    shared: int | None,
    expert_ffn: int | None,
    cla: int,
    routing: str,
    dtype: str,
    seed: int,
    text: Path | None,
    verify: bool,
    as_json: bool,
) -> None:
    """Write the dense model SOURCE as a mixture of experts, the Hugging Face folder TARGET.

    The result computes what SOURCE does until it is trained; with --cla it does not. Streams:
    needs the memory of about two tensors.
    """
    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.load import parse_dtype
    from hunyuan.checkpoint.upcycle import Upcycling
    from hunyuan.checkpoint.upcycle import upcycle as run
    from hunyuan.model.config import Routing

    plan = Upcycling(
        experts=experts,
        top_k=top_k,
        shared_experts=shared,
        expert_ffn=expert_ffn,
        cla_share=cla,
        routing=Routing(mode=routing),  # type: ignore[arg-type]  # it says what is wrong
        seed=seed,
    )
    label = "改造" if language() == "zh" else "upcycling"
    line = ProgressLine(label, unit="parameters")
    result = run(
        locate(source),
        target,
        plan,
        dtype=None if dtype == "keep" else parse_dtype(dtype),
        text=text,
        verify=verify,
        progress=line.update,
    )
    line.close()
    if as_json:
        print(json.dumps({"target": str(target), **_record(result)}))
        return
    print(target)
    for sentence in _sentences(result):
        print(sentence)


def _record(result: "Upcycled") -> dict[str, object]:
    return {
        "parameters": result.config.total_parameters,
        "active_parameters": result.config.active_parameters,
        "verify": asdict(result.comparison) if result.comparison else None,
        "loss_before": result.loss_before,
        "loss_after": result.loss_after,
    }


def _sentences(result: "Upcycled") -> list[str]:
    zh = language() == "zh"
    config, found = result.config, result.comparison
    total, active = config.total_parameters / 1e6, config.active_parameters / 1e6
    lines = [
        f"参数 {total:.1f} M，每词元激活 {active:.1f} M"
        if zh
        else f"{total:.1f} M parameters, {active:.1f} M active per token"
    ]
    if found is not None:
        lines.append(
            f"logits 最大相差 {found.max_difference:.3g}，平均 {found.mean_difference:.3g}"
            f"（标准差 {found.spread:.3g}）；首选词元一致 {found.same_argmax:.0%}"
            if zh
            else f"logits differ by at most {found.max_difference:.3g}, mean "
            f"{found.mean_difference:.3g} (spread {found.spread:.3g}); same first choice at "
            f"{found.same_argmax:.0%} of positions"
        )
    if result.loss_before is not None and result.loss_after is not None:
        lines.append(
            f"损失：之前 {result.loss_before:.4f}，之后 {result.loss_after:.4f} nats/词元"
            if zh
            else f"loss: {result.loss_before:.4f} before, {result.loss_after:.4f} after, "
            "nats a token"
        )
    if config.cla_share > 1:
        lines.append(
            "各层共享 K 与 V 改变了模型：使用前请先训练"
            if zh
            else "sharing K and V between layers changed the model: train it before use"
        )
    return lines
