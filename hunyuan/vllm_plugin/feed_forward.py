"""The MLPs: one dense, or a shared expert beside the routed ones, by vLLM's fused kernels."""

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.fused_moe import FusedMoEFactory, GateLinear
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from vllm.model_executor.layers.quantization import QuantizationConfig

from hunyuan.model.config import ModelConfig


class HunyuanMLP(nn.Module):
    """SwiGLU; with ``reduce_results`` false the ranks' parts are left for the caller to sum."""

    def __init__(
        self,
        hidden: int,
        width: int,
        quant_config: QuantizationConfig | None,
        prefix: str,
        *,
        reduce_results: bool = True,
    ) -> None:
        super().__init__()
        self.gate_up_proj = MergedColumnParallelLinear(
            hidden,
            [width, width],
            bias=False,
            quant_config=quant_config,
            prefix=f"{prefix}.gate_up_proj",
        )
        self.down_proj = RowParallelLinear(
            width,
            hidden,
            bias=False,
            quant_config=quant_config,
            reduce_results=reduce_results,
            prefix=f"{prefix}.down_proj",
        )
        self.act_fn = SiluAndMul()

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        gate_up, _ = self.gate_up_proj(x)
        out: Tensor
        out, _ = self.down_proj(self.act_fn(gate_up))
        return out


class HunyuanMoE(nn.Module):
    """Routed experts and, if the model has one, the shared expert that every token visits.

    Dropless, whatever routing the model was trained with: an answer must not depend on who else
    asks. Weights are the raw probabilities of a softmax over all experts unless the model
    normalises them; divided by their sum, those of top-1 would all be 1.
    """

    def __init__(
        self, shape: ModelConfig, quant_config: QuantizationConfig | None, prefix: str
    ) -> None:
        super().__init__()
        self.gate = GateLinear(
            shape.hidden,
            shape.experts,
            out_dtype=torch.float32,
            force_fp32_compute=True,
            prefix=f"{prefix}.gate",
        )
        if shape.shared_experts:
            self.shared_mlp = HunyuanMLP(
                shape.hidden,
                shape.ffn * shape.shared_experts,
                quant_config,
                f"{prefix}.shared_mlp",
                reduce_results=False,
            )
        self.experts = FusedMoEFactory(
            num_experts=shape.experts,
            top_k=shape.top_k,
            hidden_size=shape.hidden,
            intermediate_size=shape.ffn,
            renormalize=shape.norm_topk_prob,
            quant_config=quant_config,
            shared_experts=self.shared_mlp if shape.shared_experts else None,
            router_logits_dtype=torch.float32,
            prefix=f"{prefix}.experts",
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        logits, _ = self.gate(x)
        out: Tensor = self.experts(hidden_states=x, router_logits=logits)
        return out


def feed_forward(
    shape: ModelConfig, quant_config: QuantizationConfig | None, prefix: str
) -> nn.Module:
    """The part of a layer after its attention."""
    if shape.experts:
        return HunyuanMoE(shape, quant_config, prefix)
    return HunyuanMLP(shape.hidden, shape.ffn, quant_config, prefix)
