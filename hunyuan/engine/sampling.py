"""From logits to a token: small functions, applied in a fixed order.

Penalties and biases act on all logits; the filters then work on candidates, best first, so that
after top-k nothing touches the whole vocabulary again. No state but the request's generator.

What passes over the whole vocabulary does so on this thread alone (numpy, and torch's operations
that do not share one row among threads): torch's helpers would go on spinning beside those of the
native decoder, and halve its speed on a machine with few cores.
"""

import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hunyuan.engine.request import Request, TokenLogprob
from hunyuan.errors import HunyuanError

# Dividing by less would overflow, and the draw would be greedy anyway.
GREEDY_BELOW = 1e-4


class Candidates(NamedTuple):
    """Tokens that may still be chosen, most likely first."""

    logits: Tensor
    """(n,) float32, descending."""

    ids: Tensor
    """(n,) int64."""


def choose_token(
    logits: Tensor,
    request: Request,
    generator: torch.Generator,
    allowed: NDArray[np.bool_] | None = None,
) -> tuple[int, TokenLogprob | None]:
    """The next token of a request from its logits (V,) float32; ids without a token are -inf.

    ``allowed`` (V,) are the tokens that may be chosen; log-probabilities stay the model's own.
    """
    params = request.params
    require_finite(logits)
    adjusted = apply_penalties(logits, request)
    if allowed is not None:
        adjusted = torch.from_numpy(np.where(allowed, adjusted.numpy(), np.float32(-np.inf)))
        if not math.isfinite(adjusted.numpy().max()):
            raise HunyuanError(
                "the answer's grammar allows none of the model's tokens here; loosen it",
                "回答所用的语法在此处不允许模型的任何词元；请放宽语法",
            )
    if params.temperature < GREEDY_BELOW:
        token = int(adjusted.numpy().argmax())
    else:
        kept = top_k(adjusted, params.top_k)
        kept = Candidates(kept.logits / params.temperature, kept.ids)
        kept = min_p(top_p(kept, params.top_p), params.min_p)
        place = torch.multinomial(kept.logits.softmax(0), 1, generator=generator)
        token = int(kept.ids[place])
    return token, token_logprob(logits, token, params.logprobs)


def require_finite(logits: Tensor) -> None:
    """Raise `HunyuanError` if the best of (V,) logits is no number."""
    if not math.isfinite(logits.numpy().max()):
        raise HunyuanError(
            "the model computed no finite logits; its weights are damaged or overflow this dtype: "
            "try float32 or fetch the model again",
            "模型未算出有限的 logits；权重已损坏或超出该 dtype 的范围："
            "请改用 float32 或重新获取模型",
        )


def apply_penalties(logits: Tensor, request: Request) -> Tensor:
    """Repetition (prompt and answer), presence and frequency (answer), then the biases."""
    params = request.params
    repetition = params.repetition_penalty != 1
    additive = request.generated and (params.presence_penalty or params.frequency_penalty)
    if not (repetition or additive or params.logit_bias):
        return logits
    answered = Counter(request.generated)
    logits = logits.clone()
    if repetition:
        seen = torch.tensor(sorted({*request.prompt, *answered}))
        values = logits[seen]
        factor = params.repetition_penalty
        logits[seen] = torch.where(values > 0, values / factor, values * factor)
    if additive:
        ids = torch.tensor(list(answered))
        counts = torch.tensor([float(n) for n in answered.values()])
        logits[ids] -= params.presence_penalty + params.frequency_penalty * counts
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    return logits


def top_k(logits: Tensor, k: int) -> Candidates:
    """The k best of (V,) logits, in order; all of them, in order, for k = 0."""
    return Candidates(*logits.topk(min(k or len(logits), len(logits))))


def top_p(kept: Candidates, p: float) -> Candidates:
    """The fewest candidates whose probabilities reach p; always at least one."""
    if p >= 1:
        return kept
    probabilities = kept.logits.softmax(0)
    before = probabilities.cumsum(0) - probabilities
    count = int((before < p).sum().clamp(min=1))
    return Candidates(kept.logits[:count], kept.ids[:count])


def min_p(kept: Candidates, p: float) -> Candidates:
    """Candidates at least p times as likely as the best."""
    if p == 0:
        return kept
    count = int(((kept.logits - kept.logits[0]).exp() >= p).sum().clamp(min=1))
    return Candidates(kept.logits[:count], kept.ids[:count])


def token_logprob(logits: Tensor, token: int, alternatives: int | None) -> TokenLogprob | None:
    """What the model itself made of ``token``; None where nobody asks."""
    if alternatives is None:
        return None
    logprobs = logits.log_softmax(0)
    values, ids = logprobs.topk(alternatives)
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLogprob(token, float(logprobs[token]), top)
