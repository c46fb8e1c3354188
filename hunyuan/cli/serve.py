"""``hunyuan serve``: a model over HTTP, with the workbench's page."""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hunyuan.cli.options import engine_options, load_engine
from hunyuan.cli.serve_vllm import (
    VllmOptions,
    behind_workbench,
    make_plan,
    print_commands,
    serve_alone,
    vllm_options,
)
from hunyuan.errors import UsageError, language

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine
    from hunyuan.knowledge.retriever import Retriever
    from hunyuan.serve.host import ModelHost

PEM_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("model", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--api-key",
    envvar="HUNYUAN_API_KEY",
    help="Key that requests must carry; any host but this machine needs one, and one is made and "
    "shown if none is given. Better given as HUNYUAN_API_KEY than on the command line.",
)
@click.option("--tls-cert", type=PEM_FILE, help="Certificate (PEM), to serve HTTPS.")
@click.option("--tls-key", type=PEM_FILE, help="Its private key (PEM).")
@click.option(
    "--cors-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Exact origin of web pages that may use the API, such as https://tools.example.org; may "
    "be repeated. Default: none.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Requests answered at once; more wait.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Requests that may wait; one more is told to come back.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of conversations and documents. Default: hunyuan/workbench in the user's data "
    "folder.",
)
@click.option(
    "--knowledge",
    metavar="URL",
    help="Index documents in a PostgreSQL database, postgresql://..., instead of the data folder.",
)
@click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of training runs to show.",
)
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("benchmarks/results"),
    show_default=True,
    help="Folder of benchmark results to show.",
)
@click.option(
    "--upstream",
    metavar="URL",
    help="Answer by another OpenAI-compatible server instead of a model here, such as "
    "http://10.0.0.5:8000/v1; its key is read from HUNYUAN_UPSTREAM_KEY.",
)
@click.option("--upstream-model", metavar="NAME", help="The model to ask for there.")
@engine_options
@vllm_options
def serve(
    model: str | None,
    host: str,
    port: int,
    api_key: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    origins: tuple[str, ...],
    parallel: int,
    max_waiting: int,
    data: Path | None,
    knowledge: str | None,
    runs: Path,
    results: Path,
    upstream: str | None,
    upstream_model: str | None,
    dtype: str,
    kv_dtype: str,
    context: int | None,
    memory: str | None,
    check_reads: bool,
    vllm: VllmOptions,
) -> None:
    """Serve MODEL with OpenAI's and Anthropic's APIs and the workbench's page."""
    from hunyuan.serve.cross_origin import check_origin
    from hunyuan.serve.exposure import new_key, notices
    from hunyuan.serve.run import check_address, is_local, run

    _check_together(model, upstream, upstream_model, tls_cert, tls_key)
    for origin in origins:
        check_origin(origin)
    plan = None
    if vllm.engine == "vllm":
        if memory or check_reads or not model:
            raise _only_here()
        plan = make_plan(
            model,
            vllm,
            host=host,
            port=port,
            dtype=dtype,
            kv_dtype=kv_dtype,
            context=context,
            sequences=_given("parallel", parallel),
            certificate=tls_cert,
            key_file=tls_key,
        )
        if vllm.print_command:
            print_commands(plan)
            return
    check_address(host, port)
    if plan is not None and vllm.vllm_only:
        serve_alone(plan, api_key)
        return
    generated = new_key() if not api_key and not is_local(host) else None

    def load(name: str, on_progress: Callable[[int, int], None] | None = None) -> "Engine":
        return load_engine(
            *(name, dtype, kv_dtype, context),
            max_sequences=parallel,
            memory=memory,
            check_reads=check_reads,
            on_progress=on_progress,
        )

    from hunyuan.workbench.app import PAGE, workbench_routers
    from hunyuan.workbench.folder import DataFolder, default_data_folder

    with (
        DataFolder(data or default_data_folder()) as folder,
        behind_workbench(plan) if plan else nullcontext() as behind,
    ):
        owner = behind or (
            _upstream_host(upstream, upstream_model)
            if upstream and upstream_model
            else _local_host(str(model), load, max_waiting, runs)
        )
        from hunyuan.knowledge.embedder import find_embedder
        from hunyuan.serve.app import create_app
        from hunyuan.serve.embeddings import installed_embedders

        app = create_app(
            owner,
            address=host,
            api_key=api_key or generated,
            origins=origins,
            routers=workbench_routers(
                owner,
                folder,
                embedder=find_embedder(),
                retriever=_retriever(knowledge),
                runs=runs,
                results=results,
            ),
            page=PAGE,
            embedders=installed_embedders(),
        )
        for en, zh in notices(host, generated_key=generated, encrypted=tls_cert is not None):
            print(zh if language() == "zh" else en, file=sys.stderr)
        run(app, host, port, on_ready=_announce, certificate=tls_cert, key=tls_key)


def _given(name: str, value: int) -> int | None:
    """The value of an option that a person gave; None for the default."""
    source = click.get_current_context().get_parameter_source(name)
    return None if source is click.core.ParameterSource.DEFAULT else value


def _only_here() -> UsageError:
    return UsageError(
        "--engine vllm takes a MODEL, and not --upstream, --memory or --check-reads",
        "--engine vllm 需要 MODEL，不能与 --upstream、--memory 或 --check-reads 同用",
    )


def _retriever(url: str | None) -> "Retriever | None":
    """The index of documents elsewhere; None: in the data folder."""
    if url is None:
        return None
    if not url.startswith(("postgresql://", "postgres://")):
        raise UsageError(
            f"--knowledge {url[:80]!r}: must be an address of PostgreSQL, postgresql://user@host/name",
            f"--knowledge {url[:80]!r}：必须是 PostgreSQL 地址，例如 postgresql://user@host/name",
        )
    from hunyuan.knowledge.postgres_index import PostgresIndex

    return PostgresIndex(url)


def _check_together(
    model: str | None,
    upstream: str | None,
    upstream_model: str | None,
    tls_cert: Path | None,
    tls_key: Path | None,
) -> None:
    if (upstream is None) != (upstream_model is None):
        raise UsageError(
            "--upstream and --upstream-model belong together; give both",
            "--upstream 与 --upstream-model 必须同时给出",
        )
    if (model is None) == (upstream is None):
        raise UsageError(
            "give a MODEL, or --upstream and --upstream-model, and not both",
            "请给出 MODEL，或给出 --upstream 与 --upstream-model，二者选一",
        )
    if (tls_cert is None) != (tls_key is None):
        raise UsageError(
            "--tls-cert and --tls-key belong together; give both",
            "--tls-cert 与 --tls-key 必须同时给出",
        )


def _local_host(
    model: str, load: Callable[..., "Engine"], max_waiting: int, runs: Path
) -> "ModelHost":
    from hunyuan.catalogue.store import installed
    from hunyuan.serve.host import ModelHost
    from hunyuan.workbench.runs import is_listed_checkpoint

    def load_installed(name: str, on_progress: Callable[[int, int], None]) -> "Engine":
        # What the page asks for is a name of the store or a checkpoint of the runs it lists.
        known = name == model or name in {one.entry.name for one in installed()}
        if not known and not is_listed_checkpoint(runs, name):
            raise UsageError(
                f"model {name[:80]!r} is not on this machine; fetch it with: hunyuan pull",
                f"本机没有模型 {name[:80]!r}；请用 hunyuan pull 获取",
            )
        return load(name, on_progress)

    return ModelHost.of_engine(
        load(model),
        Path(model).name,
        source=model,
        loader=load_installed,
        max_waiting=max_waiting,
    )


def _upstream_host(url: str, model: str) -> "ModelHost":
    from hunyuan.serve.host import ModelHost
    from hunyuan.serve.upstream import UpstreamBackend

    backend = UpstreamBackend(url, model, api_key=os.environ.get("HUNYUAN_UPSTREAM_KEY"))
    return ModelHost(lambda _: backend)


def _announce(url: str) -> None:
    if language() == "zh":
        print(f"已就绪：{url}  （工作台页面；API 位于 {url}/v1）  按 Ctrl-C 停止", flush=True)
    else:
        print(f"ready: {url}  (workbench page; API under {url}/v1)  Ctrl-C stops", flush=True)
