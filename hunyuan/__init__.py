"""hunyuan: an open, independent stack for Hunyuan-Large-class mixture-of-experts models.

    import hunyuan

    model = hunyuan.load_packed("qwen2.5-coder-0.5b-instruct")
    tokenizer = hunyuan.load_tokenizer("qwen2.5-coder-0.5b-instruct")
    print(hunyuan.Engine(model, tokenizer).generate("1 + 1 =", max_tokens=8).text)

Names are imported when first used, so that asking a command for its usage never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hunyuan.checkpoint.load import load_model, load_packed, load_tokenizer
    from hunyuan.engine.engine import Engine
    from hunyuan.engine.request import SamplingParams
    from hunyuan.model.config import ModelConfig

__version__ = "0.1.0"

__all__ = [
    "Engine",
    "ModelConfig",
    "SamplingParams",
    "load_model",
    "load_packed",
    "load_tokenizer",
]

_HOMES = {
    "Engine": "hunyuan.engine.engine",
    "ModelConfig": "hunyuan.model.config",
    "SamplingParams": "hunyuan.engine.request",
    "load_model": "hunyuan.checkpoint.load",
    "load_packed": "hunyuan.checkpoint.load",
    "load_tokenizer": "hunyuan.checkpoint.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hunyuan' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
