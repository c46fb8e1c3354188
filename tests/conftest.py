"""What several test files share: where optional data lies, and small random models."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hunyuan.checkpoint.leaves import leaves
from hunyuan.checkpoint.load import leaf_of
from hunyuan.checkpoint.write import write_hf_folder
from hunyuan.model.config import ModelConfig, preset
from hunyuan.model.transformer import Transformer, build, init_weights
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden checkpoints, or a skip."""
    folder = SHARED / "golden"
    if not folder.exists():
        pytest.skip("no ../shared/golden beside the checkout: golden parity is not checked")
    return folder


@pytest.fixture
def random_model() -> Callable[..., Transformer]:
    """Makes a random model like the preset ``tiny``, with the given fields changed."""

    def make(seed: int = 0, **changes: Any) -> Transformer:
        return random_transformer(replace(preset("tiny"), **changes), seed)

    return make


def random_transformer(config: ModelConfig, seed: int = 0) -> Transformer:
    """A random model whose gains and biases differ from their neutral values."""
    model = build(config).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    init_weights(model, generator)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
            elif name.endswith("bias"):
                weight.normal_(0, 0.3, generator=generator)
            elif "embed" not in name:
                weight.mul_(4)
    return model.eval()


def write_random_checkpoint(folder: Path, config: ModelConfig) -> Path:
    """A random Hunyuan-shaped checkpoint with a byte tokenizer, as a Hugging Face folder."""
    live = random_transformer(config)
    write_hf_folder(
        write_byte_tokenizer(folder),
        config,
        "hunyuan",
        dict.fromkeys(leaves(config), torch.float32),
        lambda leaf, kind: leaf_of(live, leaf).detach().to(kind),
    )
    return folder


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_byte_tokenizer(folder: Path) -> Path:
    """A tokenizer of single bytes (ids 0-255) with ChatML turns, as a Hugging Face folder."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Native

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    native = Native(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    native.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    native.add_special_tokens([AddedToken(s, special=True) for s in specials])
    folder.mkdir(parents=True, exist_ok=True)
    native.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Single bytes and ChatML; fits a model with at least 259 embedding rows."""
    return load_tokenizer(write_byte_tokenizer(tmp_path_factory.mktemp("bytes")))
