"""Prompt templates: TOML files that the user may edit, in both languages.

``prompts/<place>/<name>.<language>.toml`` in the data folder goes before the built-in file of the
same name. A file has

    system = "who the model is to be"                      (may be absent)
    user = "what it is asked, with {fields}"
    temperature = 0.3                                      (may be absent)
    frequency_penalty = 0.4                                (may be absent)
    repetition_penalty = 1.1                               (may be absent)
    examples = [{user = "...", assistant = "...", when = {tone = "formal"}}, ...]
                                                           (may be absent, as may ``when``)
    [choices.tone]                                         (may be absent)
    formal = "what {tone} becomes when formal is chosen"

A field is a name in braces and nothing else; nothing in a file is run. A line of ``user`` or
``system`` with a field that is empty is left out.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hunyuan.errors import Language, UsageError

BUILT_IN = Path(__file__).parent / "prompts"
LANGUAGES: tuple[Language, ...] = ("en", "zh")

Place = Literal["chat", "writing", "code", "knowledge", "maths"]

_FIELD = re.compile(r"\{([a-z_]+)\}")


class _Example(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    user: str = Field(min_length=1)
    assistant: str = Field(min_length=1)
    when: dict[str, str] = {}


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    system: str | None = None
    user: str = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    examples: list[_Example] = Field(default=[], max_length=16)
    choices: dict[str, dict[str, str]] = {}


@dataclass(frozen=True)
class Example:
    """A question and its answer, shown where the fields named in ``when`` have those values."""

    user: str
    assistant: str
    when: Mapping[str, str]


@dataclass(frozen=True)
class Template:
    """One prompt in one language."""

    path: Path
    system: str | None
    user: str
    temperature: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    """Counts what the prompt says too: above 1 the answer takes other words."""

    examples: list[Example]
    choices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def messages(self, values: Mapping[str, str]) -> list[dict[str, Any]]:
        """The conversation to send, with ``values`` in the places of the fields.

        The value of a field with choices is one of their names. What a value contains is never
        taken for a field.
        """
        worded = {
            name: self.choices[name].get(value, value) if name in self.choices else value
            for name, value in values.items()
        }
        turns = [("system", _filled(self.system, worded))] if self.system else []
        for example in self.examples:
            if all(values.get(name) == value for name, value in example.when.items()):
                turns += [("user", example.user), ("assistant", example.assistant)]
        turns.append(("user", _filled(self.user, worded)))
        return [{"role": role, "content": content} for role, content in turns]


@dataclass(frozen=True)
class Listed:
    """A template that exists, and what is wrong with it."""

    place: Place
    name: str
    language: Language
    own: bool
    """Whether it is the user's."""

    error: UsageError | None


class Templates:
    """All prompts; files are read anew each time, so an edited one counts at once."""

    def __init__(self, own: Path | None = None) -> None:
        self.own = own

    def get(self, place: Place, name: str, language: Language, fields: set[str]) -> Template:
        """One template, which may use ``fields``; `UsageError` names file and mistake."""
        file = f"{place}/{name}.{language}.toml"
        path = BUILT_IN / file
        if self.own is not None and (self.own / file).is_file():
            path = self.own / file
        return read_template(path, fields)

    def listed(self, fields_of: Mapping[tuple[Place, str], set[str]]) -> list[Listed]:
        """The templates of the given names, in all languages, each checked."""
        found = []
        for (place, name), fields in fields_of.items():
            for language in LANGUAGES:
                own = (
                    self.own is not None
                    and (self.own / f"{place}/{name}.{language}.toml").is_file()
                )
                error = None
                try:
                    self.get(place, name, language, fields)
                except UsageError as mistake:
                    error = mistake
                found.append(Listed(place, name, language, own, error))
        return found


def read_template(path: Path, fields: set[str]) -> Template:
    """Read and check one file; `UsageError` in one line for anything wrong with it."""
    try:
        parsed = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise _wrong(path, str(error.strerror), str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise _wrong(path, "is no UTF-8 text", "不是 UTF-8 文本") from error
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, str(error), str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _wrong(path, f"{place}: {first['msg']}", f"{place}：{first['msg']}") from error
    for name in ("system", "user"):
        for used in _FIELD.findall(getattr(parsed, name) or ""):
            if used not in fields:
                allowed = ", ".join(f"{{{known}}}" for known in sorted(fields))
                raise _wrong(
                    path,
                    f"{name}: {{{used}}} is no field of this template; it has {allowed}",
                    f"{name}：{{{used}}} 不是该模板的字段；可用字段：{allowed}",
                )
    named = {"choices": list(parsed.choices)}
    named |= {f"examples.{i}.when": list(one.when) for i, one in enumerate(parsed.examples)}
    for place, names in named.items():
        for name in names:
            if name not in fields:
                raise _wrong(path, f"{place}.{name}: is no field", f"{place}.{name}：不是字段")
    return Template(
        path,
        parsed.system,
        parsed.user,
        parsed.temperature,
        parsed.frequency_penalty,
        parsed.repetition_penalty,
        [Example(example.user, example.assistant, example.when) for example in parsed.examples],
        parsed.choices,
    )


def _filled(template: str, values: Mapping[str, str]) -> str:
    lines = []
    for line in template.strip("\n").split("\n"):
        names = _FIELD.findall(line)
        if any(not values.get(name, "") for name in names):
            continue
        lines.append(_FIELD.sub(lambda match: values[match[1]], line))
    return "\n".join(lines)


def _wrong(path: Path, en: str, zh: str) -> UsageError:
    return UsageError(
        f"{path}: {en}; correct the file or remove it to use the built-in one",
        f"{path}：{zh}；请更正该文件，或删除它以使用内置模板",
    )
