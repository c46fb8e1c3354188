"""An engine that says what a test wants said: real in all but which token is most likely.

The script decides what the model would like to say; penalties, sampling, grammars, stop strings,
batching, decoding and the server see an ordinary model. Where a grammar forbids the next token of
the script, the grammar wins, as it would over any model, and from there on the model is random.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from conftest import CHATML, random_transformer, write_byte_tokenizer
from tokenizers import AddedToken
from tokenizers import Tokenizer as Native

from hunyuan.engine.engine import Engine
from hunyuan.engine.request import Conversation, Request, SamplingParams
from hunyuan.model.config import ModelConfig, preset
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

Script = Callable[[Any], str] | Sequence[str]
"""A function of the prompt (a `Conversation`, a text or token ids), or answers to give in turn."""

HERMES = (
    "{% if tools %}<|im_start|>system\nTools:{% for t in tools %}\n{{ t | tojson }}{% endfor %}"
    "\nCall as <tool_call>\n{...}\n</tool_call><|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n"
    "{{ m.content }}\n</tool_response><|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n"
    "{{ m.content or '' }}{% for c in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with tools, as Hermes and Qwen write them."""

HUNYUAN = HERMES.replace("<tool_call>\n", "<tool_calls>[").replace(
    "\n</tool_call>", "]</tool_calls>"
)
"""The same with the calls of Hunyuan models."""

THINKING = CHATML + "{# the answer: <think>...</think> #}"
"""ChatML of a model that may think before it answers."""


class OracleEngine(Engine):
    """An engine whose model prefers the next token of a script above all others."""

    def __init__(self, script: Script, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._script = script if callable(script) else None
        self._answers = [] if callable(script) else list(script)
        self._wanted: dict[Request, list[int]] = {}
        self.prompts: list[Any] = []
        """Every prompt that was submitted."""

    def submit(self, prompt: Any, params: SamplingParams | None = None) -> Request:
        request = super().submit(prompt, params)
        self.prompts.append(prompt)
        if self._script is not None:
            answer = self._script(prompt)
        else:
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        stop = min(self.tokenizer.stop_ids)
        self._wanted[request] = [*self.tokenizer.encode_markup(answer), stop]
        return request

    def _advance(self, request: Request, rows: torch.Tensor) -> Any:
        wanted, said = self._wanted[request], request.generated
        if said == wanted[: len(said)] and len(said) < len(wanted) and len(rows):
            rows = rows.clone()
            rows[-1, wanted[len(said)]] = rows[-1].max() + 100
        return super()._advance(request, rows)


def oracle_engine(
    script: Script,
    *,
    template: str = HERMES,
    config: ModelConfig | None = None,
    folder: Path | None = None,
    **options: Any,
) -> OracleEngine:
    """An engine of a tiny random model with a tokenizer of single bytes that follows ``script``.

    ``template`` decides how it calls functions and whether it thinks. Give temperature 0, or any
    other: the next token of the script is e^100 times as likely as the rest.
    """
    config = config or replace(preset("tiny"), context=8192)
    tokenizer = scripted_tokenizer(template, folder or Path(mkdtemp()))
    options = {"cache_tokens": 32768, "prefill_chunk": 4096, "shared_chunk": 4096} | options
    return OracleEngine(script, random_transformer(config), tokenizer, **options)


def scripted_tokenizer(template: str, folder: Path) -> Tokenizer:
    """Single bytes, ChatML turns and thinking tags, with a chat template of one's own."""
    settings = write_byte_tokenizer(folder) / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": template}))
    native = Native.from_file(str(folder / "tokenizer.json"))
    native.add_tokens([AddedToken(tag, special=False) for tag in ("<think>", "</think>")])
    native.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def conversation(prompt: Any) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Messages and tools of a prompt that a chat made."""
    assert isinstance(prompt, Conversation), "the prompt is no conversation"
    return prompt.messages, prompt.tools or ()
