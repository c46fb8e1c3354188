"""A model whose every answer is kept: an interrupted evaluation never asks twice.

`Recorded` stands between the harness and any of its models. Answers are appended to one file as
they come; a request found there is not sent again. So a run that was killed goes on where it was,
and its scores are those of a run that was not.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from hunyuan.evaluate.response_log import ResponseLog


class Progress(Protocol):
    """Hears how many requests of one kind are answered."""

    def __call__(self, kind: str, done: int, total: int) -> None:
        """``kind`` is the harness's name of the request."""


class Recorded(LM):  # type: ignore[misc]
    """``model`` with a memory; ``batch`` requests are asked between two writes."""

    def __init__(self, model: LM, log: ResponseLog, progress: Progress, *, batch: int) -> None:
        super().__init__()
        self._model = model
        self._log = log
        self._progress = progress
        self._batch = batch
        self.asked = 0
        """Requests that were not in the log."""

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
        keys = _keys(kind, requests)
        missing = [i for i, key in enumerate(keys) if key not in self._log]
        self._progress(kind, len(keys) - len(missing), len(keys))
        for start in range(0, len(missing), self._batch):
            places = missing[start : start + self._batch]
            answers = ask([requests[i] for i in places])
            self._log.add([(keys[i], answer) for i, answer in zip(places, answers, strict=True)])
            self.asked += len(places)
            self._progress(kind, len(keys) - len(missing) + start + len(places), len(keys))
        return [self._log[key] for key in keys]


def _keys(kind: str, requests: list[Instance]) -> list[str]:
    """A name for each request; repeats of one request get names of their own."""
    seen: dict[str, int] = {}
    keys = []
    for request in requests:
        content = json.dumps([kind, *request.args], ensure_ascii=False, sort_keys=True, default=str)
        key = hashlib.sha256(content.encode()).hexdigest()[:24]
        seen[key] = repeat = seen.get(key, -1) + 1
        keys.append(key if not repeat else f"{key}.{repeat}")
    return keys
