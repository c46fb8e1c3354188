"""config.json of the supported Hugging Face families <-> `ModelConfig`.

Reading is strict: a key that is neither understood nor known to be harmless is refused, because a
setting that is silently dropped is a model that silently answers wrongly.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from hunyuan.errors import BadDataError
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

# Keys that never change what a causal language model computes at inference.
_HARMLESS = frozenset(
    [
        "_attn_implementation",
        "_name_or_path",
        "add_classification_head",
        "add_cross_attention",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",
        "class_num",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "dtype",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eod_token_id",
        "eos_token_id",
        "exponential_decay_length_penalty",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "id2label",
        "im_end_id",
        "im_newline_id",
        "im_start_id",
        "image_token_id",
        "initializer_range",
        "is_decoder",
        "is_encoder_decoder",
        "label2id",
        "length_penalty",
        "mask_init_id",
        "max_image_size",
        "max_length",
        "max_window_layers",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_media_embeds",
        "num_return_sequences",
        "org_vocab_size",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "output_scores",
        "pad_id",
        "pad_token_id",
        "pool_type",
        "prefix",
        "pretraining_tp",
        "problem_type",
        "pruned_heads",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict",
        "return_dict_in_generate",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "sep_token_id",
        "skip_cls_token",
        "suppress_tokens",
        "task_specific_params",
        "temperature",
        "text_end_id",
        "text_start_id",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tokenizer_class",
        "top_k",
        "top_p",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "typical_p",
        "use_bfloat16",
        "use_cache",
        "use_rotary_pos_emb",
        "video_end_id",
        "video_start_id",
    ]
)

# Settings of picture and video parts that the text model's files carry along.
_OTHER_KINDS = ("vit_", "anyres_", "unpad_", "image_", "video_")

# Switches whose only supported value is the one that means "off" (or the usual form).
_FIXED: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "use_mla": (False, None),
    "group_limited_greedy": (False, None),
    "position_embedding_xdrope": (False, None),
    "norm_type": ("rms", "hf_rms", "fused", None),
    "moe_layer_num_skipped": (0, None),
    "quantization_config": (None,),
    "routed_scaling_factor": (1.0, None),
    "n_group": (0, 1, False, None),
    "topk_group": (0, 1, False, None),
}

_SHAPE = frozenset(
    [
        "attention_bias",
        "head_dim",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "model_type",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "tie_word_embeddings",
        "vocab_size",
    ]
)

_HUNYUAN_KEYS = frozenset(
    [
        "attention_head_dim",
        "capacity_factor",
        "cla_share_factor",
        "dense_list",
        "kv_lora_rank",
        "min_capacity",
        "moe_drop_tokens",
        "moe_intermediate_size",
        "moe_random_routing_dropped_token",
        "moe_topk",
        "norm_topk_prob",
        "num_experts",
        "num_shared_expert",
        "q_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "routing_capacity_factor",
        "routing_capacity_group",
        "routing_mode",
        "use_cla",
        "use_mixed_mlp_moe",
        "use_qk_norm",
        "v_head_dim",
    ]
)

_OWN_KEYS: Mapping[str, frozenset[str]] = {
    "hunyuan": _HUNYUAN_KEYS,
    "hunyuan_v1_moe": _HUNYUAN_KEYS,
    "hunyuan_v1_dense": _HUNYUAN_KEYS,
    "llama": frozenset(),
    "qwen2": frozenset({"layer_types", "sliding_window"}),
    "mixtral": frozenset({"num_experts_per_tok", "num_local_experts", "sliding_window"}),
}

# Stored in released files and read by nothing there (specification, section 2).
_WITHOUT_EFFECT: Mapping[str, Any] = {
    "capacity_factor": 1.0,
    "moe_drop_tokens": False,
    "moe_random_routing_dropped_token": False,
}


@dataclass(frozen=True)
class HFConfig:
    """What a config.json says: the family whose names the tensors have, and the shape."""

    family: FamilyName
    config: ModelConfig


def read_hf_config(raw: Mapping[str, Any], where: str) -> HFConfig:
    """Understand a parsed config.json; ``where`` names the file in errors.

    Raises `BadDataError` for an unknown family, key or value, or a missing key.
    """
    family = _family(raw, where)
    _check_keys(raw, family, where)
    values = _Reader(raw, where)
    hidden = values.integer("hidden_size")
    heads = values.integer("num_attention_heads")
    config = ModelConfig(
        vocab=values.integer("vocab_size"),
        hidden=hidden,
        layers=values.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=values.integer("num_key_value_heads", heads),
        head_dim=values.integer(
            "head_dim", values.integer("attention_head_dim", hidden // max(heads, 1))
        ),
        context=values.integer("max_position_embeddings"),
        tied=bool(raw.get("tie_word_embeddings", family in _HUNYUAN_FAMILIES)),
        norm_eps=values.number("rms_norm_eps", 1e-6),
        init_std=values.number("initializer_range", 0.02),
        qkv_bias=family == "qwen2" or bool(raw.get("attention_bias")),
        output_bias=family != "qwen2" and bool(raw.get("attention_bias")),
        rope=_rope(raw, where),
        **_feed_forward(values, family),
    )
    return HFConfig(family, config)


def _family(raw: Mapping[str, Any], where: str) -> FamilyName:
    name = raw.get("model_type")
    for family, architecture in ARCHITECTURES.items():
        # Early files of the later family carry the first family's model_type; the class name is
        # then what tells them apart.
        if architecture in (raw.get("architectures") or ()):
            return family
    for family in ARCHITECTURES:
        if family == name:
            return family
    raise BadDataError(
        f"{where}: model_type {name!r} is not supported; supported: {', '.join(ARCHITECTURES)}",
        f"{where}：不支持的 model_type {name!r}；支持：{'、'.join(ARCHITECTURES)}",
    )


def _check_keys(raw: Mapping[str, Any], family: FamilyName, where: str) -> None:
    known = _HARMLESS | _SHAPE | _FIXED.keys() | _OWN_KEYS[family]
    for key, value in raw.items():
        if key in _FIXED and value not in _FIXED[key]:
            raise BadDataError(
                f"{where}: {key}={value!r} is not supported; supported: {_FIXED[key][0]!r}",
                f"{where}：不支持 {key}={value!r}；支持的取值：{_FIXED[key][0]!r}",
            )
        if key not in known and not key.startswith(_OTHER_KINDS):
            near = get_close_matches(key, sorted(known), 1)
            hint = f"did you mean {near[0]}?" if near else "remove it if it has no effect"
            hint_zh = f"是否想用 {near[0]}？" if near else "若无作用请删除"
            raise BadDataError(
                f"{where}: config key {key!r} is unknown for {family}; {hint}",
                f"{where}：{family} 没有配置项 {key!r}；{hint_zh}",
            )
    if raw.get("sliding_window") is not None and raw.get("use_sliding_window", True):
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
        for key, released in _WITHOUT_EFFECT.items():
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
            if len(set(value)) != 1:
                raise BadDataError(
                    f"{self.where}: {key} differs between layers ({value}); not supported",
                    f"{self.where}：不支持各层不同的 {key}（{value}）",
                )
            value = value[0]
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadDataError(
                f"{self.where}: {key}={value!r} must be a number",
                f"{self.where}：{key}={value!r} 必须是数字",
            )
        return float(value)

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
        "qk_norm": bool(raw.get("use_qk_norm", family != "hunyuan")),
    }
    if raw.get("use_cla"):
        fields["cla_share"] = values.integer("cla_share_factor", 2)
    experts = values.integer("num_experts", 1)
    if experts > 1:
        top_k = values.integer("moe_topk", 1)
        mixed = bool(raw.get("use_mixed_mlp_moe", True))
        # The first family renormalises above top-1 only, the later one always.
        normalise = raw.get("norm_topk_prob", family == "hunyuan_v1_moe" or top_k > 1)
        fields |= {
            "ffn": values.integer("moe_intermediate_size", width),
            "experts": experts,
            "top_k": top_k,
            "shared_experts": values.integer("num_shared_expert", 1) if mixed else 0,
            "norm_topk_prob": bool(normalise),
            "routing": Routing(
                mode=raw.get("routing_mode", "dropless"),
                capacity_factor=values.number("routing_capacity_factor", 1.0),
                capacity_group=values.integer("routing_capacity_group", 4096),
            ),
        }
    return fields


def _rope(raw: Mapping[str, Any], where: str) -> Rope:
    """rope_theta + rope_scaling of old files, or rope_parameters of new ones."""
    scaling = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    theta = float(scaling.pop("rope_theta", raw.get("rope_theta", 10_000.0)))
    kind = scaling.pop("rope_type", scaling.pop("type", "default"))
    scaling.pop("type", None)
    if scaling.get("alpha"):
        # Whatever the type is called: with alpha the rule is static and `factor` is ignored.
        # Later files add yarn's fields, which the rule does not read either.
        return Rope(theta=theta, alpha=float(scaling["alpha"]))
    if kind == "default":
        return Rope(theta=theta)
    if kind == "linear":
        return Rope(theta=theta, linear_factor=float(scaling["factor"]))
    if kind == "llama3":
        return Rope(
            theta=theta,
            llama3=Llama3Scaling(
                factor=float(scaling["factor"]),
                low_freq_factor=float(scaling["low_freq_factor"]),
                high_freq_factor=float(scaling["high_freq_factor"]),
                original_context=int(scaling["original_max_position_embeddings"]),
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


def default_family(config: ModelConfig) -> FamilyName:
    """The family in which a model without a source checkpoint is written."""
    plain = not config.experts and config.cla_share == 1 and not config.qk_norm
    if plain and config.qkv_bias and not config.output_bias:
        return "qwen2"
    return "llama" if plain else "hunyuan"
