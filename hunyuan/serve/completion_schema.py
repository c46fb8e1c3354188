"""OpenAI's plain completion request."""

from typing import Annotated, Any

from pydantic import Field

from hunyuan.engine.request import SamplingParams
from hunyuan.serve.schema import MAX_CHOICES, FieldError, Sampling

MAX_PROMPTS = 128
DEFAULT_MAX_TOKENS = 16

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    echo: bool | None = None
    logprobs: int | None = None
    # Meaningful and not supported.
    suffix: str | None = None
    best_of: int | None = None

    @property
    def prompts(self) -> list[Any]:
        """One prompt or many as many: texts or lists of token ids."""
        given = self.prompt
        single = isinstance(given, str) or isinstance(given[0], int)
        return [given] if single else list(given)

    @property
    def only_prompt(self) -> bool:
        """Whether nothing is to be written, only the prompt to be measured."""
        return self.max_tokens == 0

    def check(self) -> None:
        """Raise `FieldError` for what is not supported or contradicts itself."""
        if self.suffix:
            raise FieldError(
                "suffix",
                "suffix is not supported by this server; put it into the prompt",
                "本服务不支持 suffix；请把它写入 prompt",
            )
        if self.best_of not in (None, 1, self.n):
            raise FieldError(
                "best_of",
                f"best_of={self.best_of} is not supported by this server; use n",
                f"本服务不支持 best_of={self.best_of}；请使用 n",
            )
        if self.only_prompt and not self.echo:
            raise FieldError(
                "max_tokens",
                "max_tokens=0 needs echo=true, or there is nothing to answer",
                "max_tokens=0 需要 echo=true，否则没有可返回的内容",
            )
        count = len(self.prompts) * (self.n or 1)
        if count > MAX_PROMPTS:
            raise FieldError(
                "n",
                f"n={self.n} for {len(self.prompts)} prompts: {count} answers, at most "
                f"{MAX_PROMPTS} and {MAX_CHOICES} a prompt",
                f"n={self.n}，共 {len(self.prompts)} 个提示：{count} 个回答，"
                f"最多 {MAX_PROMPTS} 个，每个提示最多 {MAX_CHOICES} 个",
            )
        self.check_stream_options()

    def params(self, **given: Any) -> SamplingParams:
        """Sampling parameters, defaults where absent; ``given`` come on top."""
        limit = DEFAULT_MAX_TOKENS if self.max_tokens is None else self.max_tokens
        given.setdefault("max_tokens", limit)
        given.setdefault("logprobs", self.logprobs)
        if self.echo and (self.logprobs is not None or self.only_prompt):
            given.setdefault("prompt_logprobs", self.logprobs or 0)
        return self.sampling(**given)
