"""A conversation in the terminal whose model may call tools of plug-ins."""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hunyuan import plugins
from hunyuan.errors import HunyuanError, UsageError, language

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine

ROUNDS = 4
"""Times a model may call before it has to answer in words."""

_LONGEST = 4000
"""Characters of a result that a model is told."""


def tools_of_plugins() -> dict[str, plugins.Tool]:
    """The installed tools by name; `UsageError` where there are none, or one is broken."""
    found = {entry.name: plugins.load_tool(entry) for entry in plugins.installed(plugins.TOOLS)}
    if not found:
        raise UsageError(
            "--tools: no plug-in brings a tool; install one, such as examples/plugins/days-tool",
            "--tools：没有提供工具的插件；请先安装，例如 examples/plugins/days-tool",
        )
    return found


def run_tool(tools: Mapping[str, plugins.Tool], name: str, arguments: str) -> str:
    """What a call gives, or why it failed: a model can mend its call, a person sees it."""
    if name not in tools:
        return f"error: no tool {name}; there are {', '.join(tools)}"
    try:
        return str(tools[name].run(**json.loads(arguments)))[:_LONGEST]
    except Exception as error:  # a stranger's code, and arguments that a model made up
        return f"error: {type(error).__name__}: {error}"[:_LONGEST]


class ToolChat:
    """Answers whole, not piece by piece: only then is it known what is a call."""

    def __init__(
        self,
        engine: "Engine",
        model: str,
        tools: Mapping[str, plugins.Tool],
        sampling: Mapping[str, Any],
    ) -> None:
        from hunyuan.serve.local import LocalBackend

        self._backend = LocalBackend(engine, model)
        self._runner = asyncio.Runner()
        self._tools = tools
        self._fields = {
            **sampling,
            "model": model,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": name,
                        "description": tool.description,
                        "parameters": dict(tool.parameters),
                    },
                }
                for name, tool in tools.items()
            ],
        }

    def answer(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Print calls, results and the answer; the conversation with them.

        Where that fails or is stopped, the conversation without the question.
        """
        try:
            return self._runner.run(self._answer(list(messages)))
        except HunyuanError as error:
            print(error)
        except KeyboardInterrupt:
            print("[已停止]" if language() == "zh" else "[stopped]")
        return messages[:-1]

    async def _answer(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from hunyuan.serve.schema import ChatRequest

        known: set[str] = set()
        choice = "auto"
        for left in reversed(range(ROUNDS)):
            fields = {**self._fields, "messages": messages, "tool_choice": choice}
            request = ChatRequest.model_validate(fields)
            whole = await self._backend.complete(request, language())
            message = whole["choices"][0]["message"]
            calls = message.get("tool_calls") or []
            # Small models ask again for what they were told: they are made to answer then.
            new = [call for call in calls if _meant(call) not in known]
            choice = "auto" if new and left > 1 else "none"
            if calls and not new:
                continue
            messages = [*messages, message]
            if message.get("content"):
                print(message["content"])
            if not calls:
                break
            for call in calls:
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                # A tool may wait for something; the engine's thread goes on meanwhile.
                result = await asyncio.to_thread(run_tool, self._tools, name, arguments)
                print(f"[{name} {arguments} -> {result}]")
                known.add(_meant(call))
                told = {"role": "tool", "tool_call_id": call["id"], "content": result}
                messages = [*messages, told]
        return messages


def _meant(call: Mapping[str, Any]) -> str:
    """A call without the way it is written."""
    function = call["function"]
    try:
        arguments = json.dumps(json.loads(function["arguments"]), sort_keys=True)
    except ValueError:
        arguments = function["arguments"]
    return f"{function['name']} {arguments}"
