"""An OpenAI-compatible server as a model of lm-evaluation-harness.

Answers come by ``chat/completions`` or, without a chat, ``completions``. Log-likelihoods need a
server that repeats a prompt with the log-probability of each of its tokens (``completions`` with
``echo`` and ``logprobs``, as vLLM and llama.cpp have it); where an ending begins is read from the
offsets of the tokens in the text, so no tokenizer is needed here.

Several requests run at once. Each answer is told to the cache hook when it comes, so that what is
paid for is kept when a later request fails.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from hunyuan.errors import HunyuanError, UsageError
from hunyuan.evaluate.server import Server

_MAX_ANSWER = 256
_MOST_STOPS = 4


class ServerModel(LM):  # type: ignore[misc]
    """Answers the harness's requests by ``server``, ``parallel`` at a time."""

    def __init__(self, server: Server, model: str, *, chat: bool, parallel: int) -> None:
        super().__init__()
        self._server = server
        self._model = model
        self._chat = chat
        self._parallel = parallel

    @property
    def tokenizer_name(self) -> str:
        """Names the harness's cache of rendered prompts."""
        return f"messages-{self._model}"

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The messages as JSON: the template is the server's."""
        return json.dumps(chat_history, ensure_ascii=False)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Unknown here."""
        return None

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of endings, and whether each is the greedy one."""
        if self._chat:
            raise _no_logprobs(self._server.url)
        return self._each("loglikelihood", requests, self._score)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Not offered: windows over a long text need the model's tokenizer."""
        raise UsageError(
            f"{self._server.url}: the perplexity of texts cannot be measured through a server; "
            "evaluate the weights themselves (a folder or hf:FOLDER)",
            f"{self._server.url}：无法通过服务测量文本困惑度；请直接评测权重（目录或 hf:目录）",
        )

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string, without it."""
        return self._each("generate_until", requests, self._generate)

    def _score(self, context: str, ending: str) -> tuple[float, bool]:
        body = {
            "model": self._model,
            "prompt": context + ending,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "echo": True,
        }
        found = self._server.post("completions", body, lambda answer: answer["choices"][0])
        score = _ending_score(found, len(context), len(context) + len(ending))
        if score is None:
            raise _no_logprobs(self._server.url)
        return score

    def _generate(self, prompt: str, settings: dict[str, Any]) -> str:
        until = settings.get("until") or []
        stop = [until] if isinstance(until, str) else [text for text in until if text]
        sampled = bool(settings.get("do_sample"))
        limit = settings.get("max_gen_toks", settings.get("max_tokens", _MAX_ANSWER))
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": int(limit),
            "temperature": settings.get("temperature", 0) if sampled else 0,
            # Servers take four at most; the others are looked for below.
            "stop": stop[:_MOST_STOPS] or None,
        }
        if sampled:
            body |= {key: settings[key] for key in ("top_p", "seed") if key in settings}
        if self._chat:
            body["messages"] = json.loads(prompt)
            text = self._server.post("chat/completions", body, _chat_text)
        else:
            body["prompt"] = prompt
            text = self._server.post("completions", body, lambda a: str(a["choices"][0]["text"]))
        for each in stop:
            text = text.split(each, 1)[0]
        return str(text)

    def _each(self, kind: str, requests: list[Instance], answer: Callable[..., Any]) -> list[Any]:
        """All answers; after a failure nothing more is asked, and what is under way is kept."""
        answers: dict[int, Any] = {}
        failure: HunyuanError | None = None
        with ThreadPoolExecutor(self._parallel) as pool:
            places = {pool.submit(answer, *each.args): i for i, each in enumerate(requests)}
            waiting: set[Future[Any]] = set(places)
            try:
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        try:
                            found = future.result()
                        except HunyuanError as error:
                            failure = failure or error
                            self._server.stop()
                            waiting = {each for each in waiting if not each.cancel()}
                            continue
                        i = places[future]
                        answers[i] = found
                        self.cache_hook.add_partial(kind, requests[i].args, found)
            except BaseException:
                self._server.stop()
                for each in waiting:
                    each.cancel()
                raise
        if failure is not None:
            raise failure
        return [answers[i] for i in range(len(requests))]


def _chat_text(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"] or "")


def _ending_score(choice: Any, begin: int, end: int) -> tuple[float, bool] | None:
    """Sum over the tokens from ``begin`` to ``end`` of the text; None where they have none."""
    try:
        told = choice["logprobs"]
        offsets, logprobs, tops = (
            told["text_offset"],
            told["token_logprobs"],
            told["top_logprobs"],
        )
        # A token that begins before the ending but reaches into it belongs to it.
        ends = [*offsets[1:], float("inf")]
        inside = [i for i, offset in enumerate(offsets) if offset < end and ends[i] > begin]
        total = sum(float(logprobs[i]) for i in inside)
        greedy = all(logprobs[i] >= max(tops[i].values()) for i in inside)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    return (total, greedy) if inside else None


def _no_logprobs(url: str) -> UsageError:
    return UsageError(
        f"{url}: offers no log-probabilities of prompts, which multiple choice is scored by; take "
        "benchmarks that generate (gsm8k, math, humaneval, ...), a server whose completions have "
        "echo and logprobs (without --chat), or the weights themselves",
        f"{url}：不提供提示的对数概率，无法为选择题计分；请改用生成类评测（gsm8k、math、humaneval "
        "等）、completions 支持 echo 与 logprobs 的服务（不加 --chat），或直接评测权重",
    )
