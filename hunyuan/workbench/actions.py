"""What can be done to a text: which fields an action has, and a request for one, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hunyuan.errors import Language
from hunyuan.workbench.language import text_language
from hunyuan.workbench.refusal import RefusedError
from hunyuan.workbench.spans import index_of

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
