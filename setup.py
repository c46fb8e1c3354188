"""The one dependency that is a choice: which torch.

Everything else about the project is in pyproject.toml. ``HUNYUAN_TORCH`` replaces the pinned
requirement, so that a user elsewhere can take another release or a CUDA build.
"""

import os

from setuptools import setup

setup(
    install_requires=[
        os.environ.get("HUNYUAN_TORCH") or "torch==2.13.0",
        "click>=8.1",
        "fastapi>=0.115",
        "filelock>=3.13",
        "huggingface_hub>=0.30",
        "jinja2>=3.1.6",
        "numpy>=1.26",
        "psutil>=5.9",
        "regex>=2024.5",
        "safetensors>=0.5",
        "tiktoken>=0.8",
        "tokenizers>=0.21",
        "uvicorn>=0.30",
    ]
)
