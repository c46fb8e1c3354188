"""This project: the engine on the compiled kernels, weights as the file stores them."""

from typing import Any

import torch
from protocol import run

import hunyuan
from hunyuan.checkpoint.load import load_packed
from hunyuan.engine.request import Request, SamplingParams
from hunyuan.native.library import isa


class Hunyuan:
    """Prompts through `Engine.submit`, tokens through `Engine.step`, as serving does."""

    def load(self, model: str, threads: int, context: int) -> dict[str, Any]:
        """Load a GGUF file."""
        torch.set_num_threads(threads)
        self._engine = hunyuan.Engine(
            load_packed(model), hunyuan.load_tokenizer(model), context=context
        )
        self._request: Request | None = None
        return {
            "hunyuan": hunyuan.__version__,
            "torch": torch.__version__,
            "kernels": isa(),
            "cache": str(self._engine.cache.k.dtype).removeprefix("torch."),
        }

    def complete(self, text: str, tokens: int) -> str:
        """Continue a text greedily."""
        return self._engine.generate(text, temperature=0, max_tokens=tokens).text

    def prefill(self, ids: list[int]) -> None:
        """Read a prompt and choose one token."""
        if self._request is not None:
            self._engine.drop(self._request)
        self._request = self._engine.submit(ids, SamplingParams(temperature=0, ignore_eos=True))
        while not self._request.generated:
            self._engine.step()

    def decode(self, tokens: int) -> None:
        """One token a step."""
        for _ in range(tokens):
            self._engine.step()


if __name__ == "__main__":
    run(Hunyuan())
