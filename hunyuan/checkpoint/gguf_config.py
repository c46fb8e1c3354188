"""GGUF metadata <-> `ModelConfig`, for the four architectures we read and write."""

import math
from collections.abc import Mapping
from typing import Any, get_args

import torch

from hunyuan.checkpoint.pieces import GGUFArchitecture
from hunyuan.errors import BadDataError, UsageError
from hunyuan.formats.ggml import read_tensor
from hunyuan.formats.gguf import GGUFFile
from hunyuan.model.config import Llama3Scaling, ModelConfig, Rope
from hunyuan.model.rope import inverse_frequencies

ROPE_FACTORS = "rope_freqs.weight"
"""Tensor that divides the inverse frequencies; llama.cpp's converter writes it for Llama 3."""

LLAMA3_SCALINGS = tuple(
    Llama3Scaling(factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)
    for factor in (8.0, 32.0)
)
"""Of Llama 3.1 (and 3.3) and of 3.2: GGUF stores only what follows from them."""


def gguf_architecture(file: GGUFFile) -> GGUFArchitecture:
    """The file's architecture; `BadDataError` if it is not one we compute."""
    name = file.metadata.get("general.architecture")
    for known in get_args(GGUFArchitecture):
        if name == known:
            return known  # type: ignore[no-any-return]
    supported = get_args(GGUFArchitecture)
    raise BadDataError(
        f"{file.path}: GGUF architecture {name!r} is not supported; "
        f"supported: {', '.join(supported)}",
        f"{file.path}：不支持的 GGUF 架构 {name!r}；支持：{'、'.join(supported)}",
    )


def read_gguf_config(file: GGUFFile) -> ModelConfig:
    """The shape that a GGUF file's metadata describes."""
    try:
        return _config(file)
    except UsageError as error:  # a shape that cannot be, said of the file it came from
        raise BadDataError(f"{file.path}: {error.en}", f"{file.path}：{error.zh}") from error


def _config(file: GGUFFile) -> ModelConfig:
    architecture = gguf_architecture(file)

    def get(key: str, default: float | None = None) -> float:
        value = file.metadata.get(f"{architecture}.{key}", default)
        if isinstance(value, list) and len(set(value)) == 1:
            value = value[0]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise BadDataError(
                f"{file.path}: metadata {architecture}.{key}={value!r}: a number is needed",
                f"{file.path}：元数据 {architecture}.{key}={value!r}：应为数字",
            )
        # Stored as float32: 1e-05 reads as 9.999999747e-06 and would be written so elsewhere.
        return float(f"{value:.7g}") if isinstance(value, float) else value

    hidden, heads = int(get("embedding_length")), int(get("attention.head_count"))
    head_dim = int(get("attention.key_length", hidden // max(heads, 1)))
    experts = int(get("expert_count", 0))
    ffn = int(get("feed_forward_length", 0))
    hunyuan = architecture.startswith("hunyuan")
    fields: dict[str, Any] = {}
    if experts:
        width = int(get("expert_feed_forward_length", ffn))
        shared = int(get("expert_shared_feed_forward_length", width if hunyuan else 0))
        fields = {
            "experts": experts,
            "top_k": int(get("expert_used_count")),
            "shared_experts": shared // max(width, 1),
            "norm_topk_prob": True,
        }
        ffn = width
    if "token_embd.weight" not in file.tensors:
        raise BadDataError(
            f"{file.path}: tensor token_embd.weight is missing; download the file again",
            f"{file.path}：缺少张量 token_embd.weight；请重新下载",
        )
    return ModelConfig(
        vocab=file.tensors["token_embd.weight"].shape[0],
        hidden=hidden,
        layers=int(get("block_count")),
        heads=heads,
        kv_heads=int(get("attention.head_count_kv", heads)),
        head_dim=head_dim,
        ffn=ffn,
        context=int(get("context_length")),
        norm_eps=get("attention.layer_norm_rms_epsilon"),
        tied="output.weight" not in file.tensors,
        qk_norm=hunyuan,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        output_bias="blk.0.attn_output.bias" in file.tensors,
        rope=_rope(
            file,
            architecture,
            head_dim,
            theta=get("rope.freq_base", 10_000.0),
            factor=get("rope.scaling.factor", 1.0),
        ),
        **fields,
    )


def _rope(
    file: GGUFFile, architecture: GGUFArchitecture, head_dim: int, *, theta: float, factor: float
) -> Rope:
    scaling = file.metadata.get(f"{architecture}.rope.scaling.type", "none")
    rotated = file.metadata.get(f"{architecture}.rope.dimension_count", head_dim)
    if scaling not in ("none", "linear") or rotated != head_dim:
        raise BadDataError(
            f"{file.path}: rope scaling {scaling!r} over {rotated} of {head_dim} channels is not "
            "supported; supported: none or linear over the whole head",
            f"{file.path}：不支持 RoPE 缩放 {scaling!r}（{rotated}/{head_dim} 通道）；"
            "支持作用于整个注意力头的 none 或 linear",
        )
    if scaling == "linear":
        return Rope(theta=theta, linear_factor=factor)
    if ROPE_FACTORS not in file.tensors:
        return Rope(theta=theta)
    stored = read_tensor(file, ROPE_FACTORS)
    candidates = [Rope(theta=theta), *(Rope(theta=theta, llama3=s) for s in LLAMA3_SCALINGS)]
    for rope in candidates:
        factors = rope_factors(rope, head_dim)
        if factors.shape == stored.shape and torch.allclose(factors, stored, rtol=1e-3):
            return rope
    raise BadDataError(
        f"{file.path}: {ROPE_FACTORS} holds factors of no published Llama 3 model; not supported",
        f"{file.path}：{ROPE_FACTORS} 不属于任何已发布的 Llama 3 模型；不支持",
    )


def rope_factors(rope: Rope, head_dim: int) -> torch.Tensor:
    """(C/2,) float32: what llama3 scaling divides each inverse frequency by."""
    return inverse_frequencies(Rope(theta=rope.theta), head_dim) / inverse_frequencies(
        rope, head_dim
    )


def architecture_for(config: ModelConfig) -> GGUFArchitecture:
    """The GGUF architecture that computes this shape; `BadDataError` where there is none."""
    reason = None
    if config.cla_share > 1:
        reason = (
            f"cla_share={config.cla_share}: no GGUF architecture shares K and V across layers",
            f"cla_share={config.cla_share}：GGUF 没有跨层共享 K、V 的架构",
        )
    elif config.experts and not config.norm_topk_prob:
        reason = (
            "norm_topk_prob=False: GGUF engines renormalise the chosen experts",
            "norm_topk_prob=False：GGUF 引擎会对所选专家重新归一化",
        )
    elif config.qk_norm and (config.qkv_bias or config.output_bias):
        reason = (
            "qk_norm with attention biases: no GGUF architecture has both",
            "qk_norm 与注意力偏置：没有同时具备二者的 GGUF 架构",
        )
    elif config.output_bias:
        reason = (
            "output_bias=True: no GGUF architecture we write has it",
            "output_bias=True：可写出的 GGUF 架构均不具备",
        )
    elif config.rope.llama3 is not None and config.rope.llama3 not in LLAMA3_SCALINGS:
        reason = (
            "rope.llama3 of no published model: GGUF could not say what it was",
            "rope.llama3 不属于任何已发布的模型：GGUF 无法记录其参数",
        )
    elif config.experts and config.qkv_bias:
        reason = (
            "experts with qkv_bias: no GGUF architecture we write has both",
            "专家层与 qkv_bias：可写出的 GGUF 架构中没有同时具备二者的",
        )
    elif not config.qk_norm and config.experts and config.shared_experts:
        reason = (
            f"shared_experts={config.shared_experts} without qk_norm: no GGUF architecture has it",
            f"shared_experts={config.shared_experts} 且无 qk_norm：没有对应的 GGUF 架构",
        )
    if reason:
        raise BadDataError(
            f"cannot be written as GGUF: {reason[0]}; write a Hugging Face folder instead",
            f"无法写成 GGUF：{reason[1]}；请改为写出 Hugging Face 目录",
        )
    if config.qk_norm:
        return "hunyuan-moe" if config.experts else "hunyuan-dense"
    return "qwen2" if config.qkv_bias else "llama"


def write_gguf_config(config: ModelConfig) -> dict[str, Any]:
    """GGUF metadata that describes ``config``."""
    name = architecture_for(config)
    values: Mapping[str, Any] = {
        "context_length": config.context,
        "embedding_length": config.hidden,
        "block_count": config.layers,
        "feed_forward_length": config.ffn,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": float(config.norm_eps),
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": float(config.rope.base(config.head_dim)),
        "vocab_size": config.vocab,
    }
    metadata = {"general.architecture": name} | {f"{name}.{k}": v for k, v in values.items()}
    if config.rope.linear_factor is not None:
        metadata[f"{name}.rope.scaling.type"] = "linear"
        metadata[f"{name}.rope.scaling.factor"] = config.rope.linear_factor
    if config.experts:
        metadata[f"{name}.expert_count"] = config.experts
        metadata[f"{name}.expert_used_count"] = config.top_k
    if name == "hunyuan-moe":
        metadata[f"{name}.expert_feed_forward_length"] = config.ffn
        metadata[f"{name}.expert_shared_feed_forward_length"] = config.ffn * config.shared_experts
    return metadata
