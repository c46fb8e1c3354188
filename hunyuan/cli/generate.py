"""``hunyuan generate``: continue a text, or answer it as a chat."""

import json
import sys
from dataclasses import asdict
from typing import Any

import click

from hunyuan.cli.disk import report_disk
from hunyuan.cli.options import chosen, engine_options, load_engine, sampling_options


@click.command()
@click.argument("model")
@click.argument("prompt")
@click.option("--chat", is_flag=True, help="Put the prompt to the model as a question.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@sampling_options
@engine_options
def generate(
    model: str,
    prompt: str,
    chat: bool,
    as_json: bool,
    dtype: str,
    kv_dtype: str,
    context: int | None,
    memory: str | None,
    check_reads: bool,
    **sampling: Any,
) -> None:
    """Continue PROMPT with MODEL (a folder, a .gguf file or a pulled model's name).

    A PROMPT of - is read from standard input.
    """
    from hunyuan.engine.request import SamplingParams

    params = SamplingParams(**chosen(**sampling))
    text = sys.stdin.read() if prompt == "-" else prompt
    engine = load_engine(
        *(model, dtype, kv_dtype, context),
        max_sequences=1,
        memory=memory,
        check_reads=check_reads,
    )
    request = engine.submit([{"role": "user", "content": text}] if chat else text, params)
    while request.finish_reason is None:
        for _, chunk in engine.step():
            if not as_json:
                print(chunk.text, end="", flush=True)
    answer = request.completion()
    if as_json:
        result = {
            "text": answer.text,
            "tokens": list(answer.tokens),
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "timings": asdict(answer.timings),
        }
        print(json.dumps(result, ensure_ascii=False))
    else:
        print()
    report_disk(engine)
