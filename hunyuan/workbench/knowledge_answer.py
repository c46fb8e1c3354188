"""From a question to an answer with citations: search, quote, let the model write, check.

What documents say is shown first, word for word. What the model makes of it stands beneath, with
every sentence checked. Documents are quoted data: they get no tools and cannot leave their frame.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hunyuan.errors import HunyuanError, Language
from hunyuan.knowledge.base import KnowledgeBase
from hunyuan.knowledge.catalogue import Passage
from hunyuan.knowledge.chunks import weight
from hunyuan.knowledge.document import has_pages
from hunyuan.knowledge.extract import Quote, confidence, extract, quoted_first
from hunyuan.knowledge.followup import standalone
from hunyuan.knowledge.search import Found
from hunyuan.knowledge.sentences import Span, flat
from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import ChatRequest
from hunyuan.workbench.cited import Sentence, checked, split_citations
from hunyuan.workbench.language import text_language
from hunyuan.workbench.prompt import pieces
from hunyuan.workbench.spans import utf16_length
from hunyuan.workbench.streaming import Event, error_event
from hunyuan.workbench.templates import Templates

FOUND = 0.5
SURE = 0.75
"""From here on a model that says "not found" is not believed."""

PASSAGES = 8
SHOWN_WEIGHT = 600.0
"""About how many tokens of passages the model reads."""

MAX_TOKENS = 160
ANSWER_FIELDS = {"passages", "earlier", "question"}
PLAIN_FIELDS = {"earlier", "question"}

_MARK_IN_TEXT = re.compile(r"\[(\d+)\]")
_CONTROL = re.compile(r"<(?=[|｜/]|\w+>)|\[(?=/?(?:INST|SYS))", re.IGNORECASE)
_FRAME: dict[Language, tuple[str, str]] = {"en": ("begin", "end"), "zh": ("开始", "结束")}
_FRAME_LEFT = re.compile(r"\s*\[\d+\]\s*(?:begin|end|开始|结束)\s*$")
_NOT_FOUND = re.compile(r"^\W*(?:not found|未找到|没有找到|未提及)", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """What is asked, and what was asked before."""

    text: str
    before: Sequence[str]
    collection: str | None
    lang: Language


class Answerer:
    """Answers questions from a knowledge base with whatever model there is."""

    def __init__(
        self, base: KnowledgeBase, backend: Callable[[], Backend], templates: Templates
    ) -> None:
        self._base = base
        self._backend = backend
        self._templates = templates

    async def events(self, question: Question) -> AsyncGenerator[Event, None]:
        """``progress``, ``passages``, ``delta``s, ``result``, ``done``."""
        if question.collection is None:
            async for event in self._uncited(question):
                yield event
            return
        yield {"type": "progress", "stage": "search"}
        query = standalone(question.text, question.before)
        found, quotes, sure = await asyncio.to_thread(self._look, question.collection, query)
        translation = None
        if sure < FOUND and found.hits:
            translation = await self._translated(question.collection, query, question.lang)
        if translation is not None:
            again = await asyncio.to_thread(self._look, question.collection, translation)
            if again[2] >= FOUND:
                found, quotes, sure = again
            else:
                translation = None
        shown = await asyncio.to_thread(self._shown, found, quotes)
        head = {
            "query": query,
            "translation": translation,
            "mode": found.mode,
            "notice": None if found.error is None else found.error.text(question.lang),
            "confidence": round(sure, 3),
            "passages": [passage for passage, _ in shown],
        }
        cited = [quoted for _, quoteds in shown for quoted in quoteds]
        cited.sort(key=lambda quoted: quoted["rank"])
        if sure < FOUND or not cited:
            yield {"type": "result", "kind": "not_found", **head, "quotes": [], "sentences": []}
            yield {"type": "done"}
            return
        yield {"type": "passages", **head, "quotes": cited}
        yield {"type": "progress", "stage": "write"}
        text, failure = "", None
        given: list[Passage] = []
        try:
            given, request = await self._fitted(question, found, quotes)
            async for piece in self._constrained(request, question.lang):
                text += piece
                yield {"type": "delta", "text": piece}
                if repeats(text):
                    break  # small models go on saying the same
        except HunyuanError as error:
            # What the documents say stands without the model.
            failure = error_event(error, question.lang)["error"]
        text = without_leftovers(text)
        declined = _NOT_FOUND.match(text) is not None
        texts = [passage.text for passage in given]
        written = [] if declined else await asyncio.to_thread(self._check, text, texts)
        kind = "not_found" if declined and sure < SURE else "cited"
        yield {
            "type": "result",
            "kind": kind,
            **head,
            "quotes": cited if kind == "cited" else [],
            "sentences": await asyncio.to_thread(self._sentences, written, given),
            "declined": declined,
            "model_error": failure,
        }
        yield {"type": "done"}

    # ------------------------------------------------------------ steps

    def _look(self, collection: str, query: str) -> tuple[Found, list[Quote], float]:
        """The passages, what is quoted of them, and how likely that answers."""
        found = self._base.search(collection, query, PASSAGES)
        quotes = extract(query, found, self._base.embedder)
        found, quotes = quoted_first(found, quotes)
        meaning = found.vector is not None
        return found, quotes, confidence(query, quotes, meaning=meaning)

    async def _translated(self, collection: str, query: str, lang: Language) -> str | None:
        """The question in the other language, if the collection has documents in that.

        The model translates; None if it fails, for nothing depends on it.
        """
        own = text_language(query)
        other: Language = "en" if own == "zh" else "zh"
        if own is None or other not in await asyncio.to_thread(self._base.languages, collection):
            return None
        template = self._templates.get("knowledge", "translate", other, {"question"})
        request = _chat_request(
            self._backend(), template.messages({"question": query}), template.temperature
        )
        text = ""
        try:
            async for piece in pieces(self._backend(), request, lang):
                text += piece
                if "\n" in text.strip() or len(text) > 4 * len(query) + 100:
                    break
        except HunyuanError:
            return None
        line = text.strip().split("\n")[0]
        return line if text_language(line) == other else None

    def _check(self, text: str, passages: Sequence[str]) -> list[Sentence]:
        return checked(text, passages, self._base.embedder)

    def _request(self, question: Question, passages: Sequence[Passage]) -> ChatRequest:
        language = text_language(question.text) or question.lang
        template = self._templates.get("knowledge", "answer", language, ANSWER_FIELDS)
        framed_passages, mark = framed([passage.text for passage in passages], language)
        messages = template.messages(
            {
                "passages": framed_passages,
                "earlier": plain(question.before[-1]) if question.before else "",
                "question": question.text,
            }
        )
        return _chat_request(
            self._backend(),
            messages,
            template.temperature,
            # A small model may go on with another frame.
            stop=[mark],
            structured_outputs={"grammar": citation_grammar(len(passages))},
        )

    async def _fitted(
        self, question: Question, found: Found, quotes: Sequence[Quote]
    ) -> tuple[list[Passage], ChatRequest]:
        """As many passages as the model can read, at least the best sentence, and the request."""
        backend = self._backend()
        given = _within([hit.passage for hit in found.hits])
        while True:
            request = self._request(question, given)
            context = backend.model.context
            needed = None if context is None else await backend.count_tokens(request)
            if context is None or needed is None or needed + MAX_TOKENS <= context:
                return given, request
            if len(given) > 1:
                given = given[:-1]
                continue
            best = next((q for q in quotes if q.hit == 0), None)
            if best is None or given[0].text == best.text:
                return given, request  # the backend says by how much it is too long
            start, end = best.span
            given = [replace(given[0], start=start, end=end, text=best.text)]

    async def _constrained(self, request: ChatRequest, lang: Language) -> AsyncGenerator[str, None]:
        """The answer; once more without the grammar if a backend does not take that."""
        said = False
        try:
            async for piece in pieces(self._backend(), request, lang):
                said = True
                yield piece
        except HunyuanError:
            if said:
                raise
            free = request.model_copy(update={"structured_outputs": None})
            async for piece in pieces(self._backend(), free, lang):
                yield piece

    async def _uncited(self, question: Question) -> AsyncGenerator[Event, None]:
        language = text_language(question.text) or question.lang
        template = self._templates.get("knowledge", "plain", language, PLAIN_FIELDS)
        earlier = question.before[-1] if question.before else ""
        messages = template.messages({"earlier": earlier, "question": question.text})
        yield {"type": "progress", "stage": "write"}
        text = ""
        request = _chat_request(self._backend(), messages, template.temperature)
        async for piece in pieces(self._backend(), request, question.lang):
            text += piece
            yield {"type": "delta", "text": piece}
        yield {"type": "result", "kind": "uncited", "text": text.strip(), "passages": []}
        yield {"type": "done"}

    # ------------------------------------------------------------ as JSON

    def _shown(
        self, found: Found, quotes: Sequence[Quote]
    ) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each passage with what is quoted of it."""
        shown = []
        for place, hit in enumerate(found.hits):
            page = self._base.page(hit.passage.document.id, hit.passage.page)
            described = {
                **passage_json(hit.passage, place + 1, page),
                "confidence": round(hit.confidence, 3),
            }
            own = [
                {
                    "rank": rank,
                    "passage": place + 1,
                    "text": flat(page[quote.span.start : quote.span.end]),
                    "span": utf16_span(page, quote.span),
                    # The stored page is what a reader will be shown.
                    "verified": page[quote.span.start : quote.span.end].startswith(quote.text),
                }
                for rank, quote in enumerate(quotes)
                if quote.hit == place
            ]
            shown.append((described, own))
        return shown

    def _sentences(
        self, sentences: Sequence[Sentence], passages: Sequence[Passage]
    ) -> list[dict[str, Any]]:
        return [
            {
                "text": sentence.text,
                "status": sentence.status,
                "citations": [
                    {
                        "passage": citation.passage,
                        "span": self._in_page(passages[citation.passage - 1], citation.span),
                        "verified": citation.verified,
                        "added": citation.added,
                    }
                    for citation in sentence.citations
                ],
            }
            for sentence in sentences
        ]

    def _in_page(self, passage: Passage, span: Span | None) -> list[int]:
        page = self._base.page(passage.document.id, passage.page)
        if span is None:
            return utf16_span(page, Span(passage.start, passage.end))
        return utf16_span(page, Span(passage.start + span.start, passage.start + span.end))


def passage_json(passage: Passage, number: int, page: str) -> dict[str, Any]:
    """A passage for the page of the workbench."""
    document = passage.document
    return {
        "number": number,
        "id": passage.id,
        "document": document.id,
        "name": document.name,
        "page": passage.page,
        "pages": document.pages,
        "paged": has_pages(document.kind),
        "heading": passage.heading,
        "span": utf16_span(page, Span(passage.start, passage.end)),
        "text": passage.text,
    }


def utf16_span(text: str, span: Span) -> list[int]:
    """A span as JavaScript counts."""
    start = utf16_length(text[: span.start])
    return [start, start + utf16_length(text[span.start : span.end])]


def framed(passages: Sequence[str], language: Language) -> tuple[str, str]:
    """Passages in numbered frames that nothing inside can end or imitate, and their mark."""
    begin, end = _FRAME[language]
    cleaned = [plain(passage) for passage in passages]
    # A passage would have to contain a piece of its own hash.
    mark = hashlib.sha256("\0".join(cleaned).encode()).hexdigest()[:8]
    frames = [
        f"[{n}] {begin} {mark}\n{passage}\n[{n}] {end} {mark}"
        for n, passage in enumerate(cleaned, start=1)
    ]
    return "\n".join(frames), mark


def repeats(text: str) -> bool:
    """Whether the last whole sentence has been said before."""
    said = [sentence for sentence, _ in split_citations(text)[:-1]]
    return len(said) > len(set(said))


def without_leftovers(text: str) -> str:
    """The answer without the beginning of a frame at its end."""
    return _FRAME_LEFT.sub("", text)


def plain(text: str) -> str:
    """Document text without what looks like our citations or a chat template's control tokens."""
    return _CONTROL.sub(lambda found: found[0] + " ", _MARK_IN_TEXT.sub(r"(\1)", text))


def citation_grammar(passages: int) -> str:
    """A Lark grammar: any text, but a bracket only as the number of a passage that exists."""
    marks = " | ".join(f'"[{n}]"' for n in range(1, passages + 1))
    return f"start: (TEXT | MARK)+\nTEXT: /[^\\[\\]\\n]+/\nMARK: {marks}\n"


def _within(passages: Sequence[Passage]) -> list[Passage]:
    """The first passages as far as `SHOWN_WEIGHT` goes, at least one."""
    kept: list[Passage] = []
    size = 0.0
    for passage in passages:
        size += weight(passage.text)
        if kept and size > SHOWN_WEIGHT:
            break
        kept.append(passage)
    return kept


def _chat_request(
    backend: Backend,
    messages: list[dict[str, Any]],
    temperature: float | None,
    **extra: Any,
) -> ChatRequest:
    return ChatRequest.model_validate(
        {
            "model": backend.model.id,
            "messages": messages,
            "stream": True,
            "max_tokens": MAX_TOKENS,
            "temperature": temperature,
            **extra,
        }
    )
