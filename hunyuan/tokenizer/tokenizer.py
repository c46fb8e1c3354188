"""The tokenizer everybody uses: text to ids and back, conversations to prompts.

One class over two small backends (byte pairs of Hugging Face or GGUF files, tiktoken ranks). A
backend only knows ordinary text; every special token lives here, so what a user types can never
become one: `Tokenizer.encode` does not look for them, `Tokenizer.encode_markup` does, and
`Tokenizer.chat_prompt` finds those a template wrote but none that a message contained.

Cost: encoding runs at the backend's native speed, decoding is a dictionary lookup per token. A
`Tokenizer` is immutable and may be shared by threads; a `StreamDecoder` belongs to one answer.
"""

import codecs
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

from hunyuan.errors import UsageError
from hunyuan.tokenizer.chat import map_texts, plain_messages, plain_switches, plain_tools, texts_of
from hunyuan.tokenizer.markup import Markup, SpecialToken, choose_guard, remove_guard
from hunyuan.tokenizer.template import ChatTemplate


class Backend(Protocol):
    """A vocabulary of ordinary text."""

    @property
    def ids(self) -> Collection[int]:
        """Every id that stands for ordinary text."""

    @property
    def prefix_space(self) -> bool:
        """Whether a space is put before a text, to be taken off again in decoding."""

    def encode(self, text: str, *, begins: bool) -> list[int]:
        """Ids of ``text``, in which nothing is special; ``begins``: no special token precedes."""

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one of `ids`."""


class Tokenizer:
    """Text to token ids and back; see the module for what makes it safe."""

    def __init__(
        self,
        backend: Backend,
        specials: Iterable[SpecialToken],
        *,
        bos_id: int | None,
        eos_id: int | None,
        add_bos: bool,
        stop_ids: Iterable[int],
        roles: Mapping[str, str],
        chat_template: str | None,
    ) -> None:
        """``roles`` gives the texts a template may ask for: ``bos_token``, ``eos_token``, ..."""
        self.backend = backend
        self.special_tokens = tuple(sorted(specials, key=lambda special: special.id))
        self.specials: Mapping[str, int] = MappingProxyType(
            {special.text: special.id for special in self.special_tokens}
        )
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.add_bos = add_bos and bos_id is not None
        self.stop_ids = frozenset(stop_ids)
        self.roles = MappingProxyType(dict(roles))
        self.chat_template = chat_template
        self._special_bytes = {s.id: s.text.encode() for s in self.special_tokens}
        self._hidden = frozenset(s.id for s in self.special_tokens if s.control)
        self._defined = frozenset(backend.ids) | self._special_bytes.keys()
        self.vocab_size = max(self._defined, default=-1) + 1
        """The highest defined id + 1; ids below it may still be undefined."""

    def undefined_ids(self, rows: int) -> list[int]:
        """Ids below ``rows``, the height of the embedding, that are no token.

        A sampler must never choose one of them: they are padding.
        """
        return [id for id in range(rows) if id not in self._defined]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing in it becomes a special token, and no bos is added."""
        return self.backend.encode(_valid_unicode(text), begins=True) if text else []

    def encode_markup(self, text: str) -> list[int]:
        """Ids of a text in which special tokens count; for rendered templates, not for users."""
        return self._encode_pieces(self._markup.split(text))

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of the prompt of a plain completion: `encode`, after bos where the model has one."""
        ids = self.encode(text)
        return [self.bos_id, *ids] if self.add_bos and self.bos_id is not None else ids

    def decode(
        self, ids: Sequence[int], *, skip_specials: bool = True, after_text: bool = False
    ) -> str:
        """Text of ``ids``; invalid UTF-8 becomes U+FFFD.

        ``skip_specials`` leaves control tokens out (tool and thinking tags are text to see).
        ``after_text``: the ids continue a text, so a vocabulary that puts a space before a text
        keeps it. Raises `UsageError` for an undefined id.
        """
        shown = (id for id in ids if not (skip_specials and id in self._hidden))
        text = b"".join(map(self.token_bytes, shown)).decode("utf-8", "replace")
        return text if after_text or not self.backend.prefix_space else text.removeprefix(" ")

    def token_bytes(self, id: int) -> bytes:
        """The bytes of one token, of a special its literal text; `UsageError` if undefined."""
        special = self._special_bytes.get(id)
        if special is not None:
            return special
        if id not in self._defined:
            raise UsageError(
                f"token id {id}: not in the vocabulary of {self.vocab_size}; use ids the tokenizer "
                "gave",
                f"词元编号 {id}：不在大小为 {self.vocab_size} 的词表中；请使用分词器给出的编号",
            )
        return self.backend.token_bytes(id)

    def is_control(self, id: int) -> bool:
        """Whether a token bounds texts or turns and is not shown."""
        return id in self._hidden

    def stream_decoder(self, *, after_text: bool = False) -> "StreamDecoder":
        """A decoder for one answer, token by token; ``after_text`` as in `decode`."""
        return StreamDecoder(self, after_text)

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of a conversation, up to where the assistant's answer begins.

        With ``continue_final_message`` up to the end of the last message's text instead, which
        nothing closes. ``variables`` are switches of the template, such as ``enable_thinking``.
        Raises `UsageError` for malformed messages, a failing template, or a model without one.
        """
        if continue_final_message:
            rendered, guard = self._render_unclosed(messages, tools, variables)
        else:
            rendered, guard = self._render(messages, add_generation_prompt, tools, variables)
        pieces: list[str | SpecialToken] = []
        for piece in self._markup.split(rendered):
            pieces.append(remove_guard(piece, guard) if isinstance(piece, str) else piece)
        return self._encode_pieces(pieces)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of `chat_prompt`, for display; specials of template and user look alike."""
        return remove_guard(*self._render(messages, add_generation_prompt, tools, variables))

    def _render_unclosed(
        self, messages: object, tools: object, switches: Mapping[str, Any] | None
    ) -> tuple[str, str]:
        """The conversation up to the end of its last text, however a template would go on."""
        plain = plain_messages(messages)
        text = plain[-1]["content"]
        if text is None:
            raise UsageError(
                "continue_final_message: the last message has no text to continue",
                "continue_final_message：最后一条消息没有可续写的文本",
            )
        others = (*texts_of(plain_tools(tools)), *texts_of(plain_switches(switches)))
        mark = choose_guard([*texts_of(plain), *others, self.chat_template or ""])
        plain[-1]["content"] = text + mark
        rendered, guard = self._render(plain, False, tools, switches)
        before, found, _ = rendered.rpartition(mark)
        if not found:
            raise UsageError(
                "continue_final_message: this model's chat template does not show the last message "
                "as it is",
                "continue_final_message：该模型的对话模板不会原样给出最后一条消息",
            )
        return before, guard

    def _render(
        self,
        messages: object,
        add_generation_prompt: bool,
        tools: object,
        switches: Mapping[str, Any] | None,
    ) -> tuple[str, str]:
        plain, plain_tool_list = plain_messages(messages), plain_tools(tools)
        switches = plain_switches(switches)
        texts = [*texts_of(plain), *texts_of(plain_tool_list), *texts_of(switches), *self.specials]
        guard = choose_guard([*texts, self.chat_template or ""])

        def from_model(text: str, whole: bool) -> str:
            return self._markup.shield(text, guard, by_model=True, whole=whole)

        def from_others(text: str, whole: bool) -> str:
            return self._markup.shield(text, guard, by_model=False, whole=whole)

        variables = {
            **map_texts(switches, from_others),
            **self.roles,
            "messages": [
                map_texts(message, from_model if message["role"] == "assistant" else from_others)
                for message in plain
            ],
            "tools": map_texts(plain_tool_list, from_others),
            "add_generation_prompt": add_generation_prompt,
        }
        return self._template.render(variables, sum(map(len, texts))), guard

    @cached_property
    def _template(self) -> ChatTemplate:
        if self.chat_template is None:
            raise UsageError(
                "this model has no chat template; use plain completion with a prompt",
                "该模型没有对话模板；请改用普通续写并直接给出提示文本",
            )
        return ChatTemplate(self.chat_template)

    @cached_property
    def _markup(self) -> Markup:
        return Markup(self.special_tokens)

    def _encode_pieces(self, pieces: Iterable[str | SpecialToken]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, SpecialToken):
                ids.append(piece.id)
            elif piece:
                ids += self.backend.encode(_valid_unicode(piece), begins=not ids)
        return ids


class StreamDecoder:
    """Text of an answer while it is made: whole characters only, in total what `decode` gives."""

    def __init__(self, tokenizer: Tokenizer, after_text: bool) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = tokenizer.backend.prefix_space and not after_text

    def push(self, id: int) -> str:
        """The text that ``id`` completes, maybe none."""
        if self._tokenizer.is_control(id):
            return ""
        return self._without_prefix(self._utf8.decode(self._tokenizer.token_bytes(id)))

    def flush(self) -> str:
        """What is left of an incomplete character, at the end."""
        return self._without_prefix(self._utf8.decode(b"", final=True))

    def _without_prefix(self, text: str) -> str:
        if self._drop_space and text:
            self._drop_space = False
            return text.removeprefix(" ")
        return text


def _valid_unicode(text: str) -> str:
    """``text`` with lone surrogates, which JSON can smuggle in, as U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
