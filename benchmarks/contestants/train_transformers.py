"""transformers' own classes of the later Hunyuan family, trained on random tokens."""

from typing import Any

import torch
import transformers
from protocol import run
from transformers.models.hunyuan_v1_dense import (
    HunYuanDenseV1Config,
    HunYuanDenseV1ForCausalLM,
)
from transformers.models.hunyuan_v1_moe import HunYuanMoEV1Config, HunYuanMoEV1ForCausalLM


class Transformers:
    """Forward and backward under bfloat16 autocast, the weights in float32."""

    def load(self, kind: str, threads: int, shape: dict[str, int]) -> dict[str, Any]:
        """Build a fresh model, ``moe`` or ``dense``."""
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        common = {
            "vocab_size": shape["vocab"],
            "hidden_size": shape["hidden"],
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": shape["heads"],
            "num_key_value_heads": shape["kv_heads"],
            "head_dim": shape["head_dim"],
            "max_position_embeddings": 2048,
            "tie_word_embeddings": True,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {
                "rope_type": "dynamic",
                "rope_theta": 10000.0,
                "factor": 1.0,
                "alpha": 1000.0,
            },
        }
        if kind == "moe":
            config = HunYuanMoEV1Config(
                **common, intermediate_size=shape["ffn"], num_experts=16, moe_topk=1
            )
            self._model = HunYuanMoEV1ForCausalLM._from_config(config, attn_implementation="sdpa")
        else:
            config = HunYuanDenseV1Config(**common, intermediate_size=2 * shape["ffn"])
            self._model = HunYuanDenseV1ForCausalLM._from_config(config, attn_implementation="sdpa")
        self._model.train()
        self._ids = torch.randint(shape["vocab"], (shape["rows"], shape["tokens"]))
        return {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "parameters": sum(p.numel() for p in self._model.parameters()),
        }

    def step(self) -> float:
        """Forward and backward."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self._model(input_ids=self._ids, labels=self._ids, use_cache=False).loss
        loss.backward()
        self._model.zero_grad(set_to_none=True)
        return float(loss)


if __name__ == "__main__":
    run(Transformers())
