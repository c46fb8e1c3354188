"""Routes of the place "code": running programs behind walls, and a model that writes them.

A program runs because a person said so: what the model writes is shown, never run by itself.
Full Python is used for a request that names it, and only where its walls stand.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import Field
from starlette.responses import JSONResponse

from hunyuan.errors import Language, UsageError
from hunyuan.sandbox.cpython import CPythonRunner
from hunyuan.sandbox.layers import Layer, monty_layers
from hunyuan.sandbox.monty import MontyRunner
from hunyuan.sandbox.result import Limits, Runner
from hunyuan.serve.backend import Backend
from hunyuan.serve.schema import ChatRequest
from hunyuan.serve.streams import unless_gone
from hunyuan.workbench.language import text_language
from hunyuan.workbench.program_text import program_in, syntax_problem
from hunyuan.workbench.streaming import Body, Event, WorkbenchRoute, event_stream, language_of
from hunyuan.workbench.templates import Template, Templates

LONGEST_TASK = 2000
LONGEST_CODE = 16_000
"""Characters of a program that a model is asked about."""

ANSWER_TOKENS = 700

FIELDS = {"ask": {"task"}, "explain": {"code"}, "fix": {"code", "error", "line"}}
"""Prompt templates of this place and their fields."""


class RunBody(Body):
    """POST /workbench/code/run."""

    code: str
    runner: Literal["monty", "cpython"] = "monty"


class AskBody(Body):
    """POST /workbench/code/ask."""

    task: str = Field(min_length=1, max_length=LONGEST_TASK)


class ExplainBody(Body):
    """POST /workbench/code/explain."""

    code: str = Field(min_length=1, max_length=LONGEST_CODE)


class FixBody(Body):
    """POST /workbench/code/fix."""

    code: str = Field(min_length=1, max_length=LONGEST_CODE)
    error: str = Field(min_length=1, max_length=2000)
    line: int | None = Field(default=None, ge=1)
    """Where it happened, from 1."""


def code_router(
    backend: Callable[[], Backend],
    templates: Templates,
    *,
    monty: MontyRunner | None = None,
    cpython: CPythonRunner | None = None,
) -> APIRouter:
    """Routes under ``/workbench/code``; the interpreters end with the application."""
    small, full = monty or MontyRunner(), cpython or CPythonRunner()
    runners: dict[str, Runner] = {"monty": small, "cpython": full}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for runner in runners.values():
                await runner.close()

    router = APIRouter(prefix="/workbench/code", route_class=WorkbenchRoute, lifespan=lifespan)

    @router.get("")
    async def about(request: Request) -> dict[str, Any]:
        """What can run programs here, and what holds them."""
        lang = language_of(request)
        held = monty_layers(small.limits.seconds, small.limits.memory_bytes)
        walls = await full.layers()
        return {
            "runners": [
                _described("monty", small.limits, held, lang),
                _described("cpython", full.limits, walls, lang),
            ]
        }

    @router.post("/run")
    async def run(request: Request, body: RunBody) -> Response:
        """Run a program and wait for its end; going away stops it."""
        lang = language_of(request)
        runner = runners[body.runner]
        result = await unless_gone(request, runner.run(body.code))
        return JSONResponse(result.data(runner.limits, lang))

    def answered(
        lang: Language, name: str, values: dict[str, str], *, wants_program: bool
    ) -> AsyncGenerator[Event, None]:
        template = templates.get("code", name, lang, FIELDS[name])
        return _answer(backend(), template, values, lang, wants_program=wants_program)

    @router.post("/ask")
    async def ask(request: Request, body: AskBody) -> Response:
        """A program for a task in words, in the language of the task."""
        lang = text_language(body.task) or language_of(request)
        events = answered(lang, "ask", {"task": body.task}, wants_program=True)
        return event_stream(events, language_of(request))

    @router.post("/explain")
    async def explain(request: Request, body: ExplainBody) -> Response:
        """What a program does, in the reader's language."""
        lang = language_of(request)
        events = answered(lang, "explain", {"code": body.code}, wants_program=False)
        return event_stream(events, lang)

    @router.post("/fix")
    async def fix(request: Request, body: FixBody) -> Response:
        """The program without the error that it ended with."""
        lang = language_of(request)
        lines = body.code.split("\n")
        known = body.line is not None and body.line <= len(lines)
        values = {
            "code": body.code,
            "error": body.error,
            "line": lines[(body.line or 1) - 1].strip() if known else "",
        }
        return event_stream(answered(lang, "fix", values, wants_program=True), lang)

    return router


def _described(name: str, limits: Limits, layers: list[Layer], lang: Language) -> dict[str, Any]:
    chinese = lang == "zh"
    return {
        "name": name,
        "available": all(layer.on for layer in layers),
        "limits": {
            "seconds": limits.seconds,
            "memory_bytes": limits.memory_bytes,
            "output_bytes": limits.output_bytes,
        },
        "layers": [
            {
                "id": layer.id,
                "on": layer.on,
                "name": layer.name_zh if chinese else layer.name_en,
                "missing": (layer.missing_zh if chinese else layer.missing_en) or None,
            }
            for layer in layers
        ],
    }


async def _answer(
    backend: Backend,
    template: Template,
    values: dict[str, str],
    lang: Language,
    *,
    wants_program: bool,
) -> AsyncGenerator[Event, None]:
    """The model's answer as it comes, then the program in it, looked over."""
    request = ChatRequest.model_validate(
        {
            "model": backend.model.id,
            "messages": template.messages(values),
            "stream": True,
            "max_tokens": ANSWER_TOKENS,
            **({} if template.temperature is None else {"temperature": template.temperature}),
        }
    )
    text, reason = "", None
    async with aclosing(backend.stream(request, lang)) as chunks:
        async for chunk in chunks:
            for choice in chunk["choices"]:
                reason = choice.get("finish_reason") or reason
                if piece := choice["delta"].get("content"):
                    text += piece
                    yield {"type": "delta", "text": piece}
    if wants_program:
        code = program_in(text)
        if not code:
            raise UsageError(
                "the model answered without a program; say the task in other words",
                "模型的回答中没有程序；请换一种说法描述任务",
            )
        if code.strip() == values.get("code", "").strip():
            raise UsageError(
                "the model changed nothing; a larger model may do better",
                "模型没有做任何修改；可以换用更大的模型",
            )
        problem = syntax_problem(code)
        yield {"type": "result", "code": code, "problem": problem, "cut": reason == "length"}
    yield {"type": "done", "finish_reason": reason}
