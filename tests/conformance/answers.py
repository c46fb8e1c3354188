"""What a well-behaved model would answer, made from the request alone.

A forced tool is called, a schema is followed, a question about weather or a customer uses its
tool, and everything else is greeted. Values come from the question where it quotes one.
"""

import json
import re
from typing import Any

from oracle import conversation

from hunyuan.serve.schema import ChatRequest

GREETING = "Hello, how can I help you today?"
JOKE = {"setup": "Why?", "punchline": "Because."}


def good_model(request: ChatRequest) -> str | dict[str, Any]:
    """A text, or a call as ``{"name": ..., "arguments": {...}}``."""
    asked = request.model_dump(exclude_none=True, by_alias=True)
    form = asked.get("response_format") or {}
    question = str(asked["messages"][-1].get("content"))
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        return json.dumps(instance(schema, question, schema.get("$defs", {})), ensure_ascii=False)
    if form.get("type") == "json_object":
        return json.dumps(JOKE)
    tools = [tool["function"] for tool in asked.get("tools") or ()]
    choice = asked.get("tool_choice", "auto")
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    answered = asked["messages"][-1]["role"] == "tool"
    if tools and choice != "none" and (choice != "auto" or not answered):
        schema = tools[0].get("parameters") or {}
        arguments = instance(schema, question, schema.get("$defs", {}))
        return {"name": tools[0]["name"], "arguments": arguments or {}}
    return GREETING


def good_words(prompt: Any) -> str:
    """The same as the words of a model, which sees the conversation and the tools alone."""
    messages, tools = conversation(prompt)
    question = str(messages[-1].get("content"))
    if tools and messages[-1]["role"] != "tool":
        function = tools[0]["function"]
        schema = function.get("parameters") or {}
        arguments = instance(schema, question, schema.get("$defs", {})) or {}
        call = {"name": function["name"], "arguments": arguments}
        return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"
    return json.dumps(JOKE) if "joke" in question.lower() else GREETING


def instance(schema: dict[str, Any], question: str, defs: dict[str, Any]) -> Any:
    """A value that ``schema`` allows."""
    if "$ref" in schema:
        return instance(defs[schema["$ref"].rpartition("/")[2]], question, defs)
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return instance(schema[union][0], question, defs)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if kind == "object":
        properties = schema.get("properties") or {}
        return {name: instance(value, question, defs) for name, value in properties.items()}
    if kind == "array":
        return []
    number = re.search(r"\d+", question)
    if kind in ("integer", "number"):
        return int(number[0]) if number else 1
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    quoted = re.search(r"'([^']+)'", question)
    return quoted[1] if quoted else "some text"
