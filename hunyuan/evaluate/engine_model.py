"""The engine as a model of lm-evaluation-harness.

Log-likelihoods go through the engine's scoring, so contexts that share a beginning (the examples
before each question of a subject) are computed once, and the endings of one question together.
Answers are generated in batches, greedily unless the task says otherwise.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from hunyuan.engine.request import Request, SamplingParams
from hunyuan.errors import DoesNotFitError

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine

_MAX_ANSWER = 256


class EngineModel(TemplateLM):  # type: ignore[misc]
    """Answers the harness's requests by ``engine``.

    Prompts longer than the context lose their beginning, which is counted in ``truncated``, or
    raise `DoesNotFitError` if ``forbid_cut``.
    """

    def __init__(self, engine: "Engine", *, forbid_cut: bool = False) -> None:
        super().__init__()
        self.engine = engine
        self.truncated = 0
        self._forbid_cut = forbid_cut
        # A prompt that the chat template wrote holds special tokens; any other is plain text.
        self._markup = False

    @property
    def eot_token_id(self) -> int:
        """What begins a text that nothing precedes."""
        tokenizer = self.engine.tokenizer
        token = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        return min(tokenizer.stop_ids) if token is None else token

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's cache of rendered prompts."""
        return f"hunyuan-{self.engine.tokenizer.vocab_size}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template."""
        return self.engine.tokenizer.chat_template

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The prompt of a conversation."""
        self._markup = True
        return self.engine.tokenizer.render_chat(
            chat_history, add_generation_prompt=add_generation_prompt
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Ids of a text, after bos where the model has one and it is wanted."""
        tokenizer = self.engine.tokenizer
        if self._markup:
            return tokenizer.encode_markup(string)
        if add_special_tokens is False:
            return tokenizer.encode(string)
        return tokenizer.encode_prompt(string)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = True
    ) -> list[tuple[float, bool]]:
        """Log-probability of endings, and whether each is the greedy one."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = []
        for _texts, context, ending in requests:
            room = self.engine.context - len(ending)
            pairs.append((self._cut(context, room), ending))
        return [(score.logprob, score.greedy) for score in self.engine.score(pairs)]

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts, in windows of the context that do not overlap."""
        sums: list[float] = []
        for request in requests:
            ids = self.tok_encode(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                ids, self.eot_token_id, max_seq_len=self.engine.context - 1, context_len=1
            )
            pairs = [make_disjoint_window(window) for window in windows]
            sums.append(sum(score.logprob for score in self.engine.score(pairs)))
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string, without it."""
        prompts, params = [], []
        for request in requests:
            text, settings = request.args
            made = _params(settings, self.engine.context)
            answer = made.max_tokens or _MAX_ANSWER
            prompts.append(self._cut(self.tok_encode(text), self.engine.context - answer))
            params.append(made)
        return self._generate(requests, prompts, params)

    def _generate(
        self,
        asked: Sequence[Instance],
        prompts: Sequence[list[int]],
        params: Sequence[SamplingParams],
    ) -> list[str]:
        """All answers; each is told to the cache hook when it ends, not when the last one does."""
        running: dict[int, Request] = {}
        texts = [""] * len(prompts)
        try:
            for i, (prompt, settings) in enumerate(zip(prompts, params, strict=True)):
                running[i] = self.engine.submit(prompt, settings)
            while running:
                self.engine.step()
                ended = [i for i, each in running.items() if each.finish_reason is not None]
                for i in ended:
                    texts[i] = running.pop(i).completion().text
                    self.cache_hook.add_partial("generate_until", asked[i].args, texts[i])
        finally:
            for request in running.values():
                self.engine.drop(request)
        return texts

    def _cut(self, ids: list[int], room: int) -> list[int]:
        """The last ``room`` tokens."""
        if len(ids) <= room:
            return ids
        if self._forbid_cut:
            raise DoesNotFitError(
                f"a prompt has {len(ids)} tokens, the context leaves room for {room}; use fewer "
                "examples (--shots), a larger --context, or allow cutting",
                f"某条提示有 {len(ids)} 个词元，上下文只容得下 {room} 个；请减少示例（--shots）、"
                "加大 --context，或允许截断",
            )
        self.truncated += 1
        return ids[-room:]


def _params(settings: dict[str, Any], context: int) -> SamplingParams:
    until = settings.get("until") or []
    stop = [until] if isinstance(until, str) else [text for text in until if text]
    wanted = settings.get("max_gen_toks", settings.get("max_tokens", _MAX_ANSWER))
    sampled = settings.get("do_sample", False) and settings.get("temperature", 0.0) > 0
    return SamplingParams(
        max_tokens=min(int(wanted), context // 2),
        temperature=float(settings["temperature"]) if sampled else 0.0,
        top_k=int(settings.get("top_k", 0)) if sampled else 0,
        top_p=float(settings.get("top_p", 1.0)) if sampled else 1.0,
        stop=stop,
        seed=settings.get("seed"),
    )
