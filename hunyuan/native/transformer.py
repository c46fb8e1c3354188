"""A whole model in the kernels' hands: the same computation as `hunyuan.model`, from weights as
they are stored.

`NativeTransformer` offers what the engine needs: a step over a paged cache. `Transformer` is its
oracle, and what trains.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from hunyuan.errors import HunyuanError
from hunyuan.formats.gguf import GGMLType
from hunyuan.model.config import ModelConfig
from hunyuan.model.rope import inverse_frequencies
from hunyuan.native.experts import ExpertCache
from hunyuan.native.library import Cache, KVType, Role, Shape, Step, StepFailure, isa, library
from hunyuan.native.matrix import PackedMatrix

Weight = PackedMatrix | Tensor
"""A packed matrix, or a float32 vector."""

KV_TYPES = {
    torch.float32: KVType.FLOAT32,
    torch.bfloat16: KVType.BFLOAT16,
    torch.int8: KVType.INT8,
}


class PagedStep(Protocol):
    """One step's view of a paged cache; see `hunyuan.engine.cache`."""

    k: Tensor
    """(U, blocks, K, C, 32)."""

    v: Tensor
    """(U, blocks, K, 32, C)."""

    k_scale: Tensor | None
    v_scale: Tensor | None
    """(U, blocks, K, 32) float32 of an int8 cache."""

    counts: Tensor
    """(sequences,) int32: tokens of each sequence in this step."""

    tables: Tensor
    """(sequences, width) int32: the blocks of each, in order of position."""


class NativeTransformer:
    """Runs steps of one model; ``weights`` are leaves as checkpoints name them.

    ``experts`` holds the routed experts where they lie on disk; a cache serves one model.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, Weight],
        *,
        experts: ExpertCache | None = None,
        threads: int | None = None,
    ) -> None:
        self.config = config
        self.threads = threads or torch.get_num_threads()
        self._kernels = library()
        isa()  # one that cannot run here is an error, not a crash
        self._process = os.getpid()
        self._inverse = inverse_frequencies(config.rope, config.head_dim).contiguous()
        shape = Shape(
            vocab=config.vocab,
            hidden=config.hidden,
            layers=config.layers,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            ffn=config.ffn if config.experts else 0,
            shared_ffn=_shared_ffn(config),
            experts=config.experts,
            top_k=config.top_k if config.experts else 0,
            norm_topk_prob=config.norm_topk_prob,
            cla_share=config.cla_share,
            qk_norm=config.qk_norm,
            norm_eps=config.norm_eps,
            inverse_frequencies=self._inverse.data_ptr(),
        )
        self._decoder = self._kernels.hy_decoder_new(ctypes.byref(shape), self.threads)
        if not self._decoder:
            raise MemoryError("no memory for the decoder")
        self._held: list[Weight] = []
        self.experts = experts
        if experts is not None:
            self._kernels.hy_decoder_set_experts(self._decoder, experts.handle)
        for role, layer, expert, weight in _placed(config, weights, routed=experts is None):
            self._set(role, layer, expert, weight)

    def _set(self, role: Role, layer: int, expert: int, weight: Weight) -> None:
        """Lend a weight to the decoder, and keep it alive."""
        self._held.append(weight)
        if isinstance(weight, PackedMatrix):
            description = (weight.type, weight.rows, weight.columns, weight.data.data_ptr())
        else:
            assert weight.dtype == torch.float32
            assert weight.is_contiguous()
            description = (GGMLType.F32, 1, len(weight), weight.data_ptr())
        self._kernels.hy_decoder_set(self._decoder, role, layer, expert, *description)

    def __del__(self) -> None:
        if (decoder := getattr(self, "_decoder", None)) and os.getpid() == self._process:
            self._kernels.hy_decoder_free(decoder)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights in memory, without experts on disk."""
        parts = [w.data if isinstance(w, PackedMatrix) else w for w in self._held]
        return sum({p.data_ptr(): p.nbytes for p in parts}.values())

    def step_logits(
        self,
        ids: Tensor,
        positions: Tensor,
        cache: PagedStep,
        wanted: Tensor,
        *,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Run the tokens of several sequences; logits (rows, V) float32 of the ``wanted`` ones.

        ``ids`` and ``positions`` (T,) int64; ``wanted`` (rows,) int32 counts within the step;
        ``bias`` (V,) float32 is added to the logits. Fills the cache at the positions given.
        """
        logits = torch.empty(len(wanted), self.config.vocab)
        self._run(ids, positions, cache, wanted, bias, logits, None)
        return logits

    def step_hidden(self, ids: Tensor, positions: Tensor, cache: PagedStep) -> Tensor:
        """The same, giving every token's normed hidden state (T, D) float32."""
        hidden = torch.empty(len(ids), self.config.hidden)
        self._run(ids, positions, cache, ids.new_empty(0, dtype=torch.int32), None, None, hidden)
        return hidden

    def expert_tokens(self) -> Tensor:
        """(L, E) int64: tokens that each routed expert has computed; from any thread."""
        counted = torch.zeros(self.config.layers, self.config.experts, dtype=torch.int64)
        self._kernels.hy_decoder_expert_tokens(self._decoder, counted.data_ptr())
        return counted

    def _run(
        self,
        ids: Tensor,
        positions: Tensor,
        cache: PagedStep,
        wanted: Tensor,
        bias: Tensor | None,
        logits: Tensor | None,
        hidden: Tensor | None,
    ) -> None:
        if os.getpid() != self._process:
            raise HunyuanError(
                "a loaded model does not survive fork(): load it in the process that uses it",
                "已载入的模型不能跨 fork() 使用：请在使用它的进程中载入",
            )
        step = Step(
            ids=ids.data_ptr(),
            positions=positions.data_ptr(),
            tokens=len(ids),
            sequences=len(cache.counts),
            counts=cache.counts.data_ptr(),
            tables=cache.tables.data_ptr(),
            table_width=cache.tables.shape[1],
            wanted=wanted.data_ptr(),
            rows=len(wanted),
        )
        storage = Cache(
            k=cache.k.data_ptr(),
            v=cache.v.data_ptr(),
            k_scale=_pointer(cache.k_scale),
            v_scale=_pointer(cache.v_scale),
            blocks=cache.k.shape[1],
            type=KV_TYPES[cache.k.dtype],
        )
        failed = self._kernels.hy_decoder_run(
            *(self._decoder, ctypes.byref(step), ctypes.byref(storage)),
            *(_pointer(bias), _pointer(logits), _pointer(hidden)),
        )
        if failed and self.experts is not None and failed == StepFailure.EXPERT:
            raise self.experts.error()
        if failed:
            raise MemoryError(f"no memory for a step of {len(ids)} tokens")


def working_bytes(config: ModelConfig, tokens: int, threads: int) -> int:
    """Bytes that a decoder needs beside weights and cache for steps of ``tokens`` tokens.

    The sum of what ``src/decoder.cpp`` reserves, with a tenth for what is left out. Calculated.
    """
    d, ffn, shared = config.hidden, config.ffn if config.experts else 0, _shared_ffn(config)
    heads, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    routed = tokens * config.top_k if config.experts else 0
    places = routed + 15 * config.experts
    # Inputs of products: 1,600 bytes for 16 tokens of 32 columns, and floats for a router.
    quantised, floats = 1600 / 512, 4
    total = tokens * (d * (2 * 4 + quantised + floats) + heads * (2 * 4 + 4 + quantised + 4))
    total += tokens * (2 * kv * 4 + config.head_dim * 4)
    total += tokens * (shared * quantised + d * 4)
    total += places * (d * (quantised + 4) + ffn * quantised)
    total += threads * max(d, heads, ffn, shared) / 32 * 3000
    return int(total * 1.1)


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _shared_ffn(config: ModelConfig) -> int:
    """Inner width of what every token visits: the dense MLP, or the shared experts as one."""
    return config.ffn * config.shared_experts if config.experts else config.ffn


_ATTENTION = {
    "q_proj.weight": Role.Q,
    "k_proj.weight": Role.K,
    "v_proj.weight": Role.V,
    "o_proj.weight": Role.O,
    "q_proj.bias": Role.Q_BIAS,
    "k_proj.bias": Role.K_BIAS,
    "v_proj.bias": Role.V_BIAS,
    "o_proj.bias": Role.O_BIAS,
}
_SHARED = {
    "gate_proj": Role.SHARED_GATE,
    "up_proj": Role.SHARED_UP,
    "down_proj": Role.SHARED_DOWN,
}
_ROUTED = {
    "gate_proj": Role.EXPERT_GATE,
    "up_proj": Role.EXPERT_UP,
    "down_proj": Role.EXPERT_DOWN,
}


def _placed(
    config: ModelConfig, weights: Mapping[str, Weight], *, routed: bool
) -> Iterator[tuple[Role, int, int, Weight]]:
    """Every weight with its role, layer and expert; ``routed`` experts are among them."""
    embedding = weights["model.embed_tokens.weight"]
    yield Role.EMBEDDING, 0, 0, embedding
    yield Role.HEAD, 0, 0, embedding if config.tied else weights["lm_head.weight"]
    yield Role.FINAL_NORM, 0, 0, weights["model.norm.weight"]
    for layer in range(config.layers):
        name = f"model.layers.{layer}."
        yield Role.INPUT_NORM, layer, 0, weights[name + "input_layernorm.weight"]
        yield Role.POST_NORM, layer, 0, weights[name + "post_attention_layernorm.weight"]
        for part, role in _ATTENTION.items():
            if (weight := weights.get(f"{name}self_attn.{part}")) is not None:
                yield role, layer, 0, weight
        if config.qk_norm:
            query = weights[name + "self_attn.query_layernorm.weight"]
            key = weights[name + "self_attn.key_layernorm.weight"]
            assert isinstance(query, Tensor)
            assert isinstance(key, Tensor)
            # The key gain is folded into the query, so that a group of layers shares its keys.
            yield Role.Q_GAIN, layer, 0, query * key
        mlp = name + ("mlp.shared_mlp." if config.experts else "mlp.")
        if _shared_ffn(config):
            for part, role in _SHARED.items():
                yield role, layer, 0, weights[f"{mlp}{part}.weight"]
        if config.experts:
            yield Role.ROUTER, layer, 0, weights[name + "mlp.gate.wg.weight"]
        for expert in range(config.experts if routed else 0):
            for part, role in _ROUTED.items():
                leaf = f"{name}mlp.experts.{expert}.{part}.weight"
                yield role, layer, expert, weights[leaf]
