"""What can be done to a text: which fields an action has, and how it is carried out.

A long text is cut into parts, each small enough for a small model to keep in mind. What the model
answers is cleaned and checked; if it is no good it is asked once more, and if that is no good
either the part stays as it was and the reader is told.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hunyuan.errors import Language
from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import StructuredOutputs
from hunyuan.workbench import cleaning
from hunyuan.workbench.conversations import Settings
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
from hunyuan.workbench.spans import index_of
from hunyuan.workbench.streaming import Event
from hunyuan.workbench.templates import Templates

ResultKind = Literal["replace", "insert", "beside", "items"]

TONES = ("neutral", "formal", "friendly", "persuasive", "enthusiastic", "plain")
FORMS = ("email", "letter", "article", "report", "notice", "speech", "story", "post", "plan")
LENGTHS = ("short", "medium", "long")


@dataclass(frozen=True)
class Field:
    """A field of an action: a choice (the first is the default), a text or a count."""

    name: str
    kind: Literal["choice", "text", "count"] = "choice"
    choices: tuple[str, ...] = ()
    default: str | int | None = None
    required: bool = False
    min: int | None = None
    max: int | None = None

    def described(self) -> dict[str, Any]:
        """For the page."""
        about: dict[str, Any] = {"name": self.name, "kind": self.kind, "required": self.required}
        if self.kind == "choice":
            about |= {"choices": list(self.choices), "default": self.choices[0]}
        elif self.kind == "count":
            about |= {"min": self.min, "max": self.max, "default": self.default}
        else:
            about |= {"max": self.max, "default": ""}
        return about


@dataclass(frozen=True)
class Action:
    """One thing that can be done."""

    name: str
    result: ResultKind
    fields: tuple[Field, ...] = ()

    @property
    def template_fields(self) -> set[str]:
        """What its templates may use."""
        return {"text", "before", "after", "target", *(field.name for field in self.fields)}


def _choice(name: str, *choices: str) -> Field:
    return Field(name, choices=choices, default=choices[0])


ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        Action(
            "draft",
            "insert",
            (
                Field("brief", "text", required=True, max=4000),
                _choice("form", *FORMS),
                Field("audience", "text", max=200),
                _choice("tone", *TONES),
                _choice("length", *LENGTHS),
            ),
        ),
        Action("continue", "insert", (_choice("length", *LENGTHS),)),
        Action("polish", "replace", (_choice("focus", "clarity", "grammar", "impact"),)),
        Action("rewrite", "replace", (_choice("tone", *TONES[1:3], TONES[0], *TONES[3:]),)),
        Action("shorten", "replace"),
        Action("expand", "replace"),
        Action("summarise", "beside", (_choice("style", "paragraph", "bullets", "line"),)),
        Action(
            "brainstorm",
            "items",
            (Field("topic", "text", max=1000), Field("count", "count", default=6, min=3, max=12)),
        ),
        Action("translate", "replace", (_choice("to", "auto", "en", "zh"),)),
        Action("title", "items", (Field("count", "count", default=3, min=1, max=5),)),
    )
}

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

_NOTES: dict[str, tuple[str, str]] = {
    "empty": ("The model said nothing.", "模型没有给出内容。"),
    "unchanged": ("The model changed nothing here.", "模型没有改动这部分。"),
    "wrong_language": (
        "The model answered in the other language; this part was left as it was.",
        "模型用了另一种语言；这部分保持原样。",
    ),
    "longer": (
        "The model's version was not shorter; this part was left as it was.",
        "模型的版本并不更短；这部分保持原样。",
    ),
    "shorter": (
        "The model's version was not longer; this part was left as it was.",
        "模型的版本并不更长；这部分保持原样。",
    ),
    "length": (
        "The result is far shorter or longer than the text: something may be missing or invented.",
        "结果与原文长度相差很大：可能有遗漏或编造。",
    ),
    "cut": (
        "The model did not come to an end; this part was left as it was.",
        "模型没有正常结束；这部分保持原样。",
    ),
    "limit": ("The answer reached its limit and is cut off.", "回答达到长度上限，被截断。"),
    "untranslated": (
        "Some words were left untranslated.",
        "有些词没有翻译。",
    ),
    "repeated": (
        "The model only repeated itself or the text.",
        "模型只是在重复自己或原文。",
    ),
    "copied": (
        "The model only copied an example of its instructions.",
        "模型只是照抄了提示中的例子。",
    ),
    "loop": (
        "The model began to repeat itself; the answer was stopped there.",
        "模型开始重复；回答到此为止。",
    ),
    "numbers": (
        "These numbers or days are not the same as before: {detail}. Check them.",
        "以下数字或日期与原文不一致：{detail}。请核对。",
    ),
    "excerpt": (
        "The text is long: the model read {detail} of its characters.",
        "文本较长：模型只读了其中 {detail} 个字符。",
    ),
    "fewer": ("The model found only {detail}.", "模型只想到 {detail} 条。"),
}

Note = dict[str, Any]


@dataclass
class Job:
    """An action on a text, with everything checked."""

    action: Action
    text: str
    start: int
    end: int
    """The span, in code points of ``text``."""

    span: tuple[int, int]
    """The span as the reader gave it, in UTF-16 code units."""

    values: dict[str, str]
    language: Language
    lang: Language
    """The reader's."""

    notes: list[Note] = field(default_factory=list)

    @property
    def source(self) -> str:
        """What is worked on."""
        return self.text[self.start : self.end]

    def note(self, code: str, part: int | None = None, detail: str = "") -> None:
        """Tell the reader of something, once for each part."""
        text = _NOTES[code][self.lang == "zh"].replace("{detail}", detail)
        self.notes.append({"code": code, "part": part, "text": text})


def job_of(
    action: str,
    text: str,
    span: tuple[int, int] | None,
    language: Literal["auto", "en", "zh"],
    given: Mapping[str, Any],
    lang: Language,
) -> Job:
    """Check a request; `RefusedError` names the field that is wrong."""
    kind = ACTIONS.get(action)
    if kind is None:
        names = ", ".join(ACTIONS)
        raise RefusedError(
            f"there is no action {action[:40]}; there are {names}",
            f"没有 {action[:40]} 这一操作；可用：{names}",
            status=404,
            code="not_found",
        )
    values = _values(kind, given)
    start, end, span = _span(kind, text, span)
    job = Job(kind, text, start, end, span, values, lang, lang)
    subject = job.source if kind.name != "continue" else text[:end]
    if kind.name == "draft":
        subject = values["brief"]
    elif kind.name == "brainstorm":
        subject = values["topic"] or job.source
    if not subject.strip():
        name = "topic" if kind.name == "brainstorm" else "text"
        raise RefusedError(
            f"{name}: there is nothing to work on; write something or select a part with words",
            f"{name}：没有可处理的内容；请先输入文字或选中有文字的部分",
            param=name,
        )
    job.language = text_language(subject) or lang
    if kind.name == "translate":
        other: Language = "en" if job.language == "zh" else "zh"
        job.language = other if values["to"] == "auto" else _as_language(values["to"])
    elif language != "auto":
        job.language = language
    return job


def _as_language(value: str) -> Language:
    return "zh" if value == "zh" else "en"


def _values(action: Action, given: Mapping[str, Any]) -> dict[str, str]:
    known = {field.name: field for field in action.fields}
    for name in given:
        if name not in known:
            names = ", ".join(known) or "-"
            raise RefusedError(
                f"{name}: is no field of {action.name}; it has {names}",
                f"{name}：不是 {action.name} 的字段；可用：{names}",
                param=name,
            )
    return {name: _value(found, given.get(name)) for name, found in known.items()}


def _value(known: Field, value: Any) -> str:
    name = known.name
    if value is None or value == "":
        if known.required:
            raise RefusedError(
                f"{name}: is missing; say what it is to be about",
                f"{name}：缺失；请说明要写什么",
                param=name,
            )
        return "" if known.default is None else str(known.default)
    if known.kind == "choice" and value not in known.choices:
        names = ", ".join(known.choices)
        raise RefusedError(
            f"{name}={str(value)[:40]}: must be one of {names}",
            f"{name}={str(value)[:40]}：必须是以下之一：{names}",
            param=name,
        )
    if known.kind == "count":
        low, high = known.min or 0, known.max or 0
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise RefusedError(
                f"{name}={str(value)[:40]}: must be a whole number from {low} to {high}",
                f"{name}={str(value)[:40]}：必须是 {low} 到 {high} 的整数",
                param=name,
            )
    if known.kind == "text" and (not isinstance(value, str) or len(value) > (known.max or 0)):
        raise RefusedError(
            f"{name}: must be a text of at most {known.max} characters",
            f"{name}：必须是不超过 {known.max} 个字符的文本",
            param=name,
        )
    return str(value)


def _span(
    action: Action, text: str, given: tuple[int, int] | None
) -> tuple[int, int, tuple[int, int]]:
    if given is None:
        place = index_of(text, 2 * len(text))
        units = len(text.encode("utf-16-le")) // 2
        begin = units if action.result == "insert" else 0
        return (place if begin else 0), place, (begin, units)
    low, high = given
    if not 0 <= low <= high:
        raise RefusedError(
            f"span={list(given)}: must be [start, end] with 0 <= start <= end",
            f"span={list(given)}：必须是 [start, end]，且 0 <= start <= end",
            param="span",
        )
    start, end = index_of(text, low), index_of(text, high)
    if action.result == "insert":
        return end, end, (high, high)
    if start == end and action.name != "brainstorm":
        return _span(action, text, None)
    return start, end, given


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
                self.result = _fresh(text, self.result)
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
        stream = self._backend.stream(request, self._job.lang)
        try:
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
        finally:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
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


def _fresh(before: str, after: str) -> str:
    """A continuation without the end of the text repeated at its beginning."""
    for length in range(min(len(before), len(after)), 7, -1):
        if before.endswith(after[:length]):
            return after[length:].lstrip()
    return after


def _joined(before: str, text: str) -> str:
    """A continuation with the space that its place needs."""
    if not text or not before or before[-1].isspace():
        return text
    wide = text_language(text[:1]) == "zh" or before[-1] in "。！？；：，、”’」』）"
    return text if wide or text[0] in ",.;:!?)，。；：！？）" else f" {text}"
