"""``hunyuan info``: what a model is and what it needs."""

import json
from pathlib import Path
from typing import Any

import click

from hunyuan.cli.columns import columns
from hunyuan.errors import language
from hunyuan.files import human_bytes
from hunyuan.model.config import ModelConfig, presets

_LABELS = {
    "model": "模型",
    "family": "系列",
    "parameters": "参数量",
    "active_parameters": "每词元激活参数",
    "layers": "层数",
    "experts": "专家",
    "context": "上下文长度",
    "kv_bytes_per_token": "每词元缓存字节 (16 位)",
    "kv_share_of_mha": "占多头注意力缓存的比例",
    "flops_per_token": "每词元前向 FLOPs (不计注意力)",
    "memory": "权重内存",
    "licence": "许可证",
    "routing": "路由模式",
}


@click.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def info(model: str, as_json: bool) -> None:
    """Parameters, cache, memory and licence of MODEL.

    MODEL is a folder, a .gguf file, a pulled model's name, or a preset: large, large-instruct,
    a13b, dense-7b, dense-1_8b, dense-0_5b, small, tiny.
    """
    facts = _facts(model)
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    labels = _LABELS if language() == "zh" else {key: key.replace("_", " ") for key in facts}
    width = max(columns(label) for label in labels.values())
    for key, value in facts.items():
        padding = " " * (width - columns(labels[key]))
        print(f"{labels[key]}{padding}  {_readable(key, value)}")


def _facts(model: str) -> dict[str, Any]:
    if not Path(model).exists() and model in presets():
        return (
            {"model": model, "family": "preset"} | _of_config(presets()[model]) | {"licence": None}
        )
    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.checkpoint import open_checkpoint
    from hunyuan.checkpoint.load import resident_bytes, why_not_packed

    checkpoint = open_checkpoint(locate(model))
    facts = {"model": model, "family": checkpoint.family} | _of_config(checkpoint.config)
    if why_not_packed(checkpoint) is None:
        facts["memory"] = {"stored": resident_bytes(checkpoint)} | facts["memory"]
    return facts | {"licence": _licence(model, checkpoint.path, checkpoint.gguf)}


def _of_config(config: ModelConfig) -> dict[str, Any]:
    kv = config.kv_bytes_per_token()
    return {
        "parameters": config.total_parameters,
        "active_parameters": config.active_parameters,
        "layers": config.layers,
        "experts": {
            "routed": config.experts,
            "top_k": config.top_k if config.experts else 0,
            "shared": config.shared_experts,
        },
        "routing": config.routing.mode if config.experts else None,
        "context": config.context,
        "kv_bytes_per_token": kv,
        "kv_share_of_mha": kv / config.mha_kv_bytes_per_token(),
        "flops_per_token": config.flops_per_token(0),
        "memory": {
            "float32": 4 * config.total_parameters,
            "bfloat16": 2 * config.total_parameters,
            "float16": 2 * config.total_parameters,
        },
    }


def _licence(model: str, path: Path, gguf: Any) -> str | None:
    """From the catalogue, the file's own metadata, or the name of a licence file beside it."""
    from hunyuan.catalogue.store import installed

    for pulled in installed():
        if pulled.entry.name == model or pulled.path == path:
            return pulled.entry.licence.name
    if gguf is not None:
        stated = gguf.metadata.get("general.license")
        return str(stated) if stated else None
    found = sorted(path.glob("LICENSE*"))
    return str(found[0]) if found else None


def _readable(key: str, value: Any) -> str:
    if value is None:
        return "未知" if language() == "zh" else "not stated"
    if key == "memory":
        return ", ".join(f"{dtype} {human_bytes(size)}" for dtype, size in value.items())
    if key == "experts":
        if not value["routed"]:
            return "-"
        shared, routed = value["shared"], value["routed"]
        return f"{shared} + {routed}, top-{value['top_k']}"
    if key == "kv_share_of_mha":
        return f"{value:.1%}"
    if isinstance(value, int):
        return f"{value:,}" + (f" ({value / 1e9:.2f} B)" if "parameters" in key else "")
    return str(value)
