"""Files of conversations with tools: made by a seed, each once, split by template, counted.

    OUT/train.jsonl, OUT/heldout.jsonl    one conversation a line, as `hunyuan train` reads it
    OUT/statistics.json                   what there is of what

A template is one way of asking. A share of them is held out whole, so that what is measured on
the held-out file is understanding, not memory of a phrase.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from hunyuan.errors import Language, UsageError
from hunyuan.files import atomic_file
from hunyuan.serve.schema import ChatRequest
from hunyuan.serve.tools import PLAIN, prompt_messages
from hunyuan.workbench.tool_data.dialogues import Dialogue, Maker, UnfitError, documents_of
from hunyuan.workbench.tool_data.execute import Tools

Form = Literal["tools", "text"]

HELDOUT_SHARE = 0.15
_TRIES = 40
"""Conversations that may come to nothing, or have been there already, for each that is new."""

Statistics = dict[str, Any]


async def make_tool_data(
    out: Path,
    *,
    count: int,
    seed: int,
    form: Form,
    languages: Sequence[Language] = ("en", "zh"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Statistics:
    """Write ``count`` conversations and return their statistics.

    ``form`` "tools" keeps calls and definitions as OpenAI's fields, for chat templates that know
    them; "text" writes them out as a server shows them to a model whose template does not. Raises
    `UsageError` if there are not that many different ones.
    """
    rng = random.Random(seed)
    tools = {lang: Tools(documents_of(lang)) for lang in languages}
    makers = {lang: Maker(tools[lang], rng) for lang in languages}
    made: list[Dialogue] = []
    seen: set[str] = set()
    tries = 0
    try:
        while len(made) < count:
            tries += 1
            if tries > _TRIES * count + 1000:
                raise UsageError(
                    f"count={count}: only {len(made)} different conversations came out; "
                    "ask for fewer",
                    f"count={count}：只能生成 {len(made)} 条不同的对话；请减少数量",
                )
            lang = languages[len(made) % len(languages)]
            try:
                dialogue = await makers[lang].dialogue(lang)
            except UnfitError:
                continue
            key = _key(dialogue)
            if key not in seen:
                seen.add(key)
                made.append(dialogue)
                progress(len(made), count)
    finally:
        for each in tools.values():
            await each.close()
    parts: dict[str, list[Dialogue]] = {"train": [], "heldout": []}
    for dialogue in made:
        parts["heldout" if held_out(dialogue.template) else "train"].append(dialogue)
    for name, dialogues in parts.items():
        with atomic_file(out / f"{name}.jsonl") as file:
            for dialogue in dialogues:
                line = json.dumps(record(dialogue, form), ensure_ascii=False)
                file.write(line.encode() + b"\n")
    counted = statistics(parts) | {"seed": seed, "form": form}
    with atomic_file(out / "statistics.json") as file:
        file.write(json.dumps(counted, ensure_ascii=False, indent=1).encode())
    return counted


def held_out(template: str) -> bool:
    """Whether a template is in the held-out part; the same for every seed."""
    first = template.partition("+")[0]
    return hashlib.sha256(first.encode()).digest()[0] < HELDOUT_SHARE * 256


def record(dialogue: Dialogue, form: Form) -> dict[str, Any]:
    """One line of a file."""
    if form == "tools":
        return {"messages": dialogue.messages, "tools": dialogue.tools}
    request = ChatRequest.model_validate(
        {"model": "", "messages": dialogue.messages, "tools": dialogue.tools}
    )
    return {"messages": prompt_messages(request, PLAIN)}


def _key(dialogue: Dialogue) -> str:
    """What makes a conversation another one: what is said, and the names on offer."""
    names = sorted(tool["function"]["name"] for tool in dialogue.tools)
    said = [message["content"] for message in dialogue.messages if message["role"] == "user"]
    return json.dumps([said, names])


def statistics(parts: dict[str, list[Dialogue]]) -> Statistics:
    """How many of what, by part."""
    return {
        name: {
            "conversations": len(dialogues),
            "templates": len({d.template.partition("+")[0] for d in dialogues}),
            "languages": dict(Counter(d.language for d in dialogues)),
            "kinds": dict(Counter(d.kind for d in dialogues).most_common()),
            "calls": dict(Counter(tool for d in dialogues for tool in d.called).most_common()),
            "renamed": sum(d.renamed for d in dialogues),
            "without_call": sum(not d.called for d in dialogues),
        }
        for name, dialogues in parts.items()
    }


def render(counted: Statistics, lang: Language) -> str:
    """Statistics as lines for a person."""
    words = {
        "conversations": ("conversations", "对话"),
        "templates": ("ways of asking", "提问方式"),
        "languages": ("languages", "语言"),
        "kinds": ("kinds", "类型"),
        "calls": ("calls executed", "已执行的调用"),
        "renamed": ("with renamed tools", "工具改名"),
        "without_call": ("without a call", "不调用工具"),
    }
    column = 1 if lang == "zh" else 0
    lines = []
    for part in ("train", "heldout"):
        lines.append(f"{part}.jsonl")
        for name, value in counted[part].items():
            shown = (
                ", ".join(f"{key} {count}" for key, count in value.items())
                if isinstance(value, dict)
                else value
            )
            lines.append(f"  {words[name][column]}: {shown}")
    return "\n".join(lines)
