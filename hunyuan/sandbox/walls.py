"""The two ways to put full Python behind walls: bubblewrap, and where that is missing sandlock.

Bubblewrap makes namespaces: the program has a file system, a network and processes of its own, and
`seccomp` takes dangerous system calls away. Sandlock needs no namespaces: Landlock keeps the
program to the folders named here, and its own seccomp filter and supervisor do the rest.

Nothing is believed that was not tried: a wall counts if a program ran behind it, because many
systems and containers have the tools and forbid what they do.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from hunyuan.sandbox import seccomp
from hunyuan.sandbox.layers import Layer

PRIVATE_BYTES = 64 * 1024**2
"""Room in a program's private folder."""

_PROBE_SECONDS = 10.0
_FOLDER = Path(__file__).parent
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_BASE = Path(sys.base_prefix)
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64")
_DEVICES = ("null", "zero", "random", "urandom")

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""All that a program inherits."""

Start = tuple[list[str], tuple[int, ...]]
"""A command and the descriptors that it inherits."""


class Walls(Protocol):
    """A way to start the inner half so that it can reach nothing else."""

    async def layers(self) -> list[Layer]:
        """What it consists of and whether it works here."""

    def command(self, sizes: Sequence[int]) -> AbstractContextManager[Start]:
        """What starts the inner half, valid within the block.

        It is started with `ENVIRONMENT`. ``sizes`` are the first arguments of ``inside.py``.
        """

    def plain(self, text: str) -> str:
        """The text without paths of this machine."""


class Bubblewrap:
    """Namespaces by bubblewrap, system calls filtered by `seccomp`."""

    async def layers(self) -> list[Layer]:
        """See `Walls.layers`."""
        problem = await self._problem()
        en, zh = problem or ("", "")
        named = [
            ("namespaces", "namespaces (bubblewrap): no network, no other processes",
             "命名空间（bubblewrap）：无网络、无其他进程"),
            ("files", "files read-only, a private folder (bubblewrap)",
             "文件只读，私有目录（bubblewrap）"),
            ("seccomp", "seccomp: no new processes, no sockets", "seccomp：不能新建进程或套接字"),
        ]  # fmt: skip
        on = problem is None
        return [
            Layer(id=i, on=on, name_en=n, name_zh=m, missing_en=en, missing_zh=zh)
            for i, n, m in named
        ]

    @contextmanager
    def command(self, sizes: Sequence[int]) -> Iterator[Start]:
        """See `Walls.command`."""
        with tempfile.TemporaryFile() as rules:
            rules.write(seccomp.program())
            rules.seek(0)
            arguments = [
                *(shutil.which("bwrap") or "bwrap", *self._view()),
                *("--seccomp", str(rules.fileno()), "--"),
                *_inner("/python/bin", "/inside.py", sizes, "/packages"),
            ]
            yield arguments, (rules.fileno(),)

    def plain(self, text: str) -> str:
        """The text; a program here sees no path of this machine."""
        return text

    async def _problem(self) -> tuple[str, str] | None:
        if sys.platform != "linux":
            return "bubblewrap exists for Linux only", "bubblewrap 仅支持 Linux"
        if shutil.which("bwrap") is None:
            return (
                "bubblewrap is not installed (on Debian: apt install bubblewrap)",
                "未安装 bubblewrap（Debian：apt install bubblewrap）",
            )
        if not seccomp.known_machine():
            return "no seccomp filter for this processor", "没有适用于该处理器的 seccomp 过滤器"
        if await _runs(self):
            return None
        return (
            "bubblewrap cannot start here, user namespaces may be forbidden",
            "bubblewrap 无法在此启动，系统可能禁止了用户命名空间",
        )

    def _view(self) -> list[str]:
        """What a program sees, under names that say nothing of this machine.

        Read-only the interpreter as ``/python``, packages as ``/packages`` and the system's
        libraries; writable ``/tmp``, in memory. No ``/proc``, which tells of machine and mounts.
        """
        arguments = [
            *("--unshare-all", "--die-with-parent", "--new-session"),
            *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox", "--cap-drop", "ALL"),
            *("--ro-bind", str(_BASE), "/python"),
            *("--ro-bind-try", str(_packages()), "/packages"),
            *("--ro-bind", str(_FOLDER / "inside.py"), "/inside.py"),
            *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        ]
        for folder in _LIBRARIES:
            if os.path.islink(folder):
                arguments += ["--symlink", os.readlink(folder), folder]
            elif os.path.isdir(folder):
                arguments += ["--ro-bind", folder, folder]
        for device in _DEVICES:
            arguments += ["--dev-bind", f"/dev/{device}", f"/dev/{device}"]
        return [
            *arguments,
            *("--setenv", "HOME", "/tmp", "--setenv", "LD_LIBRARY_PATH", "/python/lib"),
            *("--size", str(PRIVATE_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"),
            *("--remount-ro", "/"),
        ]


class Sandlock:
    """Landlock and seccomp by the package sandlock, for systems without bubblewrap."""

    async def layers(self) -> list[Layer]:
        """See `Walls.layers`."""
        problem = await self._problem()
        en, zh = problem or ("", "")
        named = [
            ("landlock", "Landlock: files read-only, a private folder",
             "Landlock：文件只读，私有目录"),
            ("seccomp", "seccomp (sandlock): no network, no new processes",
             "seccomp（sandlock）：无网络，不能新建进程"),
        ]  # fmt: skip
        on = problem is None
        return [
            Layer(id=i, on=on, name_en=n, name_zh=m, missing_en=en, missing_zh=zh)
            for i, n, m in named
        ]

    @contextmanager
    def command(self, sizes: Sequence[int]) -> Iterator[Start]:
        """See `Walls.command`."""
        inner = _inner(f"{_BASE}/bin", str(_FOLDER / "inside.py"), sizes, str(_packages()))
        readable = [str(_BASE), str(_packages()), str(_FOLDER / "inside.py")]
        readable += [folder for folder in _LIBRARIES if os.path.isdir(folder)]
        readable += [f"/dev/{device}" for device in _DEVICES]
        with tempfile.TemporaryDirectory() as private:
            launcher = [sys.executable, "-I", str(_FOLDER / "launch.py"), private]
            yield [*launcher, str(PRIVATE_BYTES), os.pathsep.join(readable), *inner], ()

    def plain(self, text: str) -> str:
        """The text with the names that bubblewrap would have given."""
        for path, name in ((_packages(), "/packages"), (_BASE, "/python"), (_FOLDER, "")):
            text = text.replace(str(path), name)
        return text.replace(tempfile.gettempdir(), "/tmp")

    async def _problem(self) -> tuple[str, str] | None:
        if sys.platform != "linux":
            return "Landlock exists for Linux only", "Landlock 仅支持 Linux"
        if find_spec("sandlock") is None:
            return (
                "sandlock is not installed (pip install sandlock)",
                "未安装 sandlock（pip install sandlock）",
            )
        if await _runs(self):
            return None
        return (
            "sandlock cannot start here, it needs Linux 6.7 with Landlock",
            "sandlock 无法在此启动，需要启用 Landlock 的 Linux 6.7 及以上版本",
        )


def _inner(folder: str, script: str, sizes: Sequence[int], packages: str) -> list[str]:
    flags = ("-I", "-S", "-X", "utf8")
    return [f"{folder}/{_PYTHON}", *flags, script, *map(str, sizes), packages]


def _packages() -> Path:
    """The folder of installed packages."""
    return Path(sys.prefix) / "lib" / _PYTHON / "site-packages"


async def _runs(walls: Walls) -> bool:
    """Whether a program that does nothing comes to its end behind the walls."""
    with walls.command((10, 1024**3, 1024, 100)) as (command, descriptors):
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=descriptors,
            env=ENVIRONMENT,
            cwd="/",
        )
        try:
            _, said = await asyncio.wait_for(process.communicate(b"6 * 7"), _PROBE_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            return False
    return b'"42"' in said
