"""The part of ``hunyuan serve`` that starts vLLM: options, checks, and what answers."""

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hunyuan.errors import HunyuanError, UsageError, language

if TYPE_CHECKING:
    from hunyuan.serve.host import ModelHost
    from hunyuan.serve.vllm_process import VllmPlan

Command = Callable[..., Any]

KV_DTYPES = ("auto", "bfloat16", "float16", "fp8")


@dataclass(frozen=True, kw_only=True)
class VllmOptions:
    """What a person asked of vLLM."""

    engine: str
    tensor_parallel: int
    pipeline_parallel: int
    nodes: int
    vllm: str | None
    vllm_only: bool
    vllm_option: tuple[str, ...]
    print_command: bool


def vllm_options(command: Command) -> Command:
    """``--engine`` and what goes with vLLM; the command gets them as ``vllm``."""

    @functools.wraps(command)
    def gathered(**values: Any) -> Any:
        mine = {field.name: values.pop(field.name) for field in fields(VllmOptions)}
        options = VllmOptions(**mine)
        _refuse_without_vllm(options)
        return command(**values, vllm=options)

    options: list[Callable[[Command], Command]] = [
        click.option(
            "--engine",
            type=click.Choice(["hunyuan", "vllm"]),
            default="hunyuan",
            show_default=True,
            help="Who computes: this project, or vLLM, for accelerators and many machines.",
        ),
        click.option(
            "--tensor-parallel",
            type=click.IntRange(1),
            default=1,
            metavar="N",
            help="With vllm: divide every layer among N processes.",
        ),
        click.option(
            "--pipeline-parallel",
            type=click.IntRange(1),
            default=1,
            metavar="N",
            help="With vllm: divide the layers among N stages.",
        ),
        click.option(
            "--nodes",
            type=click.IntRange(1),
            default=1,
            metavar="N",
            help="With vllm: N machines joined by Ray; see --print-command.",
        ),
        click.option("--vllm", metavar="PATH", help="With vllm: its command, if elsewhere."),
        click.option(
            "--vllm-only",
            is_flag=True,
            help="With vllm: its own server alone, without the workbench.",
        ),
        click.option(
            "--vllm-option",
            multiple=True,
            metavar="TEXT",
            help='With vllm: further options of its, such as "--seed 3"; may be repeated.',
        ),
        click.option(
            "--print-command",
            is_flag=True,
            help="With vllm: show the commands, those of Ray included, and start nothing.",
        ),
    ]
    result: Command = gathered
    for option in reversed(options):
        result = option(result)
    return result


def _refuse_without_vllm(options: VllmOptions) -> None:
    if options.engine == "vllm":
        return
    for field in fields(VllmOptions):
        plain = 1 if field.type is int or field.type == "int" else (None, False, ())
        value = getattr(options, field.name)
        given = value != plain if isinstance(plain, int) else value not in plain
        if field.name != "engine" and given:
            name = f"--{field.name.replace('_', '-')}"
            raise UsageError(
                f"{name} is for vLLM; add --engine vllm", f"{name} 用于 vLLM；请加上 --engine vllm"
            )


def make_plan(
    model: str,
    options: VllmOptions,
    *,
    host: str,
    port: int,
    dtype: str,
    kv_dtype: str,
    context: int | None,
    sequences: int | None,
    certificate: Path | None,
    key_file: Path | None,
) -> "VllmPlan":
    """What vLLM is to do; everything that can be refused is refused here, before anything runs."""
    from hunyuan.catalogue.store import locate
    from hunyuan.checkpoint.hf_config import read_hf_config
    from hunyuan.serve import vllm_process

    if kv_dtype not in KV_DTYPES:
        raise UsageError(
            f"--kv-dtype {kv_dtype!r} is unknown to vLLM; use {', '.join(KV_DTYPES)}",
            f"vLLM 不支持 --kv-dtype {kv_dtype!r}；请使用 {'、'.join(KV_DTYPES)}",
        )
    folder = locate(model)
    raw = vllm_process.read_config(folder)
    partition = None
    ours = raw.get("model_type") == "hunyuan"
    if ours:
        plain = {key: value for key, value in raw.items() if key != "quantization_config"}
        shape = read_hf_config(plain, str(folder / "config.json")).config
        partition = vllm_process.check_layout(
            shape, options.tensor_parallel, options.pipeline_parallel
        )
    # The commands can be had without vLLM on this machine.
    program = options.vllm or "vllm"
    if not options.print_command:
        program = vllm_process.find_vllm(options.vllm)
        if ours:
            vllm_process.check_plugin(program)
    return vllm_process.VllmPlan(
        program=program,
        folder=folder.absolute(),
        name=Path(model).name,
        host=host,
        port=port,
        dtype="auto" if dtype == "stored" else dtype,
        kv_dtype=kv_dtype,
        context=context,
        sequences=sequences,
        tensor=options.tensor_parallel,
        pipeline=options.pipeline_parallel,
        nodes=options.nodes,
        partition=partition,
        certificate=certificate,
        key_file=key_file,
        extra=vllm_process.split_options(options.vllm_option),
    )


def print_commands(plan: "VllmPlan") -> None:
    """Show what to run, one command a line; remarks are comments of the shell."""
    *ray, serve = plan.shown()
    zh = language() == "zh"
    for number, line in enumerate(ray):
        first = number == 0
        print(
            ("# 在第一台机器上" if first else f"# 在第 {number + 1} 台机器上")
            if zh
            else ("# on the first machine" if first else f"# on machine {number + 1}")
        )
        print(line)
    if ray:
        print("# 最后，在第一台机器上" if zh else "# last, on the first machine")
    print(serve)


def serve_alone(plan: "VllmPlan", api_key: str | None) -> None:
    """Run vLLM's own server until it or we are told to end.

    It always wants a key: unlike ours, it does not look where a request comes from, so that any
    web page in a browser of this machine could use it.
    """
    from hunyuan.serve.exposure import new_key
    from hunyuan.serve.vllm_process import VllmServer, free_port

    if plan.port == 0:
        plan = replace(plan, port=free_port())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    key = api_key or new_key()
    with VllmServer(plan, key) as server:
        if not api_key:
            _say(f"API key, shown once: {key}", f"API 密钥（仅显示一次）：{key}")
        try:
            _wait_ready(server.wait_until_ready)
            en, zh = f"ready: {server.url}  Ctrl-C stops", f"已就绪：{server.url}  按 Ctrl-C 停止"
            print(zh if language() == "zh" else en, flush=True)
            server.wait()
        except KeyboardInterrupt:
            return
        server.check_alive()


@contextmanager
def behind_workbench(plan: "VllmPlan") -> "Iterator[ModelHost]":
    """vLLM on the loopback address, as what answers for a server of ours.

    Raises `HunyuanError` if it ends by itself, also after our server has been stopped for that.
    """
    from hunyuan.serve.host import ModelHost
    from hunyuan.serve.upstream import UpstreamBackend
    from hunyuan.serve.vllm_process import VllmServer, free_port

    inner = replace(plan, host="127.0.0.1", port=free_port(), certificate=None, key_file=None)
    with VllmServer(inner) as server:
        try:
            _wait_ready(server.wait_until_ready)
        except KeyboardInterrupt:
            raise HunyuanError("stopped before vLLM was ready", "在 vLLM 就绪前已停止") from None
        server.stop_us_when_it_ends()
        backend = UpstreamBackend(server.url, inner.name, api_key=server.key)
        yield ModelHost(lambda _: backend)
        server.check_alive()


def _wait_ready(wait: Callable[[], None]) -> None:
    _say("vLLM is starting; a large model takes minutes", "正在启动 vLLM；大模型需要数分钟")
    wait()


def _say(en: str, zh: str) -> None:
    print(zh if language() == "zh" else en, file=sys.stderr, flush=True)
