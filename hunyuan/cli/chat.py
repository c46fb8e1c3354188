"""``hunyuan chat``: a conversation in the terminal."""

import contextlib
from typing import Any

import click

from hunyuan.cli.chat_tools import ToolChat, tools_of_plugins
from hunyuan.cli.disk import report_disk
from hunyuan.cli.options import chosen, engine_options, load_engine, sampling_options
from hunyuan.errors import HunyuanError, language

_TEXTS = {
    "en": {
        "hello": "Chatting with {model}. /new starts over, /exit leaves; Ctrl-C stops an answer.",
        "you": "you> ",
        "stopped": "[stopped]",
        "new": "[new conversation]",
        "length": "[the answer reached its length limit]",
        "unknown": "unknown command {command}; use /new or /exit",
    },
    "zh": {
        "hello": "正在与 {model} 对话。/new 重新开始，/exit 退出；Ctrl-C 停止当前回答。",
        "you": "你> ",
        "stopped": "[已停止]",
        "new": "[新对话]",
        "length": "[回答达到长度上限]",
        "unknown": "未知命令 {command}；可用 /new 或 /exit",
    },
}


@click.command()
@click.argument("model")
@click.option("--system", help="Instruction that precedes the conversation.")
@click.option("--tools", is_flag=True, help="Let the model call the tools of plug-ins.")
@sampling_options
@engine_options
def chat(
    model: str,
    system: str | None,
    tools: bool,
    dtype: str,
    kv_dtype: str,
    context: int | None,
    memory: str | None,
    check_reads: bool,
    **sampling: Any,
) -> None:
    """Talk with MODEL in the terminal."""
    from hunyuan.engine.request import SamplingParams

    texts = _TEXTS[language()]
    offered = tools_of_plugins() if tools else {}
    params = SamplingParams(**chosen(**sampling))
    engine = load_engine(
        *(model, dtype, kv_dtype, context),
        max_sequences=1,
        memory=memory,
        check_reads=check_reads,
    )
    talk = ToolChat(engine, model, offered, chosen(**sampling)) if tools else None
    opening: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    messages = list(opening)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - importing it gives input() history and editing
    print(texts["hello"].format(model=model))
    while True:
        try:
            line = input(texts["you"]).strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line == "/exit":
            return
        if line == "/new":
            messages = list(opening)
            print(texts["new"])
        elif line.startswith("/"):
            print(texts["unknown"].format(command=line.split()[0]))
        elif line:
            asked = [*messages, {"role": "user", "content": line}]
            messages = talk.answer(asked) if talk else _answer(engine, asked, params, texts)
            report_disk(engine)


def _answer(
    engine: Any, messages: list[dict[str, Any]], params: Any, texts: dict[str, str]
) -> list[dict[str, Any]]:
    """Stream one answer and return the conversation with it, or without the failed question."""
    said = ""
    try:
        stream = engine.stream(messages, params)
    except HunyuanError as error:
        print(error)
        return messages[:-1]
    try:
        for chunk in stream:
            print(chunk.text, end="", flush=True)
            said += chunk.text
            if chunk.finish_reason == "length":
                print(f" {texts['length']}", end="")
    except KeyboardInterrupt:
        stream.close()
        print(f" {texts['stopped']}", end="")
    print()
    return [*messages, {"role": "assistant", "content": said}]
