"""A model whose every answer is kept: an interrupted evaluation never asks twice.

`Recorded` stands between the harness and any of its models. Answers are appended to one file as
they come; a request found there is not sent again. So a run that was killed goes on where it was,
and its scores are those of a run that was not.
"""

import hashlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from hunyuan.evaluate.response_log import ResponseLog


class Progress(Protocol):
    """Hears how many requests of one kind are answered."""

    def __call__(self, kind: str, done: int, total: int) -> None:
        """``kind`` is the harness's name of the request."""


class Answering(Protocol):
    """The parts of `hunyuan.evaluate.run.Subject` that answer."""

    @property
    def model(self) -> Any:
        """The harness's model."""

    @property
    def truncated(self) -> int | None:
        """Prompts so far that were cut; None where that is not known."""


class Recorded(LM):  # type: ignore[misc]
    """A subject's model with a memory; ``batch`` requests are asked together.

    With a ``seed``, the answers drawn for one request get seeds that count up from it.
    """

    def __init__(
        self,
        subject: Answering,
        log: ResponseLog,
        progress: Progress,
        *,
        batch: int,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self._subject = subject
        self._model = subject.model
        self._log = log
        self._progress = progress
        self._batch = batch
        self._seed = seed
        self.truncated: int | None = 0 if subject.truncated is not None else None
        """Prompts that were cut, in this run and in those it goes on with."""

    def loglikelihood(self, requests: list[Instance], **_: Any) -> list[tuple[float, bool]]:
        """Log-probability of continuations, and whether each is the greedy one."""
        found = self._answer("loglikelihood", requests, self._model.loglikelihood)
        return [(float(value), bool(greedy)) for value, greedy in found]

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> list[float]:
        """Log-probability of whole texts."""
        return self._answer("loglikelihood_rolling", requests, self._model.loglikelihood_rolling)

    def generate_until(self, requests: list[Instance], **_: Any) -> list[str]:
        """Generated answers."""
        return self._answer("generate_until", requests, self._model.generate_until)

    def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> Any:
        """The prompt of a conversation, as the model writes it."""
        return self._model.apply_chat_template(chat_history, add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The source of the template."""
        return self._model.chat_template(chat_template)  # type: ignore[no-any-return]

    @property
    def tokenizer_name(self) -> str:
        """What the harness names its own caches by."""
        return str(self._model.tokenizer_name)

    def _answer(
        self, kind: str, requests: list[Instance], ask: Callable[[list[Instance]], list[Any]]
    ) -> list[Any]:
        numbered = _numbered(kind, requests)
        keys = [f"{content}.{repeat}" if repeat else content for content, repeat in numbered]
        missing = [i for i, key in enumerate(keys) if key not in self._log]
        done = len(keys) - len(missing)
        self._progress(kind, done, len(keys))
        for start in range(0, len(missing), self._batch):
            places = missing[start : start + self._batch]
            asked = [self._seeded(requests[i], numbered[i][1]) for i in places]
            base, before = done + start, self._subject.truncated

            def heard(count: int, base: int = base) -> None:
                self._progress(kind, base + count, len(keys))

            partial = _Partial(kind, asked, [keys[i] for i in places], self._log, heard)
            self._model.set_cache_hook(partial)
            answers = ask(asked)
            pairs = [(keys[i], answer) for i, answer in zip(places, answers, strict=True)]
            if before is not None and self._subject.truncated:
                pairs.append((_cut_key(keys[places[0]]), self._subject.truncated - before))
            self._log.add([pair for pair in pairs if pair[0] not in self._log])
            self._progress(kind, base + len(places), len(keys))
        if self.truncated is not None:
            cut = (_cut_key(key) for key in keys)
            self.truncated += sum(self._log[key] for key in cut if key in self._log)
        return [self._log[key] for key in keys]

    def _seeded(self, request: Instance, repeat: int) -> Instance:
        if self._seed is None or request.request_type != "generate_until":
            return request
        prompt, settings = request.args
        if not settings.get("do_sample"):
            return request
        seeded = {**settings, "seed": self._seed + repeat}
        return Instance(request.request_type, request.doc, (prompt, seeded), request.idx)


class _Partial:
    """Keeps answers that a model tells before its batch is done (the harness's cache hook)."""

    def __init__(
        self,
        kind: str,
        asked: Sequence[Instance],
        keys: Sequence[str],
        log: ResponseLog,
        heard: Callable[[int], None],
    ) -> None:
        self._kind = kind
        self._log = log
        self._heard = heard
        self._count = 0
        self._keys: dict[str, deque[str]] = defaultdict(deque)
        for request, key in zip(asked, keys, strict=True):
            self._keys[_content(kind, request.args)].append(key)

    def add_partial(self, attr: str, req: Sequence[Any], res: Any) -> None:
        """Keep one answer; one to a request that was not asked in these words is not kept yet."""
        waiting = self._keys.get(_content(attr, req))
        if attr == self._kind and waiting:
            self._log.add([(waiting.popleft(), res)], durable=False)
            self._count += 1
            self._heard(self._count)


def _cut_key(key: str) -> str:
    return f"cut {key}"


def _numbered(kind: str, requests: list[Instance]) -> list[tuple[str, int]]:
    """A name for each request and its number among those of the same content."""
    seen: dict[str, int] = {}
    numbered = []
    for request in requests:
        content = _content(kind, request.args)
        seen[content] = repeat = seen.get(content, -1) + 1
        numbered.append((content, repeat))
    return numbered


def _content(kind: str, arguments: Sequence[Any]) -> str:
    content = json.dumps([kind, *arguments], ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:24]
