"""What several test files share: where optional data lies, and small random models."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hunyuan.model.config import ModelConfig, preset
from hunyuan.model.transformer import Transformer, build, init_weights

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
