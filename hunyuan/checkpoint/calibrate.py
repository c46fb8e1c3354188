"""How much each input column of each matrix matters: the mean square of what it is multiplied by.

An error e in column c of a matrix changes its outputs by e * x_c, so the expected squared error is
weighted by the mean of x_c^2 over real text. Blocks are read, run over all of the text and dropped
one by one, so memory is that of a block, of one expert and of the text's hidden states.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hunyuan.checkpoint.checkpoint import Checkpoint
from hunyuan.checkpoint.leaves import expert_leaf, leaves
from hunyuan.checkpoint.load import tokenizer_of
from hunyuan.checkpoint.quantize import Scheme
from hunyuan.errors import UsageError
from hunyuan.model.config import Routing
from hunyuan.model.layers import RMSNorm
from hunyuan.model.moe import MoE
from hunyuan.model.transformer import Block, Decoder, build

WINDOW = 512
"""Tokens that see each other."""

WINDOWS = 8
"""How many windows of a text are used."""

RANDOM_WINDOWS = 4
"""How many windows of random tokens are used."""

# An expert's own statistics count as much as those of its layer at this many tokens.
_PRIOR_TOKENS = 64

_EMBEDDING_ROWS = 4096


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
    config = replace(checkpoint.config, routing=Routing())
    decoder: Decoder = build(config).model
    found: dict[str, Tensor] = {}
    decoder.layers = _Blocks(checkpoint, decoder.layers, found)  # type: ignore[assignment]
    decoder.norm = RMSNorm(config.hidden, config.norm_eps)
    decoder.embed_tokens = _Embedding(checkpoint)  # type: ignore[assignment]
    with torch.inference_mode():
        decoder.norm.weight.copy_(checkpoint.read("model.norm.weight"))
        hidden, _ = decoder(ids)
    if not config.tied:
        found["lm_head.weight"] = _Squares.of(hidden).mean
    return found


class _Embedding(nn.Module):
    """Reads the embedding in slices, keeping the rows of the tokens at hand."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def forward(self, ids: Tensor) -> Tensor:
        config = self._checkpoint.config
        out = torch.empty(*ids.shape, config.hidden)
        for start in range(0, config.vocab, _EMBEDDING_ROWS):
            rows = slice(start, min(start + _EMBEDDING_ROWS, config.vocab))
            inside = (ids >= rows.start) & (ids < rows.stop)
            if bool(inside.any()):
                part = self._checkpoint.read("model.embed_tokens.weight", rows=rows)
                out[inside] = part[ids[inside] - rows.start]
        return out


@dataclass(frozen=True)
class _Squares:
    """The sum of x^2 by column, over ``tokens`` tokens."""

    total: Tensor
    tokens: int

    @classmethod
    def of(cls, x: Tensor) -> "_Squares":
        flat = x.flatten(0, -2)
        return cls(flat.square().sum(0), len(flat))

    @property
    def mean(self) -> Tensor:
        return self.total / max(1, self.tokens)


class _Blocks(nn.Module):
    """Yields each block filled from the checkpoint, listening to its matrices."""

    def __init__(
        self, checkpoint: Checkpoint, blocks: nn.ModuleList, found: dict[str, Tensor]
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._blocks = blocks
        self._found = found

    def __iter__(self) -> Iterator[Block]:
        for i, empty in enumerate(self._blocks):
            assert isinstance(empty, Block)
            prefix = f"model.layers.{i}."
            if isinstance(empty.mlp, MoE):
                experts = _Experts(self._checkpoint, f"{prefix}mlp.experts.", self._found)
                empty.mlp.experts = experts  # type: ignore[assignment]
            names = [
                leaf
                for leaf in leaves(self._checkpoint.config)
                if leaf.startswith(prefix) and expert_leaf(leaf) is None
            ]
            state = {leaf.removeprefix(prefix): self._checkpoint.read(leaf) for leaf in names}
            empty.load_state_dict(state, assign=True)
            del state
            for name, module in empty.named_modules():
                if isinstance(module, nn.Linear):
                    module.register_forward_pre_hook(partial(self._listen, f"{prefix}{name}"))
            yield empty
            empty.to("meta")

    def _listen(self, name: str, module: nn.Module, inputs: tuple[Tensor]) -> None:
        self._found[f"{name}.weight"] = _Squares.of(inputs[0]).mean


class _Experts(nn.Module):
    """An expert bank that reads an expert when it has tokens, and drops it."""

    def __init__(self, checkpoint: Checkpoint, prefix: str, found: dict[str, Tensor]) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._prefix = prefix
        self._found = found

    def forward(self, x_sorted: Tensor, counts: Tensor) -> Tensor:
        outputs, outer, inner = [], [], []
        for expert, x in enumerate(torch.split(x_sorted, counts.tolist())):
            h = torch.zeros(0, self._checkpoint.config.ffn)
            if len(x):
                h = F.silu(self._project(x, expert, "gate_proj"))
                h = h * self._project(x, expert, "up_proj")
                outputs.append(self._project(h, expert, "down_proj"))
            outer.append(_Squares.of(x))
            inner.append(_Squares.of(h))
        for expert, mean in enumerate(_shrunk(outer)):
            for projection in ("gate_proj", "up_proj"):
                self._found[f"{self._prefix}{expert}.{projection}.weight"] = mean
        for expert, mean in enumerate(_shrunk(inner)):
            self._found[f"{self._prefix}{expert}.down_proj.weight"] = mean
        return torch.cat(outputs)

    def _project(self, x: Tensor, expert: int, projection: str) -> Tensor:
        return F.linear(x, self._checkpoint.read(f"{self._prefix}{expert}.{projection}.weight"))


def _shrunk(parts: list[_Squares]) -> Iterator[Tensor]:
    """Each expert's mean, pulled towards that of the layer: few tokens say little."""
    whole = sum(p.total for p in parts) / sum(p.tokens for p in parts)
    for p in parts:
        yield (p.total + _PRIOR_TOKENS * whole) / (p.tokens + _PRIOR_TOKENS)
