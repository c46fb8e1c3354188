"""transformers on torch, from a folder that `hunyuan convert` exported."""

from typing import Any

import torch
import transformers
from protocol import run


class Transformers:
    """The model called directly: a greedy loop without what `generate` does per token."""

    def load(
        self, model: str, threads: int, context: int, dtype: str, static_cache: bool
    ) -> dict[str, Any]:
        """Load a Hugging Face folder."""
        torch.set_num_threads(threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            model, dtype=getattr(torch, dtype)
        ).eval()
        self._folder, self._context, self._static = model, context, static_cache
        return {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "dtype": dtype,
            "cache": "static" if static_cache else "dynamic",
        }

    def complete(self, text: str, tokens: int) -> str:
        """Continue a text greedily."""
        tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder)
        inputs = tokenizer(text, return_tensors="pt")
        out = self._model.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, repetition_penalty=1.0
        )
        return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :]))

    def prefill(self, ids: list[int]) -> None:
        """Read a prompt and choose one token."""
        config = self._model.config
        if self._static:
            self._cache: Any = transformers.StaticCache(config, max_cache_len=self._context)
        else:
            self._cache = transformers.DynamicCache(config=config)
        self._position = 0
        self._token = self._next(torch.tensor([ids]))

    def decode(self, tokens: int) -> None:
        """One token a call."""
        for _ in range(tokens):
            self._token = self._next(self._token)

    @torch.inference_mode()
    def _next(self, ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(self._position, self._position + ids.shape[1])
        self._position += ids.shape[1]
        out = self._model(
            ids,
            past_key_values=self._cache,
            position_ids=positions[None],
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1].argmax(-1, keepdim=True)


if __name__ == "__main__":
    run(Transformers())
