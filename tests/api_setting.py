"""A server whose model says what a test tells it to; engine, grammars and server are real.

The fixtures are taken over by assignment: ``hermes = api_setting.hermes``, with `open_setting`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from oracle import CHATML, HERMES, HUNYUAN, THINKING, oracle_engine
from serving import http, listening, openai_client

from hunyuan.engine.request import Conversation
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.serve.tools import ToolFormat, tool_format

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now", "description": "Time of day."}},
]
HI: list[Any] = [{"role": "user", "content": "How is the weather?"}]
TEMPLATES = {"hermes": HERMES, "hunyuan": HUNYUAN, "plain": CHATML}
BEIJING = ("weather", {"city": "北京", "days": 3})
NOW = ("now", {})


class Said:
    """The script of an engine, which a test may set for the next answers."""

    def __init__(self) -> None:
        self.text = ""
        self.prompts: list[Any] = []

    def __call__(self, prompt: Any) -> str:
        self.prompts.append(prompt)
        return self.text


class Setting:
    """A server whose model says what it is told to."""

    def __init__(self, address: str, said: Said, form: ToolFormat) -> None:
        self.client = openai_client(address)
        self.http = http(address)
        self._said = said
        self._form = form

    def say(self, text: str = "", *calls: tuple[str, dict[str, Any]]) -> "Setting":
        written = self._form.between.join(
            json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
            for name, arguments in calls
        )
        self._said.text = text + (f"{self._form.begin}{written}{self._form.end}" if calls else "")
        return self

    @property
    def prompt(self) -> Conversation:
        """The last prompt the engine was given."""
        return self._said.prompts[-1]

    def ask(self, **fields: Any) -> ChatCompletion:
        """Whole; and streamed, which must add up to the same."""
        request = {"model": "tiny", "messages": HI, "temperature": 0} | fields
        whole = self.client.chat.completions.create(**request)
        chunks = list(
            self.client.chat.completions.create(
                **request, stream=True, stream_options={"include_usage": True}
            )
        )
        assert joined(chunks) == [plain(choice) for choice in whole.choices]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
        return whole

    def pieces(self, **fields: Any) -> Iterator[dict[str, Any]]:
        """The objects of a streamed plain completion."""
        request = {"model": "tiny", "temperature": 0, "stream": True} | fields
        text = self.http.post("/v1/completions", json=request).text
        *events, done = text.strip().split("\n\n")
        assert done == "data: [DONE]"
        return (json.loads(event.removeprefix("data: ")) for event in events)

    def ids(self, text: str) -> list[int]:
        return self.http.post("/tokenize", json={"prompt": text}).json()["tokens"]

    def refused(self, **fields: Any) -> dict[str, Any]:
        request = {"model": "tiny", "messages": HI, "temperature": 0} | fields
        answer = self.http.post("/v1/chat/completions", json=request)
        assert answer.status_code == 400, answer.text
        return answer.json()["error"]


def plain(choice: Any) -> dict[str, Any]:
    """A choice without ids."""
    calls = choice.message.tool_calls or []
    return {
        "index": choice.index,
        "content": choice.message.content or "",
        "reasoning": getattr(choice.message, "reasoning_content", ""),
        "calls": [(call.function.name, call.function.arguments) for call in calls],
        "reason": choice.finish_reason,
        "logprobs": [e.model_dump() for e in (choice.logprobs.content if choice.logprobs else [])],
    }


def joined(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    """Choices of a stream, after checking what a stream must keep to."""
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    assert chunks[-1].choices == []
    assert all(c.usage is None for c in chunks[:-1])
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        delta = choice.delta
        if choice.index not in found:
            assert (delta.role, delta.content) == ("assistant", "")
            empty: dict[str, Any] = {"content": "", "reasoning": "", "calls": [], "logprobs": []}
            found[choice.index] = {"index": choice.index, "reason": None, **empty}
            continue
        one = found[choice.index]
        assert delta.role is None
        assert one["reason"] is None, "nothing comes after the end"
        one["content"] += delta.content or ""
        one["reasoning"] += getattr(delta, "reasoning_content", None) or ""
        for call in delta.tool_calls or []:
            if call.id is not None:
                assert (call.index, call.type) == (len(one["calls"]), "function")
                assert call.function.name
                one["calls"].append((call.function.name, call.function.arguments))
            else:
                assert call.type is None
                assert call.function.name is None
                name, arguments = one["calls"][call.index]
                one["calls"][call.index] = (name, arguments + call.function.arguments)
        if choice.logprobs:
            one["logprobs"] += [entry.model_dump() for entry in choice.logprobs.content]
        one["reason"] = choice.finish_reason
    return [found[index] for index in sorted(found)]


@pytest.fixture(scope="module")
def open_setting() -> Iterator[Callable[[str], Setting]]:
    """Servers by chat template, kept for all tests."""
    with ExitStack() as stack:
        settings: dict[str, Setting] = {}

        def get(template: str) -> Setting:
            if template not in settings:
                said = Said()
                engine = oracle_engine(said, template=template)
                app = create_app(ModelHost.of_engine(engine, "tiny"))
                address = stack.enter_context(listening(app))
                settings[template] = Setting(address, said, tool_format(template))
            return settings[template]

        yield get


@pytest.fixture(params=TEMPLATES)
def any_format(request: Any, open_setting: Callable[[str], Setting]) -> Setting:
    return open_setting(TEMPLATES[request.param])


@pytest.fixture
def hermes(open_setting: Callable[[str], Setting]) -> Setting:
    return open_setting(HERMES)


@pytest.fixture
def thinker(open_setting: Callable[[str], Setting]) -> Setting:
    return open_setting(THINKING)


def called(answer: ChatCompletion, index: int = 0) -> list[tuple[str, Any]]:
    calls = answer.choices[index].message.tool_calls or []
    assert all(call.type == "function" and call.id for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]
