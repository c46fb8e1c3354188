"""``hunyuan serve``: a model over HTTP, with a chat page."""

from pathlib import Path

import click

from hunyuan.cli.options import engine_options, load_engine
from hunyuan.errors import language


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option(
    "--api-key",
    envvar="HUNYUAN_API_KEY",
    help="Key that requests must carry; needed for any host but this machine. "
    "Better given as HUNYUAN_API_KEY than on the command line.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Requests answered at once; more wait.",
)
@engine_options
def serve(
    model: str,
    host: str,
    port: int,
    api_key: str | None,
    parallel: int,
    dtype: str,
    kv_dtype: str,
    context: int | None,
) -> None:
    """Serve MODEL with OpenAI's chat API and a chat page."""
    from hunyuan.serve.run import check_address, run

    check_address(host, port, api_key)
    engine = load_engine(model, dtype, kv_dtype, context, max_sequences=parallel)
    from hunyuan.serve.api import create_app

    app = create_app(engine, Path(model).name, api_key=api_key, host=host)
    run(app, host, port, on_ready=_announce)


def _announce(url: str) -> None:
    if language() == "zh":
        print(f"已就绪：{url}  （聊天页面；API 位于 {url}/v1）  按 Ctrl-C 停止", flush=True)
    else:
        print(f"ready: {url}  (chat page; API under {url}/v1)  Ctrl-C stops", flush=True)
