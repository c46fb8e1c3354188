"""Conversations: a call and its answer, follow-ups, questions back, and times to call nothing.

Every call is executed before it is written down. An answer to a result repeats it, which is
checked; a conversation whose tool says something else than its phrases promise is thrown away.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hunyuan.errors import Language
from hunyuan.workbench.tool_data import tasks
from hunyuan.workbench.tool_data.execute import Outcome, Tools
from hunyuan.workbench.tool_data.offered import BY_ID, Offer, offer, with_others
from hunyuan.workbench.tool_data.tasks import BY_NAME, TASKS, phrases

Message = dict[str, Any]

KINDS = {
    "call": 0.52,
    "documents": 0.08,
    "follow_up": 0.1,
    "clarify": 0.1,
    "talk": 0.09,
    "missing": 0.07,
    "failure": 0.04,
}
"""Kinds of conversation and their shares."""

_CLARIFIED = {"clarify_unit": "units", "clarify_equation": "equation", "clarify_data": "figures"}
_STEPS = ("/", "*", "+", "-")
_UNLIKE = {"calculate", "run_python", "statistics", "solve", "convert"}
"""Tools that can stand in for each other; they are not offered beside the right one."""


@dataclass
class Dialogue:
    """One conversation, what kind it is, and the template that it was made by."""

    kind: str
    template: str
    language: Language
    messages: list[Message] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    """Usual names of the tools that were called."""

    renamed: bool = False


class UnfitError(Exception):
    """What the tool said does not fit the phrases; the conversation is not used."""


class Maker:
    """Makes conversations out of random numbers; the same numbers make the same conversations."""

    def __init__(self, tools: Tools, rng: random.Random) -> None:
        self._tools = tools
        self._rng = rng

    async def dialogue(self, lang: Language) -> Dialogue:
        """One conversation; `UnfitError` if it came to nothing."""
        kind = self._rng.choices(list(KINDS), list(KINDS.values()))[0]
        match kind:
            case "talk":
                return self._talk(lang)
            case "missing":
                return self._missing(lang)
            case "documents":
                return await self._documents(lang)
            case "clarify":
                return await self._clarify(lang)
            case "failure":
                return await self._failure(lang)
        return await self._call(lang, follow_up=kind == "follow_up")

    async def _call(self, lang: Language, *, follow_up: bool) -> Dialogue:
        rng = self._rng
        pool = [task for task in TASKS if task.tool == "calculate"] if follow_up else TASKS
        task = rng.choice(pool)
        slots, arguments = task.make(rng)
        phrase, template = self._phrase(task.name, lang)
        made = Dialogue("follow_up" if follow_up else "call", template, lang)
        made.messages.append(_said("user", phrase.format_map(slots)))
        tool = self._offer(made, task.tool, lang)
        outcome = await self._called(made, tool, arguments)
        self._answered(made, task.name, lang, slots, outcome)
        if follow_up:
            await self._followed(made, tool, lang, arguments["expression"])
        return made

    async def _followed(self, made: Dialogue, tool: Offer, lang: Language, expression: str) -> None:
        """A second question that goes on from the first result."""
        which = self._rng.randrange(len(_STEPS))
        k = str(self._rng.randint(2, 12))
        made.messages.append(_said("user", phrases()["follow_up"][lang][which].format(k=k)))
        made.template += f"+follow_up/{lang}/{which}"
        arguments = {"expression": f"({expression}){_STEPS[which]}{k}"}
        outcome = await self._called(made, tool, arguments)
        self._answered(made, "follow_up", lang, {"k": k}, outcome)

    async def _documents(self, lang: Language) -> Dialogue:
        documents = phrases()["document"]
        which = self._rng.randrange(len(documents))
        document = documents[which]
        place = self._rng.randrange(len(document[f"ask_{lang}"]))
        made = Dialogue("documents", f"document/{which}/{lang}/{place}", lang)
        made.messages.append(_said("user", document[f"ask_{lang}"][place]))
        tool = self._offer(made, "search_documents", lang)
        outcome = await self._called(made, tool, {"query": document[f"query_{lang}"]})
        if outcome.shown != document[lang]:
            raise UnfitError
        answer = self._rng.choice(phrases()["documents"][f"answer_{lang}"])
        made.messages.append(_said("assistant", answer.format(answer=document[f"answer_{lang}"])))
        return made

    async def _clarify(self, lang: Language) -> Dialogue:
        """Something is missing: the model asks back, and calls when it knows."""
        name = self._rng.choice(list(_CLARIFIED))
        task = BY_NAME[_CLARIFIED[name]]
        slots, arguments = task.make(self._rng)
        phrase, template = self._phrase(name, lang)
        texts = phrases()[name]
        made = Dialogue("clarify", template, lang)
        made.messages += [
            _said("user", phrase.format_map(slots)),
            _said("assistant", self._rng.choice(texts[f"ask_{lang}"])),
            _said("user", self._rng.choice(texts[f"reply_{lang}"]).format_map(slots)),
        ]
        tool = self._offer(made, task.tool, lang)
        outcome = await self._called(made, tool, arguments)
        self._answered(made, task.name, lang, slots, outcome)
        return made

    async def _failure(self, lang: Language) -> Dialogue:
        """The tool refuses, and the answer says so instead of a number."""
        slots, arguments = tasks.undefined(self._rng)
        phrase, template = self._phrase("undefined", lang)
        made = Dialogue("failure", template, lang)
        made.messages.append(_said("user", phrase.format_map(slots)))
        tool = self._offer(made, "calculate", lang)
        outcome = await self._called(made, tool, arguments, fails=True)
        answer = self._rng.choice(phrases()["undefined"][f"answer_{lang}"])
        made.messages.append(_said("assistant", answer.format(result=outcome.shown)))
        return made

    def _talk(self, lang: Language) -> Dialogue:
        pairs = phrases()["talk"][lang]
        which = self._rng.randrange(len(pairs))
        made = Dialogue("talk", f"talk/{lang}/{which}", lang)
        made.messages += [_said("user", pairs[which][0]), _said("assistant", pairs[which][1])]
        made.tools = [one.definition for one in with_others([], self._rng, lang)]
        return made

    def _missing(self, lang: Language) -> Dialogue:
        entries = phrases()["missing"][lang]
        which = self._rng.randrange(len(entries))
        question, answer, lacking = entries[which]
        column = 1 if lang == "zh" else 0
        words = {name: pair[column] for name, pair in tasks.names(self._rng).items()}
        made = Dialogue("missing", f"missing/{lang}/{which}", lang)
        made.messages += [_said("user", question.format_map(words)), _said("assistant", answer)]
        offers = with_others([], self._rng, lang, without=[lacking])
        made.tools = [one.definition for one in offers]
        return made

    def _phrase(self, name: str, lang: Language) -> tuple[str, str]:
        texts = phrases()[name][lang]
        which = self._rng.randrange(len(texts))
        return texts[which], f"{name}/{lang}/{which}"

    def _offer(self, made: Dialogue, tool: str, lang: Language) -> Offer:
        """Offer the tool among others that could not do the same."""
        wanted = offer(BY_ID[tool], self._rng, lang)
        without = [other for other in _UNLIKE if other != tool] if tool in _UNLIKE else []
        made.tools = [
            one.definition for one in with_others([wanted], self._rng, lang, without=without)
        ]
        made.renamed = wanted.name != tool or any(
            usual != here for usual, here in wanted.arguments.items()
        )
        return wanted

    async def _called(
        self, made: Dialogue, tool: Offer, arguments: dict[str, str], *, fails: bool = False
    ) -> Outcome:
        """Execute a call and write it down with its result."""
        outcome = await self._tools.run(tool.tool.id, arguments)
        if outcome.failed != fails or not outcome.shown:
            raise UnfitError
        made.called.append(tool.tool.id)
        number = f"call_{len(made.called)}"
        call = tool.call(arguments)
        text = json.dumps(call["arguments"], ensure_ascii=False)
        function = {"name": call["name"], "arguments": text}
        made.messages += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": number, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": number, "content": outcome.content},
        ]
        return outcome

    def _answered(
        self, made: Dialogue, name: str, lang: Language, slots: dict[str, str], outcome: Outcome
    ) -> None:
        """The answer in words, which must hold what the tool gave."""
        template = self._rng.choice(phrases()[name][f"answer_{lang}"])
        answer = template.format_map({**slots, "result": outcome.shown})
        if "{result}" in template and outcome.shown not in answer:
            raise UnfitError
        made.messages.append(_said("assistant", answer))


def _said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def documents_of(lang: Language) -> Sequence[str]:
    """What the search searches, in one language."""
    return [document[lang] for document in phrases()["document"]]
