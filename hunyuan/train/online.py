"""Preferences between the policy's own answers, mixed with those of files (paper, section 3.2).

Before each epoch the model as it is answers some prompts several times; a reward ranks each
prompt's answers, and the best and the worst become a pair. Who samples is handed in (`Sample`), for
training knows no engine. The pairs of an epoch are kept in a file of the run, so a run that was
killed goes on with the same ones.

The reward is a language model: how likely it finds the answer, per token, or, with a reference
beside it, how much likelier than the reference does - the reward that DPO's objective implies
(arXiv 2305.18290, eq. 5). The paper's own reward model is not published.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hunyuan.checkpoint.load import load_model, load_tokenizer
from hunyuan.data.dialogue import Pair, encode_answer, encode_pair, read_records
from hunyuan.data.rows import NO_TARGET, pack
from hunyuan.errors import BadDataError
from hunyuan.files import atomic_file
from hunyuan.model.transformer import Transformer
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.train.batch import to_batch
from hunyuan.train.losses import answer_logs, head_of, training_ops
from hunyuan.train.recipe import OnlineSettings

Messages = list[dict[str, Any]]

Sample = Callable[[Sequence[Messages], int, int], list[list[str]]]
"""Answers of the policy as it is: (prompts, answers to each, seed) -> texts, per prompt."""


@dataclass(frozen=True)
class Judge:
    """A model and its tokenizer, in whose eyes an answer is likely or not."""

    model: Transformer
    tokenizer: Tokenizer

    @staticmethod
    def load(name: str, dtype: str) -> "Judge":
        """By path or name, as everywhere."""
        return Judge(load_model(name, dtype).requires_grad_(False), load_tokenizer(name))

    @torch.no_grad()
    def log_likelihood(self, messages: Messages, answer: str) -> tuple[float, int]:
        """Of the answer's tokens, and how many they are."""
        example = encode_answer(messages, answer, self.tokenizer)
        ids = example.ids[: self.model.config.context]
        batch = to_batch([pack([(ids, example.targets[: len(ids)])], len(ids))])
        ops = training_ops(self.model.config, self.model.dtype, batch.first_seen, 0.0)
        hidden, _ = self.model.model(batch.ids, batch.positions, ops=ops)
        count = int((batch.targets != NO_TARGET).sum())
        return float(answer_logs(hidden, head_of(self.model), batch.targets)), count


class Reward:
    """Ranks answers; see the module."""

    def __init__(self, judge: Judge, reference: Judge | None) -> None:
        self._judge = judge
        self._reference = reference

    def __call__(self, messages: Messages, answer: str) -> float:
        """Higher is better."""
        log, count = self._judge.log_likelihood(messages, answer)
        if self._reference is None:
            return log / max(count, 1)
        return log - self._reference.log_likelihood(messages, answer)[0]


class OnlinePairs:
    """Called with the number of an epoch, gives its pairs."""

    def __init__(
        self,
        settings: OnlineSettings,
        sample: Sample,
        reward: Callable[[Messages, str], float],
        tokenizer: Tokenizer,
        *,
        folder: Path,
        longest: int,
        seed: int,
    ) -> None:
        """``folder`` is where the pairs are kept; answers over ``longest`` tokens are left out."""
        self._settings = settings
        self._sample = sample
        self._reward = reward
        self._tokenizer = tokenizer
        self._folder = folder
        self._longest = longest
        self._seed = seed
        self._prompts = read_prompts(settings.prompts)

    def __call__(self, epoch: int) -> list[Pair]:
        """The pairs, made or read."""
        path = self._folder / f"epoch-{epoch:04d}.jsonl"
        if not path.is_file():
            records = self._make(epoch)
            with atomic_file(path) as file:
                for record in records:
                    file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        lines = path.read_text(encoding="utf-8").splitlines()
        pairs = [encode_pair(json.loads(line), self._tokenizer) for line in lines]
        return [p for p in pairs if max(len(p.chosen.ids), len(p.rejected.ids)) <= self._longest]

    def _make(self, epoch: int) -> list[dict[str, Any]]:
        draw = np.random.default_rng((self._seed, epoch, 2))
        count = min(self._settings.pairs, len(self._prompts))
        prompts = [self._prompts[i] for i in draw.permutation(len(self._prompts))[:count]]
        seed = int(draw.integers(2**31))
        records = []
        for messages, answers in zip(
            prompts, self._sample(prompts, self._settings.samples, seed), strict=True
        ):
            texts = sorted({text for text in answers if text.strip()})
            if len(texts) < 2:
                continue  # the policy is of one mind
            ranked = sorted(texts, key=lambda text: self._reward(messages, text))
            records.append({"messages": messages, "chosen": ranked[-1], "rejected": ranked[0]})
        return records


def read_prompts(paths: Sequence[Path]) -> list[Messages]:
    """Conversations of jsonl files up to the last thing that is not the assistant's.

    Raises `BadDataError` if there is none.
    """
    prompts = []
    for path in paths:
        for record in read_records(path):
            messages = record.get("messages")
            if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
                continue
            while messages and messages[-1].get("role") == "assistant":
                messages = messages[:-1]
            if messages:
                prompts.append(messages)
    if not prompts:
        raise BadDataError(
            "online.prompts: no conversation was found; give jsonl files with messages",
            "online.prompts：没有找到对话；请给出含 messages 的 jsonl 文件",
        )
    return prompts


def make_reward(settings: OnlineSettings, dtype: str) -> Reward:
    """Load the models of a reward."""
    reference = settings.reward_reference
    return Reward(
        Judge.load(settings.reward, dtype),
        None if reference is None else Judge.load(reference, dtype),
    )
