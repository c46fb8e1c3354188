"""How much each input column of each matrix matters: the mean square of what it is multiplied by.

An error e in column c of a matrix changes its outputs by e * x_c, so the expected squared error is
weighted by the mean of x_c^2 over real text. Blocks are read, run over all of the text and dropped
one by one, so memory is that of a block, of one expert and of the text's hidden states.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from hunyuan.checkpoint.checkpoint import Checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.checkpoint.load import tokenizer_of
from hunyuan.checkpoint.quantize import Scheme
from hunyuan.checkpoint.streamed import streamed_hidden
from hunyuan.errors import UsageError

WINDOW = 512
"""Tokens that see each other."""

WINDOWS = 8
"""How many windows of a text are used."""

RANDOM_WINDOWS = 4
"""How many windows of random tokens are used."""

# An expert's own statistics count as much as those of its layer at this many tokens.
_PRIOR_TOKENS = 64


def importance(checkpoint: Checkpoint, scheme: Scheme, text: Path | None) -> dict[str, Tensor]:
    """Weights (columns,) of the squared errors in each matrix, relative to their mean.

    For q4 from random tokens, which reach the columns that every token drives hard; with a text,
    from both alike, as either alone serves worse. At eight bits and without a text there are none:
    weighting gains nothing then that can be measured.
    """
    if text is None and scheme == "q8":
        return {}
    windows = [random_windows(checkpoint.config.vocab)]
    if text is not None:
        windows.append(read_windows(checkpoint, text))
    total: dict[str, Tensor] = {}
    for ids in windows:
        for leaf, squares in calibrate(checkpoint, ids).items():
            relative = squares / squares.mean().clamp(min=1e-30)
            total[leaf] = total[leaf] + relative if leaf in total else relative
    return total


def random_windows(vocab: int) -> Tensor:
    """The same random ids (RANDOM_WINDOWS, WINDOW) every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocab, (RANDOM_WINDOWS, WINDOW), generator=generator)


def read_windows(checkpoint: Checkpoint, text: Path) -> Tensor:
    """The first tokens of a text file: ids (windows, WINDOW), or (1, T) of a short one."""
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(
            f"--calibration {text}: cannot be read ({reason}); give a text file",
            f"--calibration {text}：无法读取（{reason}）；请指定一个文本文件",
        ) from error
    # A token is a byte or more, and seldom more than eight.
    ids = torch.tensor(tokenizer_of(checkpoint).encode(content[: 8 * WINDOW * WINDOWS]))
    if len(ids) == 0:
        raise UsageError(
            f"--calibration {text}: the file is empty; give a text file",
            f"--calibration {text}：文件为空；请指定一个文本文件",
        )
    count = min(len(ids) // WINDOW, WINDOWS)
    return ids[: count * WINDOW].view(count, WINDOW) if count else ids[None]


def calibrate(checkpoint: Checkpoint, ids: Tensor) -> dict[str, Tensor]:
    """Ids (B, T) -> the mean squared input of every column of every matrix, (columns,) float32.

    Embeddings have no entry, being looked up and not multiplied; a head tied to one neither.
    """
    seen: dict[str, _Squares] = {}

    def hear(leaf: str, x: Tensor) -> None:
        seen[leaf] = _Squares.of(x)

    hidden = streamed_hidden(checkpoint, ids, hear)
    if not checkpoint.config.tied:
        hear("lm_head.weight", hidden)
    found = {leaf: s.total / s.tokens for leaf, s in seen.items() if expert_leaf(leaf) is None}
    banks: dict[tuple[str, str], list[str]] = {}
    for leaf in leaves(checkpoint.config):
        if part := expert_leaf(leaf):
            banks.setdefault((part.bank, part.projection), []).append(leaf)
    for members in banks.values():
        found |= _shrunk(members, seen)
    return found


class _Squares(NamedTuple):
    """The sum of x^2 by column, over ``tokens`` tokens."""

    total: Tensor
    tokens: int

    @classmethod
    def of(cls, x: Tensor) -> "_Squares":
        flat = x.flatten(0, -2)
        return cls(flat.square().sum(0), len(flat))


def _shrunk(members: list[str], seen: Mapping[str, _Squares]) -> dict[str, Tensor]:
    """Each expert's mean, pulled towards that of the layer: few tokens say little, or none."""
    heard = [seen[leaf] for leaf in members if leaf in seen]
    whole = torch.stack([s.total for s in heard]).sum(0) / sum(s.tokens for s in heard)
    nothing = _Squares(torch.zeros_like(whole), 0)
    return {
        leaf: (s.total + _PRIOR_TOKENS * whole) / (s.tokens + _PRIOR_TOKENS)
        for leaf in members
        for s in [seen.get(leaf, nothing)]
    }
