"""How an action on a text is carried out.

A long text is cut into parts, each small enough for a small model to keep in mind. What the model
answers is cleaned and checked; if it is no good it is asked once more, and if that is no good
either the part stays as it was and the reader is told.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import StructuredOutputs
from hunyuan.workbench import cleaning
from hunyuan.workbench.actions import Job
from hunyuan.workbench.conversation_records import Settings
from hunyuan.workbench.language import text_language
from hunyuan.workbench.parts import (
    Part,
    beginning,
    ending,
    parts_of,
    sentences,
    to_sentence_end,
)
from hunyuan.workbench.prompt import available_tokens, chat_request, count
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.streaming import Event
from hunyuan.workbench.templates import Templates

_ANSWER_TOKENS = {"short": 200, "medium": 450, "long": 900}
_CONTINUATION_TOKENS = {"short": 70, "medium": 180, "long": 400}
_SUMMARY_TOKENS = {"paragraph": 220, "bullets": 260, "line": 70}

_PART_TOKENS = {"polish": 80, "translate": 140, "expand": 160}
_PART_TOKENS_ELSE = 320
"""A small model keeps this much of a text in mind while it rewrites it; it finds more to correct in
a sentence or two than in a page."""

_READ_TOKENS = 1200
"""And this much while it reads."""

_AROUND = 160
"""Characters before and after a selection that are shown to the model."""


class Runner:
    """Carries out actions with the model at hand."""

    def __init__(self, backend: Callable[[], Backend], templates: Templates) -> None:
        self._backend = backend
        self._templates = templates

    def check(self, job: Job) -> None:
        """Raise `UsageError` if the action's template is no good, before anything is streamed."""
        self._templates.get("writing", job.action.name, job.language, job.action.template_fields)

    async def run(self, job: Job) -> AsyncGenerator[Event, None]:
        """The events of an action, up to ``result`` and ``done``."""
        work = _Work(self._backend(), self._templates, job)
        steps = {"summarise": work.summarise, "brainstorm": work.items, "title": work.items}
        step = steps.get(job.action.name)
        if step is None:
            step = work.insert if job.action.result == "insert" else work.replace
        async with contextlib.aclosing(step()) as events:
            async for event in events:
                yield event
        yield {
            "type": "result",
            "action": job.action.name,
            "original": job.source,
            "replacement": work.result,
            "span": list(job.span),
            "items": work.found,
            "language": job.language,
            "notes": job.notes,
            "usage": work.usage(),
        }
        yield {"type": "done"}


class _Work:
    """One action under way; `result` is its outcome."""

    def __init__(self, backend: Backend, templates: Templates, job: Job) -> None:
        self._backend = backend
        self._job = job
        self._templates = templates
        self._template = templates.get(
            "writing", job.action.name, job.language, job.action.template_fields
        )
        self.result = ""
        self.found: list[str] | None = None
        self._answer = ""
        self._cut = self._looped = False
        self._begun = time.monotonic()
        self._prompt_tokens = 0
        self._answer_tokens = 0
        self._answer_seconds = 0.0

    def usage(self) -> dict[str, Any]:
        """Sums over all requests."""
        rate = None
        if self._answer_seconds > 0:
            rate = round(self._answer_tokens / self._answer_seconds, 2)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._answer_tokens,
            "tokens_per_second": rate,
            "seconds": round(time.monotonic() - self._begun, 3),
        }

    async def replace(self) -> AsyncGenerator[Event, None]:
        """A new version of the source, part by part."""
        job = self._job
        wanted = _PART_TOKENS.get(job.action.name, _PART_TOKENS_ELSE)
        parts = await parts_of(job.source, await self._room(wanted), self._tokens)
        for number, part in enumerate(parts, 1):
            yield {"type": "progress", "part": number, "parts": len(parts), "stage": "write"}
            text = part.text
            if not part.empty:
                async for event in self._version(parts, number):
                    yield event
                text = self._answer
            self.result += part.lead + text + part.trail
        if len(parts) > 1 and self.result == job.source:
            job.note("unchanged")

    async def _version(self, parts: list[Part], number: int) -> AsyncGenerator[Event, None]:
        """A new version of one part in `_answer`: the first that is good, or else the old one."""
        job, part = self._job, parts[number - 1]
        name = job.action.name
        before, after = self._around(parts, number)
        messages = self._messages(
            {
                "text": part.text,
                "before": before,
                "after": after,
                "target": _target(name, part.text),
            }
        )
        tokens = await self._tokens(part.text)
        limit = {"expand": 3 * tokens + 120, "shorten": tokens + 16, "translate": 3 * tokens + 48}
        strange: str | None = None
        kind = ""
        wrong: cleaning.Fault | None = None
        for attempt in range(2):
            if attempt:
                yield {"type": "restart", "part": number, "reason": wrong}
            async for event in self._say(
                messages, limit.get(name, 2 * tokens + 48), number, part.text, attempt, wrong
            ):
                yield event
            answer = cleaning.cleaned(self._answer, part.text)
            wrong = "cut" if self._cut or self._looped else self._fault(part.text, answer)
            if wrong == "unchanged" and name == "polish" and len(parts) > 1:
                wrong = None  # a good sentence among others
            if wrong is None:
                break
            if wrong in ("length", "untranslated") and answer:
                strange, kind = answer, wrong
        if wrong is not None:
            # A version of a strange length is shown, for it may be right.
            job.note(wrong if strange is None else kind, number)
            answer = part.text if strange is None else strange
        if answer != part.text and name != "expand":
            both_ways = name in ("polish", "rewrite")
            self._check_numbers(part.text, answer, both_ways=both_ways, part=number)
        self._answer = answer

    def _check_numbers(self, original: str, answer: str, *, both_ways: bool, part: int = 1) -> None:
        if numbers := cleaning.changed_numbers(original, answer, both_ways=both_ways):
            self._job.note("numbers", part, ", ".join(numbers[:8]))

    def _fault(self, original: str, answer: str) -> cleaning.Fault | None:
        name = self._job.action.name
        if self._copied(answer):
            return "copied"
        if name == "translate" and cleaning.untranslated(original, answer, self._job.language):
            return "untranslated"
        if name == "rewrite" and cleaning.hardly_changed(original, answer):
            return "unchanged"
        return cleaning.fault(
            original,
            answer,
            self._job.language,
            shorter=name == "shorten",
            longer=name == "expand",
            same_length=name in ("polish", "rewrite", "translate"),
        )

    async def insert(self) -> AsyncGenerator[Event, None]:
        """New text at the cursor."""
        job = self._job
        draft = job.action.name == "draft"
        length = job.values["length"]
        text = "" if draft else await self._read_end(job.text[: job.end])
        messages = self._messages({"text": text})
        limit = (_ANSWER_TOKENS if draft else _CONTINUATION_TOKENS)[length]
        yield {"type": "progress", "part": 1, "parts": 1, "stage": "write"}
        wrong: cleaning.Fault | None = None
        for attempt in range(2):
            if attempt:
                yield {"type": "restart", "part": 1, "reason": wrong}
            async for event in self._say(messages, limit, 1, text, attempt, wrong):
                yield event
            self.result = cleaning.cleaned(self._answer, text)
            if not draft:
                self.result = cleaning.without_overlap(text, self.result).lstrip()
            wrong = cleaning.fault("", self.result, job.language)
            said_before = not draft and self._answer and not self.result
            if said_before or (wrong is None and cleaning.repeats(text, self.result)):
                wrong = "repeated"
            if self._copied(self.result):
                self.result, wrong = "", "copied"
            if wrong is None:
                break
        if wrong is not None:
            job.note(wrong, 1)
            if wrong == "wrong_language":
                job.notes[-1]["text"] = _ANSWERED_OTHERWISE[job.lang == "zh"]
        if self._looped:
            job.note("loop", 1)
        if self._cut:
            whole_sentences = to_sentence_end(self.result)
            if draft or not whole_sentences:
                job.note("limit", 1)
            else:
                self.result = whole_sentences
        if draft and wrong is None:
            self._check_numbers(job.values["brief"], self.result, both_ways=True)
        if not draft:
            self.result = _joined(job.text[: job.end], self.result)

    async def summarise(self) -> AsyncGenerator[Event, None]:
        """A summary; of a long text, of the summaries of its parts."""
        job = self._job
        style = job.values["style"]
        text = job.source
        room = await self._room(_READ_TOKENS)
        while True:
            parts = [p for p in await parts_of(text, room, self._tokens) if not p.empty]
            if len(parts) <= 1:
                break
            shorter: list[str] = []
            for number, part in enumerate(parts, 1):
                yield {"type": "progress", "part": number, "parts": len(parts), "stage": "read"}
                messages = self._messages({"style": "paragraph", "text": part.text})
                async for event in self._good(messages, 120, number, part.text, preview=False):
                    yield event
                shorter.append(self._answer)
            joined = "\n\n".join(filter(None, shorter))
            if len(joined) >= len(text):  # it does not converge; the beginnings must do
                joined = "\n\n".join(beginning(part, 200) for part in shorter)
            if not joined or len(joined) >= len(text):
                break
            text = joined
        stage = "write" if text == job.source else "combine"
        yield {"type": "progress", "part": 1, "parts": 1, "stage": stage}
        messages = self._messages({"style": style, "text": text.strip()})
        async for event in self._good(messages, _SUMMARY_TOKENS[style], 1, text):
            yield event
        self.result = self._answer
        if style == "line":
            self.result = next(iter(sentences(" ".join(self.result.split()))), "")
        elif style == "bullets":
            items = cleaning.listed(self.result, 12)
            if len(items) == 1:
                items = sentences(items[0])
            self.result = "\n".join(f"- {item}" for item in items)
        self._check_numbers(job.source, self.result, both_ways=False)

    async def items(self) -> AsyncGenerator[Event, None]:
        """A list: ideas or titles."""
        job = self._job
        wanted = int(job.values["count"])
        source = job.values.get("topic") or await self._read_beginning(job.source)
        messages = self._messages({"text": source})
        limit = (24 if job.action.name == "title" else 48) * wanted + 32
        yield {"type": "progress", "part": 1, "parts": 1, "stage": "write"}
        items: list[str] = []
        for attempt in range(2):
            if attempt:
                yield {"type": "restart", "part": 1, "reason": "empty"}
            async for event in self._say(messages, limit, 1, source, attempt):
                yield event
            fresh = cleaning.listed(self._answer, wanted)
            if self._cut and len(fresh) > 1:
                fresh.pop()
            fresh = [
                item
                for item in fresh
                if text_language(item) in (job.language, None) and not self._copied(item)
            ]
            if attempt:
                fresh = [item for item in fresh if item not in items]
            items = (items + fresh)[:wanted]
            if len(items) == wanted:
                break
        if not items:
            job.note("empty", 1)
        elif len(items) < wanted:
            job.note("fewer", 1, str(len(items)))
        self.found = items
        self.result = "\n".join(f"- {item}" for item in items)

    # ------------------------------------------------------------ one answer

    def _copied(self, answer: str) -> bool:
        """Whether a very small model took one of the examples for the task."""
        examples = (example.assistant for example in self._template.examples)
        return len(answer) >= 8 and any(cleaning.repeats(text, answer) for text in examples)

    def _messages(self, values: Mapping[str, str]) -> list[dict[str, Any]]:
        blank = {"before": "", "after": "", "target": "", "text": ""}
        return self._template.messages({**blank, **self._job.values, **values})

    async def _good(
        self,
        messages: list[dict[str, Any]],
        limit: int,
        part: int,
        original: str,
        *,
        preview: bool = True,
    ) -> AsyncGenerator[Event, None]:
        """An answer in the right language in `_answer`, or a note why there is none."""
        wrong: cleaning.Fault | None = None
        for attempt in range(2):
            if attempt and preview:
                yield {"type": "restart", "part": part, "reason": wrong}
            async for event in self._say(messages, limit, part, original, attempt, wrong):
                if preview:
                    yield event
            self._answer = cleaning.cleaned(self._answer, original)
            if self._cut:
                self._answer = to_sentence_end(self._answer) or self._answer
            wrong = cleaning.fault(original, self._answer, self._job.language)
            if self._copied(self._answer):
                self._answer, wrong = "", "copied"
            if wrong is None:
                return
        assert wrong is not None
        self._job.note(wrong, part)
        if wrong == "wrong_language":
            self._job.notes[-1]["text"] = _ANSWERED_OTHERWISE[self._job.lang == "zh"]

    async def _say(
        self,
        messages: list[dict[str, Any]],
        limit: int,
        part: int,
        original: str,
        attempt: int,
        wrong: cleaning.Fault | None = None,
    ) -> AsyncGenerator[Event, None]:
        """One request; what was said is in `_answer`, whether it hit the limit in `_cut`.

        ``wrong`` is what was wrong with the ``attempt`` before.
        """
        temperature = 0.3 if self._template.temperature is None else self._template.temperature
        settings = Settings(
            max_tokens=limit,
            temperature=min(temperature + 0.4 * attempt, 1.2),
            frequency_penalty=self._template.frequency_penalty,
            repetition_penalty=self._template.repetition_penalty,
        )
        request = chat_request(self._backend, messages, settings)
        if wrong in ("wrong_language", "untranslated") and self._backend.model.local:
            # A grammar holds a model to its language; not every server elsewhere knows them.
            pattern = cleaning.language_pattern(original, self._job.language)
            request.structured_outputs = StructuredOutputs.model_validate({"regex": pattern})
        preview = cleaning.Preview(original)
        self._answer, self._cut, self._looped = "", False, False
        first: float | None = None
        async with contextlib.aclosing(self._backend.stream(request, self._job.lang)) as stream:
            async for chunk in stream:
                if usage := chunk.get("usage"):
                    self._prompt_tokens += usage.get("prompt_tokens") or 0
                    self._answer_tokens += usage.get("completion_tokens") or 0
                for choice in chunk.get("choices") or ():
                    self._cut = self._cut or choice.get("finish_reason") == "length"
                    said = (choice.get("delta") or {}).get("content") or ""
                    if not said:
                        continue
                    first = first or time.monotonic()
                    self._answer += said
                    if shown := preview.take(said):
                        yield {"type": "delta", "part": part, "text": shown}
                if cleaning.loops(self._answer):
                    self._answer = cleaning.without_loop(self._answer)
                    self._looped = True
                    break
        if first is not None:
            self._answer_seconds += time.monotonic() - first
        if shown := preview.rest():
            yield {"type": "delta", "part": part, "text": shown}

    # ------------------------------------------------------------ what the model reads

    def _around(self, parts: list[Part], number: int) -> tuple[str, str]:
        """The text before and after a part, as far as it helps to understand it."""
        job = self._job
        before = job.text[: job.start] + "".join(
            part.lead + part.text + part.trail for part in parts[: number - 1]
        )
        after = "".join(part.lead + part.text + part.trail for part in parts[number:])
        after += job.text[job.end :]
        plain = ending(before, _AROUND), beginning(after, _AROUND)
        return " ".join(plain[0].split()), " ".join(plain[1].split())

    async def _room(self, wanted: int) -> int:
        """Tokens of text a request may have, at most ``wanted``, beside template and answer."""
        empty = self._messages({"before": "x", "after": "x", "target": "x", "text": "x"})
        overhead = await count(self._backend, empty) or 400
        available = available_tokens(self._backend, Settings(max_tokens=1))
        if available is None:
            return wanted
        around = 2 * _AROUND
        room = min(wanted, (available - overhead - around) // 4)
        if room < 32:
            raise RefusedError(
                f"the context of {self._backend.model.context} tokens is too small for this "
                "action; use a model with a larger context",
                f"上下文仅 {self._backend.model.context} 个词元，不足以执行此操作；"
                "请换用上下文更大的模型",
                code="context_length_exceeded",
            )
        return room

    async def _tokens(self, text: str) -> int:
        turns = [{"role": "user", "content": text}]
        tokens = await count(self._backend, turns)
        return len(text.encode()) // 3 if tokens is None else tokens

    async def _read_end(self, text: str) -> str:
        room = await self._room(_READ_TOKENS)
        characters = len(text)
        while characters > 200 and await self._tokens(ending(text, characters)) > room:
            characters = characters * 3 // 4
        return ending(text, characters)

    async def _read_beginning(self, text: str) -> str:
        room = await self._room(_READ_TOKENS)
        characters = len(text)
        while characters > 200 and await self._tokens(beginning(text, characters)) > room:
            characters = characters * 3 // 4
        if characters < len(text):
            self._job.note("excerpt", None, f"{characters} / {len(text)}")
        return beginning(text, characters)


_ANSWERED_OTHERWISE = ("The model answered in the other language.", "模型用了另一种语言回答。")


def _target(action: str, text: str) -> str:
    """How long a shorter or longer version is to be, in the words or characters of its language."""
    share = {"shorten": 0.5, "expand": 2.0}.get(action)
    if share is None:
        return ""
    size = len(text.split()) if text_language(text) == "en" else len(text)
    rounded = max(5, round(size * share / 5) * 5)
    return str(rounded)


def _joined(before: str, text: str) -> str:
    """A continuation with the space that its place needs."""
    if not text or not before or before[-1].isspace():
        return text
    wide = text_language(text[:1]) == "zh" or before[-1] in "。！？；：，、”’」』）"
    return text if wide or text[0] in ",.;:!?)，。；：！？）" else f" {text}"
