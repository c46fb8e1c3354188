"""From the names of a checkpoint to vLLM's stacked parameters."""

from collections.abc import Iterable, Iterator

from torch import Tensor
from vllm.model_executor.models.utils import WeightsMapper

from hunyuan.checkpoint.pieces import hf_piece
from hunyuan.model.config import ModelConfig

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_and_up_proj": ("gate_proj", "up_proj"),
}


def stacked_names(shape: ModelConfig) -> WeightsMapper:
    """Which projections vLLM keeps as one; a layer without K and V keeps its query projection."""
    stacked: dict[str, tuple[str, str | int]] = {}
    for layer in range(shape.layers):
        if shape.owns_kv(layer):
            attention = f".layers.{layer}.self_attn"
            for part in "qkv":
                stacked[f"{attention}.{part}_proj."] = (f"{attention}.qkv_proj.", part)
    for mlp in (".shared_mlp", ".mlp"):
        for half, name in enumerate(("gate_proj", "up_proj")):
            stacked[f"{mlp}.{name}."] = (f"{mlp}.gate_up_proj.", half)
    return WeightsMapper(orig_to_new_stacked=stacked)


def unfused(
    weights: Iterable[tuple[str, Tensor]], shape: ModelConfig
) -> Iterator[tuple[str, Tensor]]:
    """Tensors under the published names, those of fused variants taken apart."""
    for name, tensor in weights:
        module, _, kind = name.rpartition(".")
        parent, _, projection = module.rpartition(".")
        if projection not in _FUSED:
            yield name, tensor
            continue
        for part in _FUSED[projection]:
            leaf = f"{parent}.{part}.{kind}"
            piece = hf_piece(leaf, "hunyuan", shape, {name})
            assert piece is not None, f"{name} is fused"
            assert piece.layout is not None, f"{name} is fused"
            yield leaf, piece.layout(tensor).contiguous()
