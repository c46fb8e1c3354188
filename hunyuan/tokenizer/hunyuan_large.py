"""Hunyuan-Large's own layout: a tiktoken rank file, with specials and template from the paper.

The specification (section 9) gives 127,957 ranks followed by 209 special tokens; a rank file of
another length is followed by the same specials. Text is NFC-normalised, then cut like Qwen's. The
released tokenizer also puts a start and an end token around plain text and turns specials typed by
a user into tokens; here neither happens.

The template (section 10.2) has no generation prompt: a prompt simply ends where the user's turn
does. An empty system text counts as none.
"""

import base64
import binascii
import unicodedata
from collections.abc import Collection
from pathlib import Path

import tiktoken

from hunyuan.errors import BadDataError
from hunyuan.tokenizer.folder import read_settings
from hunyuan.tokenizer.markup import SpecialToken
from hunyuan.tokenizer.pre_tokenizers import HUNYUAN_PATTERN
from hunyuan.tokenizer.tokenizer import Tokenizer

_SPECIALS = (
    *("<|endoftext|>", "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>"),
    *(f"<|extra_{n}|>" for n in range(204)),
)
_STOPS = ("<|eos|>", "<|extra_5|>")

CHAT_TEMPLATE = """\
{%- if tools %}{{ raise_exception('this template has no place for tools') }}{% endif -%}
{%- set state = namespace(open=false) -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {%- if not loop.first %}{{ raise_exception('a system message must come first') }}{% endif -%}
    {%- if message.content -%}
      {{- '<|startoftext|>' + message.content + '<|extra_4|>' -}}
      {%- set state.open = true -%}
    {%- endif -%}
  {%- elif message.role == 'user' -%}
    {{- ('' if state.open else '<|startoftext|>') + message.content + '<|extra_0|>' -}}
    {%- set state.open = false -%}
  {%- elif message.role == 'assistant' -%}
    {{- message.content + '<|eos|>' -}}
    {%- set state.open = false -%}
  {%- else -%}
    {{- raise_exception('this template has no role ' + message.role) -}}
  {%- endif -%}
{%- endfor -%}
"""


class Ranks:
    """A `hunyuan.tokenizer.tokenizer.Backend` over tiktoken."""

    prefix_space = False

    def __init__(self, path: Path, ranks: dict[bytes, int]) -> None:
        """``ranks`` are numbered from 0 without gaps; ``path`` is where they came from."""
        self.path = path
        self.tokens = sorted(ranks, key=ranks.__getitem__)
        self.ids: Collection[int] = range(len(ranks))
        self._encoding = tiktoken.Encoding(
            path.stem, pat_str=HUNYUAN_PATTERN, mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, text: str, *, begins: bool) -> list[int]:
        """Ids of ordinary text."""
        return self._encoding.encode_ordinary(unicodedata.normalize("NFC", text))

    def token_bytes(self, id: int) -> bytes:
        """The bytes that the token ``id`` spells."""
        return self.tokens[id]


def from_ranks(folder: Path, path: Path) -> Tokenizer:
    """The tokenizer of a folder whose ranks are in ``path``; raises `BadDataError`."""
    ranks = read_ranks(path)
    specials = [
        SpecialToken(text=text, id=len(ranks) + n, control=True) for n, text in enumerate(_SPECIALS)
    ]
    ids = {special.text: special.id for special in specials}
    settings = read_settings(folder)
    return Tokenizer(
        Ranks(path, ranks),
        specials,
        bos_id=ids["<|startoftext|>"],
        eos_id=ids["<|eos|>"],
        add_bos=False,
        stop_ids={*settings.stop_ids, *(ids[text] for text in _STOPS)},
        roles={
            "bos_token": "<|startoftext|>",
            "eos_token": "<|eos|>",
            "pad_token": "<|pad|>",
        },
        chat_template=settings.chat_template or CHAT_TEMPLATE,
    )


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token bytes to rank, from lines of base64 and a number; raises `BadDataError`."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise BadDataError(
                f"{path}: line {number} is not 'base64 rank'; fetch the file again",
                f"{path}：第 {number} 行不是“base64 序号”；请重新获取该文件",
            ) from error
    complete = all(bytes([byte]) in ranks for byte in range(256))
    if not complete or sorted(ranks.values()) != list(range(len(ranks))):
        raise BadDataError(
            f"{path}: {len(ranks)} ranks are incomplete: all 256 bytes and each rank from 0 must "
            "occur once; fetch the file again",
            f"{path}：{len(ranks)} 个序号不完整：必须包含全部 256 个字节，且序号从 0 起连续不重复；"
            "请重新获取该文件",
        )
    return ranks
