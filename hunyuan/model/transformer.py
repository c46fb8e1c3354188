"""The decoder: embedding -> L blocks -> norm -> logits. Nothing about training or serving.

Parameter names are those of the published checkpoints (specification, section 6), except that the
experts of a layer are stacked tensors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.model.attention import Attention, KeyValue, KVCache
from hunyuan.model.config import ModelConfig
from hunyuan.model.layers import MLP, RMSNorm
from hunyuan.model.moe import ExpertBank, MoE
from hunyuan.model.ops import REFERENCE, Ops, Rotation
from hunyuan.model.rope import inverse_frequencies, rotation
from hunyuan.model.routing import Routes

# Elements of the head widened to float32 at a time: 4 MB.
_WIDENED_ELEMENTS = 1 << 20


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp = MoE(config) if config.experts else MLP(config.hidden, config.ffn)

    def forward(
        self,
        x: Tensor,
        rotation: Rotation,
        shared: KeyValue | None,
        cache: KVCache | None,
        slot_keys: Tensor | None,
        ops: Ops,
    ) -> tuple[Tensor, KeyValue, Routes | None]:
        """(B, T, D) -> (B, T, D), the group's K and V, and the routes of a MoE layer."""
        attended, kv = self.self_attn(self.input_layernorm(x, ops), rotation, shared, cache, ops)
        x = x + attended
        normed = self.post_attention_layernorm(x, ops)
        if isinstance(self.mlp, MoE):
            y, routes = self.mlp(normed, slot_keys, ops)
            return x + y, kv, routes
        return x + self.mlp(normed, ops), kv, None


class Decoder(nn.Module):
    """Embedding, blocks and final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        slot_keys: Tensor | None = None,
        ops: Ops = REFERENCE,
    ) -> tuple[Tensor, list[Routes]]:
        """Ids (B, T) -> normed hidden states (B, T, D) and the routes of each MoE layer.

        ``positions`` (B, T) int64 are global positions, by default 0..T-1. ``slot_keys`` (L, slots)
        is what `draw_slot_keys` returns, needed in mode capacity-recycle only. ``ops`` computes
        what lies between the matrix products.
        """
        if positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x, routes = self.blocks(self.embed_tokens(input_ids), positions, cache, slot_keys, ops)
        return self.norm(x, ops), routes

    def blocks(
        self,
        x: Tensor,
        positions: Tensor,
        cache: KVCache | None,
        slot_keys: Tensor | None,
        ops: Ops,
    ) -> tuple[Tensor, list[Routes]]:
        """Embedded tokens (B, T, D) through the layers held here; arguments as in `forward`."""
        inverse = inverse_frequencies(self.config.rope, self.config.head_dim)
        turn = rotation(inverse.to(x.device), positions)
        shared: KeyValue | None = None
        routes: list[Routes] = []
        for i, block in enumerate(self.layers):
            keys = None if slot_keys is None else slot_keys[i]
            x, shared, decided = block(x, turn, shared, cache, keys, ops)
            if decided is not None:
                routes.append(decided)
        return x, routes


class Transformer(nn.Module):
    """A causal language model of any shape that `ModelConfig` describes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tied:
            self.lm_head = nn.Linear(config.hidden, config.vocab, bias=False)

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the matrices; norms and the router are float32 in every model."""
        return next(weight for weight in self.parameters() if weight.dim() > 1).dtype

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        slot_keys: Tensor | None = None,
    ) -> Tensor:
        """Ids (B, T) int64 -> logits (B, T, V) float32; arguments as in `Decoder.forward`."""
        hidden, _ = self.hidden(input_ids, positions, cache, slot_keys)
        return self.logits(hidden)

    def hidden(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        slot_keys: Tensor | None = None,
        ops: Ops = REFERENCE,
    ) -> tuple[Tensor, list[Routes]]:
        """As `Decoder.forward`: normed hidden states and routes, for a loss that makes logits."""
        hidden, routes = self.model(input_ids, positions, cache, slot_keys, ops)
        return hidden, routes

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., D) -> logits (..., V), computed in float32 whatever the weights are.

        A bfloat16 product would round logits around 25 to multiples of 1/8, and the two best
        tokens would often tie. The weights are widened a few rows at a time, within the cache of
        the processor.
        """
        weight = (self.model.embed_tokens if self.config.tied else self.lm_head).weight
        if weight.dtype == torch.float32:
            return F.linear(hidden, weight)
        rows = max(1, _WIDENED_ELEMENTS // self.config.hidden)
        wide = hidden.float()
        return torch.cat(
            [F.linear(wide, part.float()) for part in torch.split(weight, rows)], dim=-1
        )


def init_weights(model: Transformer, generator: torch.Generator | None = None) -> None:
    """Fill every weight of a fresh model; published only: the standard deviation 0.02.

    ======================  =======================
    norms                   1
    biases                  0
    every matrix            normal(0, init_std)
    ======================  =======================
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, RMSNorm):
                module.weight.fill_(1)
            elif isinstance(module, nn.Linear | nn.Embedding | ExpertBank):
                for name, weight in module.named_parameters(recurse=False):
                    if name == "bias":
                        weight.zero_()
                    else:
                        weight.normal_(0, model.config.init_std, generator=generator)


def build(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    """An uninitialised model on the meta device; router and norm weights are float32.

    ``to_empty`` gives it memory; `init_weights` or a checkpoint gives it values.
    """
    with torch.device("meta"):
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return Transformer(config)
        finally:
            torch.set_default_dtype(default)
