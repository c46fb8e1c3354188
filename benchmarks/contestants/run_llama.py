"""llama.cpp through llama-cpp-python, with no more Python per token than its own loop needs."""

from typing import Any

import llama_cpp
from protocol import run


class LlamaCpp:
    """`Llama.eval`, and the greedy sampler of the C library."""

    def load(self, model: str, threads: int, context: int, flash_attention: bool) -> dict[str, Any]:
        """Load a GGUF file."""
        self._llama = llama_cpp.Llama(
            model,
            n_ctx=context,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=flash_attention,
            verbose=False,
        )
        self._greedy = llama_cpp.llama_sampler_init_greedy()
        return {
            "llama-cpp-python": llama_cpp.__version__,
            "system": llama_cpp.llama_print_system_info().decode().strip(" |"),
            "flash_attention": flash_attention,
            "cache": "float16",
        }

    def complete(self, text: str, tokens: int) -> str:
        """Continue a text greedily."""
        answer = self._llama.create_completion(text, max_tokens=tokens, temperature=0)
        return str(answer["choices"][0]["text"])

    def prefill(self, ids: list[int]) -> None:
        """Read a prompt and choose one token."""
        self._llama.reset()
        self._token = self._next(ids)

    def decode(self, tokens: int) -> None:
        """One token a call."""
        for _ in range(tokens):
            self._token = self._next([self._token])

    def _next(self, ids: list[int]) -> int:
        self._llama.eval(ids)
        return int(llama_cpp.llama_sampler_sample(self._greedy, self._llama.ctx, -1))


if __name__ == "__main__":
    run(LlamaCpp())
