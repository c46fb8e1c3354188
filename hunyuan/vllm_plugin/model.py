"""Hunyuan-Large as a model of vLLM: layers, head, loading, and where a pipeline may be cut."""

from collections.abc import Iterable
from itertools import islice

from torch import Tensor, nn
from vllm.compilation.decorators import support_torch_compile
from vllm.config import VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsPP
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    PPMissingLayer,
    WeightsMapper,
    extract_layer_index,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
)
from vllm.sequence import IntermediateTensors

from hunyuan.model.config import ModelConfig
from hunyuan.vllm_plugin.attention import HunyuanAttention
from hunyuan.vllm_plugin.config import model_shape
from hunyuan.vllm_plugin.feed_forward import feed_forward
from hunyuan.vllm_plugin.weights import stacked_names, unfused


class HunyuanLayer(nn.Module):
    """Attention and feed-forward, each before it a norm and around it a residual path."""

    def __init__(
        self, vllm_config: VllmConfig, shape: ModelConfig, max_position: int, prefix: str
    ) -> None:
        super().__init__()
        quant_config = vllm_config.quant_config
        self.self_attn = HunyuanAttention(
            shape,
            extract_layer_index(prefix),
            prefix.rpartition(".")[0],
            max_position,
            vllm_config.cache_config,
            quant_config,
        )
        self.mlp = feed_forward(shape, quant_config, f"{prefix}.mlp")
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_eps)

    def forward(
        self, positions: Tensor, x: Tensor, residual: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What this layer adds, and the residual stream it is to be added to; each (N, D)."""
        if residual is None:
            residual, x = x, self.input_layernorm(x)
        else:
            x, residual = self.input_layernorm(x, residual)
        x = self.self_attn(positions, x)
        x, residual = self.post_attention_layernorm(x, residual)
        return self.mlp(x), residual


@support_torch_compile
class HunyuanModel(nn.Module):
    """Embedding, this pipeline stage's layers, and the final norm."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        shape = model_shape(vllm_config.model_config.hf_config)
        max_position = max(shape.context, vllm_config.model_config.max_model_len)
        self.embed_tokens = VocabParallelEmbedding(
            shape.vocab,
            shape.hidden,
            quant_config=vllm_config.quant_config,
            prefix=f"{prefix}.embed_tokens",
        )
        self.start_layer, self.end_layer, self.layers = make_layers(
            shape.layers,
            lambda prefix: HunyuanLayer(vllm_config, shape, max_position, prefix),
            prefix=f"{prefix}.layers",
        )
        self.norm = RMSNorm(shape.hidden, shape.norm_eps)
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], shape.hidden
        )

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """(N,) -> (N, D)."""
        embedded: Tensor = self.embed_tokens(input_ids)
        return embedded

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor | IntermediateTensors:
        """Normalised hidden states (N, D), or what the next pipeline stage needs."""
        residual = None
        if intermediate_tensors is not None:
            x = intermediate_tensors["hidden_states"]
            residual = intermediate_tensors["residual"]
        elif inputs_embeds is not None:
            x = inputs_embeds
        else:
            assert input_ids is not None, "vLLM gives token ids or embeddings"
            x = self.embed_input_ids(input_ids)
        for layer in islice(self.layers, self.start_layer, self.end_layer):
            x, residual = layer(positions, x, residual)
        if not get_pp_group().is_last_rank:
            return IntermediateTensors({"hidden_states": x, "residual": residual})
        x, _ = self.norm(x, residual)
        return x


class HunYuanForCausalLM(nn.Module, SupportsLoRA, SupportsPP):  # type: ignore[misc]
    """The class that config.json of Hunyuan-Large names."""

    hf_to_vllm_mapper = WeightsMapper(orig_to_new_substr={".mlp.gate.wg.": ".mlp.gate."})
    packed_modules_mapping = {  # noqa: RUF012 - vLLM's interface
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    embedding_modules = {  # noqa: RUF012 - vLLM's interface
        "embed_tokens": "input_embeddings",
        "lm_head": "output_embeddings",
    }

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.quant_config = vllm_config.quant_config
        self.shape = model_shape(self.config)
        _check_stage(self.shape.layers, self.shape.cla_share)
        self.model = HunyuanModel(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.lm_head = ParallelLMHead(
            self.shape.vocab,
            self.shape.hidden,
            quant_config=self.quant_config,
            prefix=maybe_prefix(prefix, "lm_head"),
        )
        if self.shape.tied:
            self.lm_head = self.lm_head.tie_weights(self.model.embed_tokens)
        self.logits_processor = LogitsProcessor(self.shape.vocab)
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """(N,) -> (N, D)."""
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor | IntermediateTensors:
        """Hidden states (N, D) of the last stage, else what the next one needs."""
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """(N, D) -> (N, V)."""
        logits: Tensor | None = self.logits_processor(self.lm_head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the checkpoint's tensors; returns the names of the parameters that are set."""
        mapper = self.hf_to_vllm_mapper | stacked_names(self.shape)
        loader = AutoWeightsLoader(self)
        loaded: set[str] = loader.load_weights(unfused(weights, self.shape), mapper=mapper)
        if self.shape.qk_norm:
            for number, layer in enumerate(self.model.layers):
                if not isinstance(layer, PPMissingLayer):
                    layer.self_attn.fold_gains()
                    loaded.add(f"model.layers.{number}.self_attn.query_norm.weight")
        return loaded


def _check_stage(layers: int, share: int) -> None:
    """Raise `ValueError` if a pipeline cut would part layers that share K and V."""
    group = get_pp_group()
    if group.world_size == 1:
        return
    from vllm.distributed.utils import get_pp_indices

    start, _ = get_pp_indices(layers, group.rank_in_group, group.world_size)
    if start % share:
        raise ValueError(
            f"pipeline stage {group.rank_in_group} would begin at layer {start}, but layers "
            f"{start - start % share} to {start - start % share + share - 1} share their keys and "
            f"values; set VLLM_PP_LAYER_PARTITION to multiples of {share}"
        )
