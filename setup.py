"""What pyproject.toml cannot say: which torch, and how the native kernels are compiled.

``HUNYUAN_TORCH`` replaces the pinned torch requirement, so that a user elsewhere can take another
release or a CUDA build. The kernels are a plain C++ library, one object file per instruction set;
which one runs is decided at run time. Without a compiler the package installs all the same and
runs on torch alone (``hunyuan doctor`` says so).
"""

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = Path("hunyuan/native/src")
X86 = platform.machine() in ("x86_64", "AMD64")
FLAGS = {
    # Not for speed: three times as fast to compile, and about as fast to run.
    "kernels_generic": ["-O2"],
    "kernels_avx2": ["-mavx2", "-mfma", "-mf16c"],
    "kernels_avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
        *("-mfma", "-mf16c"),
    ],
}
COMMON = [
    *("-O3", "-g0", "-std=c++17", "-fPIC", "-fvisibility=hidden"),
    # Contracting a * b + c at the compiler's choice would make results depend on how many tokens
    # are computed together.
    "-ffp-contract=off",
    # GCC 12 warns of its own AVX-512 header.
    *("-Wall", "-Wextra", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
]


class BuildKernels(build_ext):
    """Compiles every source with the flags of its own instruction set."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link one library."""

        def compiled(source: str) -> list[str]:
            extra = FLAGS.get(Path(source).stem, []) if X86 or "generic" in source else []
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                depends=ext.depends,
                extra_postargs=[*COMMON, *extra],
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = [name for names in pool.map(compiled, ext.sources) for name in names]
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), libraries=["pthread"], target_lang="c++"
        )


setup(
    ext_modules=[
        Extension(
            "hunyuan.native._kernels",
            sorted(str(path) for path in SOURCES.glob("*.cpp")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
    install_requires=[
        os.environ.get("HUNYUAN_TORCH") or "torch==2.13.0",
        "click>=8.1",
        "fastapi>=0.115",
        "filelock>=3.13",
        "httpx2>=2.16",
        "huggingface_hub>=0.30",
        "jinja2>=3.1.6",
        "latex2sympy2_extended>=1.11",
        "llguidance>=1.7",
        "math-verify>=0.9",
        "numpy>=1.26",
        "prometheus-client>=0.22",
        "psutil>=5.9",
        "pydantic-monty>=1.4,<2",
        "pypdfium2>=5.15",
        "regex>=2024.5",
        "safetensors>=0.5",
        "sympy>=1.14,<1.15",
        "tiktoken>=0.8",
        "tokenizers>=0.21",
        "tomli-w>=1.0",
        "uvicorn>=0.30",
    ],
)
