"""Whatever can be evaluated: our engine, a model of transformers or vLLM, a server.

    NAME or FOLDER        a model of this project, by the engine
    hf:NAME_OR_FOLDER     by transformers
    vllm:NAME_OR_FOLDER   by vLLM
    api:URL#MODEL         an OpenAI-compatible server; its key in HUNYUAN_UPSTREAM_KEY

All but the first are the harness's own.
"""

import hashlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hunyuan.errors import UsageError
from hunyuan.evaluate.engine_model import EngineModel

if TYPE_CHECKING:
    from hunyuan.engine.engine import Engine


class EngineSubject:
    """A model run by this project's engine."""

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
    """A model of the harness itself."""

    truncated = 0

    def __init__(self, kind: str, arguments: dict[str, Any]) -> None:
        from lm_eval.api.registry import get_model

        needed = {"hf": "accelerate", "vllm": "vllm"}.get(kind)
        if needed is not None and find_spec(needed) is None:
            raise UsageError(
                f"{kind}: needs {needed}; pip install 'lm-eval[{kind}]'",
                f"{kind}：需要 {needed}；请运行 pip install 'lm-eval[{kind}]'",
            )
        self._described = {"backend": kind, **arguments}
        folder = Path(str(arguments.get("pretrained", "")))
        if folder.is_dir():
            self._described["sha256"] = weights_hash(folder)
        if kind.startswith("local-"):
            os.environ.setdefault("OPENAI_API_KEY", os.environ.get("HUNYUAN_UPSTREAM_KEY", "none"))
        self.model = get_model(kind).create_from_arg_obj(arguments)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text; of a server's model an estimate, by characters."""
        if hasattr(self.model, "tok_encode") and self._described["backend"] in ("hf", "vllm"):
            return len(self.model.tok_encode(text))
        wide = sum(character > "\u2e7f" for character in text)
        return wide + (len(text) - wide) // 3

    def describe(self) -> dict[str, Any]:
        """What the harness was told."""
        return self._described


def open_subject(
    spec: str,
    load: Callable[[str], tuple["Engine", Path]],
    *,
    dtype: str,
    chat: bool,
    forbid_cut: bool,
) -> EngineSubject | HarnessSubject:
    """The model that ``spec`` names; ``load`` makes an engine and tells where the model lies.

    Raises `UsageError` for a form that is none of the above.
    """
    kind, colon, rest = spec.partition(":")
    if kind in ("hf", "vllm") and colon:
        settings = {} if dtype == "auto" else {"dtype": dtype}
        if kind == "hf":
            import torch

            settings["device"] = "cuda" if torch.cuda.is_available() else "cpu"
        return HarnessSubject(kind, {"pretrained": rest, **settings})
    if kind == "api" and colon:
        url, mark, name = rest.partition("#")
        if not mark or not name or "://" not in url:
            raise UsageError(
                f"model {spec!r}: a server is written api:URL#MODEL, "
                "such as api:http://127.0.0.1:8000/v1#my-model",
                f"模型 {spec!r}：服务应写作 api:URL#模型名，"
                "例如 api:http://127.0.0.1:8000/v1#my-model",
            )
        path = "chat/completions" if chat else "completions"
        arguments = {
            "model": name,
            "base_url": f"{url.rstrip('/')}/{path}",
            "num_concurrent": 4,
            "max_retries": 8,
            "tokenized_requests": False,
            "tokenizer_backend": None,
        }
        return HarnessSubject("local-chat-completions" if chat else "local-completions", arguments)
    engine, folder = load(spec)
    return EngineSubject(engine, folder, dtype, forbid_cut=forbid_cut)


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
