"""Whatever can be evaluated: our engine, a model of transformers or vLLM, a server.

    NAME or FOLDER        a model of this project, by the engine
    hf:NAME_OR_FOLDER     by transformers
    vllm:NAME_OR_FOLDER   by vLLM
    api:URL#MODEL         an OpenAI-compatible server; its key in HUNYUAN_UPSTREAM_KEY

transformers and vLLM are driven by the harness itself.
"""

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hunyuan.errors import UsageError
from hunyuan.evaluate.engine_model import EngineModel
from hunyuan.evaluate.server import TIMEOUT, Server, split_server
from hunyuan.evaluate.server_model import ServerModel

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine


class EngineSubject:
    """A model run by this project's engine."""

    takes_seed = True

    def __init__(self, engine: "Engine", folder: Path, dtype: str, *, forbid_cut: bool) -> None:
        self.model = EngineModel(engine, forbid_cut=forbid_cut)
        self._folder = folder
        self._dtype = dtype

    @property
    def truncated(self) -> int:
        """Prompts whose beginning was cut off."""
        return self.model.truncated

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.model.engine.tokenizer.encode(text))

    def describe(self) -> dict[str, Any]:
        """Name, hash of its files, template, routing, dtype."""
        engine = self.model.engine
        config = engine.model.config
        return {
            "backend": "hunyuan",
            "name": self._folder.name,
            "sha256": weights_hash(self._folder),
            "dtype": self._dtype,
            "context": engine.context,
            "parameters": config.total_parameters,
            "routing": "dropless" if config.experts else None,
            "chat_template": engine.tokenizer.chat_template,
        }


class HarnessSubject:
    """A model of transformers or vLLM, driven by the harness; what it cuts it does not tell."""

    truncated = None

    def __init__(self, kind: str, arguments: dict[str, Any]) -> None:
        from lm_eval.api.registry import get_model

        needed = {"hf": "accelerate", "vllm": "vllm"}[kind]
        if find_spec(needed) is None:
            raise UsageError(
                f"{kind}: needs {needed}; pip install 'lm-eval[{kind}]'",
                f"{kind}：需要 {needed}；请运行 pip install 'lm-eval[{kind}]'",
            )
        self.takes_seed = kind == "vllm"
        self._described = {"backend": kind, **arguments}
        folder = Path(str(arguments["pretrained"]))
        if folder.is_dir():
            self._described["sha256"] = weights_hash(folder)
        self.model = get_model(kind).create_from_arg_obj(arguments)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.model.tok_encode(text))

    def describe(self) -> dict[str, Any]:
        """What the harness was told."""
        return self._described


class ServerSubject:
    """A model behind an OpenAI-compatible server, which refuses prompts that are too long."""

    takes_seed = True
    truncated = 0

    def __init__(self, spec: str, *, chat: bool, parallel: int, timeout: float) -> None:
        url, name = split_server(spec)
        self.model = ServerModel(Server(url, timeout=timeout), name, chat=chat, parallel=parallel)
        self._described = {"backend": "server", "name": name, "url": url}

    def count_tokens(self, text: str) -> int:
        """An estimate, by characters."""
        wide = sum(character > "\u2e7f" for character in text)
        return wide + (len(text) - wide) // 3

    def describe(self) -> dict[str, Any]:
        """Where it is; what runs there only its operator knows."""
        return self._described


def open_subject(
    spec: str,
    load: Callable[[str], tuple["Engine", Path]],
    *,
    dtype: str,
    chat: bool,
    forbid_cut: bool,
    parallel: int | None = None,
    timeout: float | None = None,
) -> EngineSubject | HarnessSubject | ServerSubject:
    """The model that ``spec`` names; ``load`` makes an engine and tells where the model lies.

    ``parallel``: rows of a batch of transformers, requests at once to a server. vLLM decides by
    itself, and an engine's is set by ``load``. ``timeout``: seconds to wait for a server's answer.

    Raises `UsageError` for a form that is none of the above, and for a chat with a model that has
    no template.
    """
    kind, colon, rest = spec.partition(":")
    if kind == "api" and colon:
        return ServerSubject(spec, chat=chat, parallel=parallel or 4, timeout=timeout or TIMEOUT)
    if kind in ("hf", "vllm") and colon:
        if forbid_cut:
            raise UsageError(
                f"--forbid-cut: {kind} cuts prompts without telling; leave it out, or evaluate the "
                "weights by this project's engine (their folder without a prefix)",
                f"--forbid-cut：{kind} 截断提示时不会告知；请去掉该选项，"
                "或用本项目的引擎评测（不带前缀的目录）",
            )
        settings: dict[str, Any] = {} if dtype == "auto" else {"dtype": dtype}
        if kind == "hf":
            import torch

            settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
            settings["batch_size"] = parallel or 1
        subject = HarnessSubject(kind, {"pretrained": rest, **settings})
        if chat and not getattr(subject.model.tokenizer, "chat_template", None):
            raise _no_template(spec)
        return subject
    engine, folder = load(spec)
    if chat and engine.tokenizer.chat_template is None:
        raise _no_template(spec)
    return EngineSubject(engine, folder, dtype, forbid_cut=forbid_cut)


def _no_template(spec: str) -> UsageError:
    return UsageError(
        f"{spec}: has no chat template, so there is no --chat with it; leave --chat out, or add "
        "chat_template.jinja to its folder",
        f"{spec}：没有对话模板，无法使用 --chat；请去掉 --chat，"
        "或在其目录中加入 chat_template.jinja",
    )


def weights_hash(path: Path) -> str:
    """One hash of a model file, or of all files of a folder that say what the model computes."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.iterdir() if p.is_file())
    for file in files:
        if file.suffix in (".safetensors", ".gguf", ".json", ".jinja", ".model"):
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
