"""Which keys a config.json may have: what they mean is read elsewhere, or that they mean nothing.

A key in none of these tables is refused, so that no setting is dropped in silence.
"""

from collections.abc import Mapping
from typing import Any

# Keys that never change what a causal language model computes at inference.
HARMLESS = frozenset(
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
        "attn_implementation",
        "transformers.js_config",
        "video_end_id",
        "video_start_id",
    ]
)

# Settings of picture and video parts, and notes of other tools, that files carry along.
OTHER_KINDS = ("vit_", "anyres_", "unpad_", "image_", "video_", "unsloth_")

# Switches whose only supported value is the one that means "off" (or the usual form).
FIXED: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "use_mla": (False, None),
    "group_limited_greedy": (False, None),
    "position_embedding_xdrope": (False, None),
    "norm_type": ("rms", "hf_rms", "fused", None),
    "moe_layer_num_skipped": (0, None),
    "quantization_config": (None,),
    "use_mrope": (False, None),
    "rope_interleaved": (False, None),
    "is_llama_config": (True, None),
    "use_rotary_pos_emb": (True, None),
    "routed_scaling_factor": (1.0, None),
    "n_group": (0, 1, False, None),
    "topk_group": (0, 1, False, None),
}

SHAPE = frozenset(
    [
        "layer_types",
        "sliding_window",
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

_HUNYUAN = frozenset(
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

OWN: Mapping[str, frozenset[str]] = {
    "hunyuan": _HUNYUAN,
    "hunyuan_v1_moe": _HUNYUAN,
    "hunyuan_v1_dense": _HUNYUAN,
    "llama": frozenset(),
    "qwen2": frozenset(),
    "mixtral": frozenset({"num_experts_per_tok", "num_local_experts"}),
}

# Stored in released files and read by nothing there (specification, section 2).
WITHOUT_EFFECT: Mapping[str, Any] = {
    "capacity_factor": 1.0,
    "moe_drop_tokens": False,
    "moe_random_routing_dropped_token": False,
    "min_capacity": 8,
}
