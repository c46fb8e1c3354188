"""config.json of Hunyuan-Large as vLLM wants it: an object of transformers' configuration class.

What it means is read by `hunyuan.checkpoint.hf_config`, the same for vLLM and the project's own
engine: same defaults, same refusals.
"""

from typing import Any

from transformers import PreTrainedConfig

from hunyuan.checkpoint.hf_config import read_hf_config
from hunyuan.checkpoint.hf_keys import FIXED, OTHER_KINDS, OWN, SHAPE
from hunyuan.model.config import ModelConfig, Rope

_READ = (SHAPE | OWN["hunyuan"] | FIXED.keys() | {"architectures"}) - {"quantization_config"}


class HunyuanConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """A config.json whose ``model_type`` is ``hunyuan``.

    Raises `BadDataError` naming the first key that is unknown, missing or of a wrong value.
    """

    model_type = "hunyuan"
    ignore_keys_at_rope_validation = {"alpha"}  # noqa: RUF012 - as in the base class

    def __init__(self, **values: Any) -> None:
        if not values:  # transformers makes an empty one to see what differs from it
            super().__init__()
            return
        # transformers adds keys of its own, which say nothing of the model.
        empty = PreTrainedConfig()
        said = {k: v for k, v in values.items() if k in SHAPE or not hasattr(empty, k)}
        said.pop("quantization_config", None)  # vLLM reads it
        shape = read_hf_config(said | {"model_type": self.model_type}, "config.json").config
        rotation = {"rope_parameters": rope_parameters(shape.rope), "rope_scaling": None}
        super().__init__(**{**values, **rotation, "rope_theta": shape.rope.theta})
        # What a file may leave out, for those who look without asking `model_shape`.
        self.head_dim = shape.head_dim
        self.num_key_value_heads = shape.kv_heads
        self.tie_word_embeddings = shape.tied


def model_shape(config: PreTrainedConfig) -> ModelConfig:
    """The shape a configuration describes now, with what vLLM's ``hf_overrides`` changed."""
    values = {
        key: value
        for key, value in config.to_dict().items()
        if key in _READ and not key.startswith(OTHER_KINDS)
    }
    return read_hf_config(values | {"model_type": "hunyuan"}, "config.json").config


def rope_parameters(rope: Rope) -> dict[str, Any]:
    """What `vllm.model_executor.layers.rotary_embedding.get_rope` is told of a rotation."""
    if rope.alpha is not None:
        # transformers wants a factor here, vLLM ignores it beside alpha, as the model does.
        return {
            "rope_type": "dynamic",
            "rope_theta": rope.theta,
            "alpha": rope.alpha,
            "factor": 1.0,
        }
    if rope.linear_factor is not None:
        return {"rope_type": "linear", "rope_theta": rope.theta, "factor": rope.linear_factor}
    if rope.llama3 is not None:
        return {
            "rope_type": "llama3",
            "rope_theta": rope.theta,
            "factor": rope.llama3.factor,
            "low_freq_factor": rope.llama3.low_freq_factor,
            "high_freq_factor": rope.llama3.high_freq_factor,
            "original_max_position_embeddings": rope.llama3.original_context,
        }
    return {"rope_type": "default", "rope_theta": rope.theta}
