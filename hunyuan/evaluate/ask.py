"""One conversation to one answer: by the engine here or an OpenAI-compatible server elsewhere."""

from typing import TYPE_CHECKING, Any

from hunyuan.evaluate.judge import Ask, Messages
from hunyuan.evaluate.server import Server

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine


def ask_engine(engine: "Engine", *, max_tokens: int) -> Ask:
    """Greedy answers of a model loaded here."""

    def ask(messages: Messages) -> str:
        return engine.generate(messages, max_tokens=max_tokens, temperature=0).text

    return ask


def ask_server(url: str, model: str, *, max_tokens: int) -> Ask:
    """Answers of a server at temperature 0; raises what `Server.post` raises."""
    server = Server(url)

    def ask(messages: Messages) -> str:
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": max_tokens}
        return str(server.post("chat/completions", body, _text))

    return ask


def _text(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"] or "")
