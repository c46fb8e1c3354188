"""config.json of the supported Hugging Face families <-> `ModelConfig`.

Reading is strict: a key that is neither understood nor known to be harmless is refused, because a
setting that is silently dropped is a model that silently answers wrongly.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from hunyuan.checkpoint.fp8 import is_fp8
from hunyuan.checkpoint.hf_keys import (
    FIXED,
    HARMLESS,
    OTHER_KINDS,
    OWN,
    SHAPE,
    WITHOUT_EFFECT,
)
from hunyuan.errors import BadDataError, UsageError
from hunyuan.formats.gguf import BLOCK, GGMLType
from hunyuan.model.config import Llama3Scaling, ModelConfig, Rope, Routing

FamilyName = Literal["hunyuan", "hunyuan_v1_moe", "hunyuan_v1_dense", "llama", "qwen2", "mixtral"]

ARCHITECTURES: Mapping[FamilyName, str] = {
    "hunyuan": "HunYuanForCausalLM",
    "hunyuan_v1_moe": "HunYuanMoEV1ForCausalLM",
    "hunyuan_v1_dense": "HunYuanDenseV1ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}

_HUNYUAN_FAMILIES = ("hunyuan", "hunyuan_v1_moe", "hunyuan_v1_dense")

_BLOCKS = "hunyuan-blocks"
"""``quant_method`` of folders whose matrices are ggml blocks, stored as bytes."""


@dataclass(frozen=True)
class HFConfig:
    """What a config.json says: the family whose names the tensors have, and the shape."""

    family: FamilyName
    config: ModelConfig


def read_hf_config(raw: Mapping[str, Any], where: str) -> HFConfig:
    """Understand a parsed config.json; ``where`` names the file in errors.

    Raises `BadDataError` for an unknown family, key or value, or a missing key.
    """
    if _has_blocks(raw) or is_fp8(raw):
        raw = {key: value for key, value in raw.items() if key != "quantization_config"}
    family = _family(raw, where)
    _check_keys(raw, family, where)
    values = _Reader(raw, where)
    try:
        return HFConfig(family, _config(values, family))
    except UsageError as error:  # a shape that cannot be, said of the file it came from
        raise BadDataError(f"{where}: {error.en}", f"{where}：{error.zh}") from error


def read_block_types(raw: Mapping[str, Any], where: str) -> dict[str, GGMLType]:
    """The tensors that are stored as ggml blocks, and of which type; `BadDataError` if malformed.

    ``{"quant_method": "hunyuan-blocks", "types": {tensor name: "Q4_K"}}``: the tensor then is U8,
    (rows, bytes of a row).
    """
    if not _has_blocks(raw):
        return {}
    types = raw["quantization_config"].get("types")
    if not isinstance(types, dict):
        raise BadDataError(
            f"{where}: quantization_config.types must be an object of tensor names and types; "
            "convert the model again",
            f"{where}：quantization_config.types 必须是“张量名: 类型”对象；请重新转换模型",
        )
    supported = {kind.name: kind for kind, (elements, _) in BLOCK.items() if elements > 1}
    for name, kind in types.items():
        if not isinstance(kind, str) or kind not in supported:
            raise BadDataError(
                f"{where}: quantization_config.types: {name} has the type {kind!r}; supported: "
                f"{', '.join(supported)}; convert the model again",
                f"{where}：quantization_config.types：{name} 的类型为 {kind!r}；支持 "
                f"{'、'.join(supported)}；请重新转换模型",
            )
    return {name: supported[kind] for name, kind in types.items()}


def write_block_types(types: Mapping[str, GGMLType]) -> dict[str, Any]:
    """The ``quantization_config`` that `read_block_types` reads."""
    return {"quant_method": _BLOCKS, "types": {name: kind.name for name, kind in types.items()}}


def _has_blocks(raw: Mapping[str, Any]) -> bool:
    found = raw.get("quantization_config")
    return isinstance(found, dict) and found.get("quant_method") == _BLOCKS


def _config(values: "_Reader", family: FamilyName) -> ModelConfig:
    hidden = values.integer("hidden_size")
    heads = values.integer("num_attention_heads")
    biases = family == "qwen2" or values.switch("attention_bias", False)
    return ModelConfig(
        vocab=values.integer("vocab_size"),
        hidden=hidden,
        layers=values.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=values.integer("num_key_value_heads", 8 if family == "mixtral" else heads),
        head_dim=values.integer(
            "head_dim", values.integer("attention_head_dim", hidden // max(heads, 1))
        ),
        context=values.integer("max_position_embeddings"),
        tied=values.switch("tie_word_embeddings", family in _HUNYUAN_FAMILIES),
        norm_eps=values.number("rms_norm_eps", 1e-5 if family == "mixtral" else 1e-6),
        init_std=values.number("initializer_range", 0.02),
        qkv_bias=biases,
        output_bias=biases and family != "qwen2",
        rope=_rope(values, family),
        **_feed_forward(values, family),
    )


def _family(raw: Mapping[str, Any], where: str) -> FamilyName:
    name = raw.get("model_type")
    for family, architecture in ARCHITECTURES.items():
        # Early files of the later family carry the first family's model_type; the class name is
        # then what tells them apart.
        named = raw.get("architectures")
        if isinstance(named, list) and architecture in named:
            return family
    for family in ARCHITECTURES:
        if family == name:
            return family
    raise BadDataError(
        f"{where}: model_type {name!r} is not supported; supported: {', '.join(ARCHITECTURES)}",
        f"{where}：不支持的 model_type {name!r}；支持：{'、'.join(ARCHITECTURES)}",
    )


def _check_keys(raw: Mapping[str, Any], family: FamilyName, where: str) -> None:
    known = HARMLESS | SHAPE | FIXED.keys() | OWN[family]
    for key, value in raw.items():
        if key in FIXED and value not in FIXED[key]:
            raise BadDataError(
                f"{where}: {key}={value!r} is not supported; supported: {FIXED[key][0]!r}",
                f"{where}：不支持 {key}={value!r}；支持的取值：{FIXED[key][0]!r}",
            )
        if key not in known and not key.startswith(OTHER_KINDS):
            near = get_close_matches(key, sorted(known), 1)
            hint = f"did you mean {near[0]}?" if near else "remove it if it has no effect"
            hint_zh = f"是否想用 {near[0]}？" if near else "若无作用请删除"
            raise BadDataError(
                f"{where}: config key {key!r} is unknown for {family}; {hint}",
                f"{where}：{family} 没有配置项 {key!r}；{hint_zh}",
            )
    if raw.get("sliding_window") is not None and raw.get("use_sliding_window", family != "qwen2"):
        raise BadDataError(
            f"{where}: sliding_window={raw['sliding_window']} is not supported; "
            "only full attention is",
            f"{where}：不支持 sliding_window={raw['sliding_window']}；仅支持全注意力",
        )
    if any(kind != "full_attention" for kind in raw.get("layer_types") or ()):
        raise BadDataError(
            f"{where}: layer_types other than full_attention are not supported",
            f"{where}：layer_types 仅支持 full_attention",
        )
    if family in _HUNYUAN_FAMILIES:
        for key, released in WITHOUT_EFFECT.items():
            if raw.get(key, released) != released:
                warnings.warn(
                    f"{where}: {key}={raw[key]!r} has no effect, as in the released model; "
                    "set routing_mode instead",
                    stacklevel=3,
                )


class _Reader:
    """Typed access to the raw values, with the file and key in every complaint."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw = raw
        self.where = where

    def _get(self, key: str, default: Any) -> Any:
        value = self.raw.get(key)
        if value is None:
            value = default
        if value is None:
            raise BadDataError(
                f"{self.where}: required key {key!r} is missing",
                f"{self.where}：缺少必需的配置项 {key!r}",
            )
        if isinstance(value, list):  # one entry a layer, in the later family's files
            if not value or any(entry != value[0] for entry in value):
                raise BadDataError(
                    f"{self.where}: {key} differs between layers ({value}); not supported",
                    f"{self.where}：不支持各层不同的 {key}（{value}）",
                )
            value = value[0]
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Beyond 2**53 a float no longer counts in ones, and no size is near; also not-a-number.
        if not number or not abs(value) <= 2**53:
            raise BadDataError(
                f"{self.where}: {key}={str(value)[:60]} must be a number below 2**53",
                f"{self.where}：{key}={str(value)[:60]} 必须是小于 2**53 的数字",
            )
        return float(value)

    def switch(self, key: str, default: bool) -> bool:
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadDataError(
                f"{self.where}: {key}={str(value)[:60]} must be true or false",
                f"{self.where}：{key}={str(value)[:60]} 必须是 true 或 false",
            )
        return value

    def below(self, key: str) -> "_Reader":
        """The object under ``key``, empty if there is none."""
        value = self.raw.get(key)
        if value is not None and not isinstance(value, dict):
            raise BadDataError(
                f"{self.where}: {key} must be an object",
                f"{self.where}：{key} 必须是对象",
            )
        return _Reader(value or {}, f"{self.where}: {key}")

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.number(key, default)
        if not value.is_integer() or value < 0:
            raise BadDataError(
                f"{self.where}: {key}={value} must be a whole number, 0 or more",
                f"{self.where}：{key}={value} 必须是非负整数",
            )
        return int(value)


def _feed_forward(values: _Reader, family: FamilyName) -> dict[str, Any]:
    """The fields in which families differ: experts, routing, sharing and query/key norms."""
    raw = values.raw
    width = values.integer("intermediate_size")
    if family == "mixtral":
        return {
            "ffn": width,
            "experts": values.integer("num_local_experts", 8),
            "top_k": values.integer("num_experts_per_tok", 2),
            "norm_topk_prob": True,
        }
    if family not in _HUNYUAN_FAMILIES:
        return {"ffn": width}
    fields: dict[str, Any] = {
        "ffn": width,
        "qk_norm": values.switch("use_qk_norm", family != "hunyuan"),
    }
    if values.switch("use_cla", False):
        fields["cla_share"] = values.integer("cla_share_factor", 2)
    experts = values.integer("num_experts", 1)
    if experts > 1:
        top_k = values.integer("moe_topk", 1)
        mixed = values.switch("use_mixed_mlp_moe", True)
        # The first family renormalises above top-1 only, the later one always.
        normalise = values.switch("norm_topk_prob", family == "hunyuan_v1_moe" or top_k > 1)
        fields |= {
            "ffn": values.integer("moe_intermediate_size", width),
            "experts": experts,
            "top_k": top_k,
            "shared_experts": values.integer("num_shared_expert", 1) if mixed else 0,
            "norm_topk_prob": normalise,
            "routing": Routing(
                mode=raw.get("routing_mode", "dropless"),
                capacity_factor=values.number("routing_capacity_factor", 1.0),
                capacity_group=values.integer("routing_capacity_group", 4096),
            ),
        }
    return fields


def _rope(values: _Reader, family: FamilyName) -> Rope:
    """rope_theta + rope_scaling of old files, or rope_parameters of new ones."""
    where = values.where
    scaling = values.below("rope_parameters")
    if not scaling.raw:
        scaling = values.below("rope_scaling")
    if nested := [key for key, value in scaling.raw.items() if isinstance(value, dict)]:
        raise BadDataError(
            f"{where}: rope settings that differ between layers ({nested[0]}) are not supported",
            f"{where}：不支持各层不同的 RoPE 设置（{nested[0]}）",
        )
    default = values.number("rope_theta", 1e6 if family == "mixtral" else 10_000.0)
    theta = scaling.number("rope_theta", default)
    kind = scaling.raw.get("rope_type", scaling.raw.get("type", "default"))
    if scaling.raw.get("alpha") is not None:
        # Whatever the type is called: with alpha the rule is static and `factor` is ignored.
        # Later files add yarn's fields, which the rule does not read either.
        return Rope(theta=theta, alpha=scaling.number("alpha"))
    if kind == "default" and "factor" not in scaling.raw:
        return Rope(theta=theta)
    if kind == "linear":
        return Rope(theta=theta, linear_factor=scaling.number("factor"))
    if kind == "llama3":
        return Rope(
            theta=theta,
            llama3=Llama3Scaling(
                factor=scaling.number("factor"),
                low_freq_factor=scaling.number("low_freq_factor"),
                high_freq_factor=scaling.number("high_freq_factor"),
                original_context=scaling.integer("original_max_position_embeddings"),
            ),
        )
    raise BadDataError(
        f"{where}: rope scaling {kind!r} is not supported; supported: default, linear, llama3, "
        "dynamic with alpha",
        f"{where}：不支持的 RoPE 缩放 {kind!r}；"
        "支持 default、linear、llama3 以及带 alpha 的 dynamic",
    )


def write_hf_config(family: FamilyName, config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The config.json of ``config`` in ``family``'s keys; `BadDataError` if it cannot say it."""
    check_expressible(family, config)
    raw: dict[str, Any] = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "torch_dtype": dtype,
        "vocab_size": config.vocab,
        "hidden_size": config.hidden,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "rope_theta": config.rope.theta,
        "rope_scaling": _rope_scaling(config.rope),
    }
    if family != "qwen2":
        raw["attention_bias"] = config.qkv_bias
    if family == "qwen2":
        raw["use_sliding_window"] = False
    if family == "mixtral":
        raw |= {
            "num_local_experts": config.experts,
            "num_experts_per_tok": config.top_k,
            "sliding_window": None,
        }
    if family in _HUNYUAN_FAMILIES:
        raw |= {"use_qk_norm": config.qk_norm, "num_experts": config.experts or 1}
    if family == "hunyuan":
        raw |= {"use_cla": config.cla_share > 1, "cla_share_factor": config.cla_share}
    if family in _HUNYUAN_FAMILIES and config.experts:
        raw |= {
            "moe_topk": config.top_k,
            "num_shared_expert": config.shared_experts or 1,
            "use_mixed_mlp_moe": config.shared_experts > 0,
            "norm_topk_prob": config.norm_topk_prob,
            "routing_mode": config.routing.mode,
            "routing_capacity_factor": config.routing.capacity_factor,
            "routing_capacity_group": config.routing.capacity_group,
        }
    return raw


def _rope_scaling(rope: Rope) -> dict[str, Any] | None:
    if rope.alpha is not None:
        return {"type": "dynamic", "factor": 1.0, "alpha": rope.alpha}
    if rope.linear_factor is not None:
        return {"type": "linear", "factor": rope.linear_factor}
    if rope.llama3 is not None:
        return {
            "rope_type": "llama3",
            "factor": rope.llama3.factor,
            "low_freq_factor": rope.llama3.low_freq_factor,
            "high_freq_factor": rope.llama3.high_freq_factor,
            "original_max_position_embeddings": rope.llama3.original_context,
        }
    return None


def check_expressible(family: FamilyName, config: ModelConfig) -> None:
    """Raise `BadDataError` naming the first field that ``family`` has no key for."""
    plain = family in ("llama", "qwen2")
    dense_only = plain or family == "hunyuan_v1_dense"
    limits = {
        "experts": config.experts == 0 if dense_only else config.experts > 1 or family == "hunyuan",
        "cla_share": config.cla_share == 1 or family == "hunyuan",
        "qk_norm": config.qk_norm == (family in _HUNYUAN_FAMILIES) or family == "hunyuan",
        "qkv_bias": config.qkv_bias or family != "qwen2",
        "output_bias": config.output_bias == (config.qkv_bias and family != "qwen2"),
        "shared_experts": config.shared_experts == 0 or family in _HUNYUAN_FAMILIES,
        "norm_topk_prob": not config.experts or config.norm_topk_prob or family == "hunyuan",
    }
    for field, expressible in limits.items():
        if not expressible:
            raise BadDataError(
                f"{field}={getattr(config, field)} cannot be written as {family}; "
                "choose the family hunyuan, or another format",
                f"{field}={getattr(config, field)} 无法以 {family} 的格式写出；"
                "请改用 hunyuan 系列或其他格式",
            )
