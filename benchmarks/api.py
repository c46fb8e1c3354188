"""What the HTTP layer costs per streamed token: a model that takes no time, eight streams at once.

    python benchmarks/api.py [--streams 8] [--tokens 400]

Prints JSON: milliseconds a streamed token costs the server beyond the engine's own step, which is
measured alone with the same requests beforehand.
"""

import argparse
import asyncio
import json
import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import torch
import uvicorn

from hunyuan.engine.engine import Engine
from hunyuan.model.config import preset
from hunyuan.model.transformer import build, init_weights
from hunyuan.serve.app import create_app
from hunyuan.serve.host import ModelHost
from hunyuan.tokenizer.load import load_tokenizer

CHAT = [{"role": "user", "content": "hello"}]
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=400)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        engine = tiny_engine(Path(folder), asked.streams)
        alone = engine_seconds(engine, asked.streams, asked.tokens)
        with listening(create_app(ModelHost.of_engine(engine, "tiny"))) as address:
            served = clients_elsewhere(address, asked.streams, asked.tokens)
    count = asked.streams * asked.tokens
    print(
        json.dumps(
            {
                "streams": asked.streams,
                "tokens_per_stream": asked.tokens,
                "engine_ms_per_token": round(1000 * alone / count, 3),
                "served_ms_per_token": round(1000 * served / count, 3),
                "overhead_ms_per_token": round(1000 * (served - alone) / count, 3),
                # What one reader sees: between two of its own tokens.
                "overhead_ms_per_step": round(1000 * (served - alone) / asked.tokens, 3),
            }
        )
    )


def tiny_engine(folder: Path, streams: int) -> Engine:
    """A random model of a few hundred thousand parameters with a tokenizer of single bytes."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Native

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    native = Native(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    native.decoder = decoders.ByteLevel()
    native.add_special_tokens([AddedToken("<|end|>", special=True)])
    native.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    shape = replace(preset("tiny"), layers=1, context=4096)
    model = build(shape).to_empty(device="cpu")
    init_weights(model, torch.Generator().manual_seed(0))
    return Engine(model.eval(), load_tokenizer(folder), max_sequences=streams)


def engine_seconds(engine: Engine, streams: int, tokens: int) -> float:
    """Seconds for all answers without a server."""
    started = time.perf_counter()
    engine.generate_many([CHAT] * streams, max_tokens=tokens, ignore_eos=True, temperature=0)
    return time.perf_counter() - started


def clients_elsewhere(address: str, streams: int, tokens: int) -> float:
    """The same with the clients in a process of their own, which shares no interpreter lock."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(run_clients, address, streams, 2).result()  # imports are not measured
        return pool.submit(run_clients, address, streams, tokens).result()


def run_clients(address: str, streams: int, tokens: int) -> float:
    """Seconds until all clients have read their answers."""
    return asyncio.run(served_seconds(address, streams, tokens))


async def served_seconds(address: str, streams: int, tokens: int) -> float:
    """Seconds for the same answers, streamed to as many clients."""

    async def read(client: httpx2.AsyncClient) -> int:
        request: dict[str, Any] = {"model": "tiny", "messages": CHAT, "stream": True}
        request |= {"max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        events = 0
        async with client.stream("POST", "/v1/chat/completions", json=request) as response:
            async for line in response.aiter_lines():
                events += line.startswith("data:")
        return events

    async with httpx2.AsyncClient(base_url=address, timeout=600) as client:
        started = time.perf_counter()
        await asyncio.gather(*(read(client) for _ in range(streams)))
        return time.perf_counter() - started


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """A server on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()
