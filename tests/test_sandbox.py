"""Programs that mean harm, each with what becomes of it; and that nothing else suffers."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.errors import UsageError
from hunyuan.sandbox.cpython import CPythonRunner
from hunyuan.sandbox.monty import MontyRunner, with_value_as_text
from hunyuan.sandbox.result import MAX_CODE_BYTES, Limits, Runner, RunResult, explain
from hunyuan.sandbox.walls import Bubblewrap, Sandlock, Walls

LIMITS = Limits(seconds=20.0, memory_bytes=512 * 1024**2, output_bytes=20_000)
BRIEF = Limits(seconds=1.0, memory_bytes=512 * 1024**2, output_bytes=20_000)
"""For programs that use all their time, or may."""

SMALL = Limits(seconds=0.5, memory_bytes=32 * 1024**2, output_bytes=20_000)

# What a program is, and how it ends in the interpreter and in full Python: the kind of failure and,
# after a colon, the exception. "ok" is a program that runs and gets nothing by it.
HOSTILE = {
    "endless loop": ("while True: pass", "time", "time"),
    "endless loop that swallows errors": (
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "time",
        "time",
    ),
    "endless generator": ("for _ in iter(int, 1): pass", "time", "time"),
    "long sleep": ("import time\ntime.sleep(1000)", "time", "time"),
    "tower of nines": ("9**9**9**9", "memory", "time"),
    "huge factorial": ("import math\nmath.factorial(10**8)", "memory", "time"),
    "huge string": ("'a' * 10**10", "memory", "memory"),
    "huge list": ("[0] * 10**10", "memory", "memory"),
    "growing list": ("x = []\nwhile True: x.append('a' * 1000)", "memory|time", "memory|time"),
    "doubling list": ("x = [0]\nwhile True: x = x + x", "memory|time", "memory|time"),
    "list that doubles when shown": (
        "a = [1]\nfor _ in range(40): a = [a, a]\na",
        "memory|time",
        "memory|time",
    ),
    "one huge line of output": ("print('x' * 10**7)", "output", "output"),
    "endless output": ("while True: print('x' * 100)", "output|time", "output|time"),
    "endless recursion": ("def f(): return f()\nf()", "recursion", "recursion"),
    "recursion without a limit": (
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        "exception:AttributeError",
        "crash|time|memory",
    ),
    "deep nesting": ("(" * 5000 + ")" * 5000, "syntax", "syntax"),
    "deep unary chain": ("-" * 30000 + "1", "syntax", "memory"),
    "read a system file": (
        "open('/etc/passwd').read()",
        "exception:PermissionError",
        "exception:FileNotFoundError|exception:PermissionError",
    ),
    "read the server's environment": (
        "open(f'/proc/1/environ').read()",
        "exception:PermissionError",
        "exception:FileNotFoundError|exception:PermissionError",
    ),
    "read by pathlib": (
        "from pathlib import Path\nPath('/etc/shadow').read_text()",
        "exception:PermissionError",
        "exception:FileNotFoundError|exception:PermissionError",
    ),
    "write a file": (
        "open('/hunyuan-was-here', 'w').write('x')",
        "exception:PermissionError",
        "exception:OSError|exception:PermissionError",
    ),
    "write into the interpreter": (
        "import os, sys\nopen(os.path.join(sys.prefix, 'x'), 'w')",
        "exception",
        "exception",
    ),
    "symbolic link out": (
        "import os\nos.symlink('/etc/shadow', 'link')\nopen('link').read()",
        "exception",
        "exception:FileNotFoundError|exception:PermissionError",
    ),
    "climb out of the folder": (
        "open('../../../../../../etc/passwd').read()",
        "exception",
        "exception:FileNotFoundError|exception:PermissionError",
    ),
    "fill the disk": (
        "for i in range(10**6):\n  with open(f'f{i}', 'wb') as file: file.write(b'x' * 10**7)",
        "exception",
        "exception:OSError",
    ),
    "one huge file": ("open('f', 'wb').write(b'x' * 10**8)", "exception", "exception:OSError"),
    "shell": ("import os\nos.system('touch /tmp/hunyuan-was-here')", "exception", "ok"),
    "subprocess": ("import subprocess\nsubprocess.run(['/bin/ls'])", "exception", "exception"),
    "fork bomb": ("import os\nwhile True: os.fork()", "exception", "exception"),
    "multiprocessing": (
        "import multiprocessing as m\nm.Process(target=print).start()",
        "exception",
        "exception",
    ),
    "thread bomb": (
        "import threading, time\n"
        "while True: threading.Thread(target=time.sleep, args=(9,)).start()",
        "exception",
        "exception:RuntimeError|time",
    ),
    "connect to the server": (
        "import socket\nsocket.create_connection(('127.0.0.1', 8000), 1)",
        "exception:ModuleNotFoundError",
        "exception:PermissionError",
    ),
    "fetch a page": (
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:8000')",
        "exception:ModuleNotFoundError",
        "exception",
    ),
    "native code": ("import ctypes\nctypes.string_at(0)", "exception", "crash"),
    "system call": (
        "import ctypes\nprint(ctypes.CDLL(None).ptrace(0, 0, 0, 0))",
        "exception",
        "ok",
    ),
    "signal to the server": (f"import os\nos.kill({os.getpid()}, 0)", "exception", "exception"),
    "kill oneself": ("import os\nos.kill(os.getpid(), 9)", "exception", "crash"),
    "signal handler against the end": (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass",
        "exception",
        "time",
    ),
    "exit": ("import os\nos._exit(0)", "exception", "crash"),
    "lie about the outcome": (
        "import os\nfor n in range(3, 20):\n  try: os.write(n, b'x' * 10**6)\n  except OSError: 0",
        "exception",
        "output",
    ),
    "classes of everything": (
        "().__class__.__base__.__subclasses__()[0].__name__",
        "exception:AttributeError",
        "ok",
    ),
    "import by name": ("__import__('os').system('id')", "exception", "ok"),
    "evaluated text": ("eval('__import__(\"os\").environ')", "exception", "ok"),
    "lone surrogates": ("print('\\ud800' * 3)", "ok", "ok"),
    "null bytes": ("x = '\0'", "syntax|ok", "syntax"),
    "hostile repr": (
        "class A:\n  def __repr__(self):\n    while True: pass\nA()",
        "time",
        "time",
    ),
    "exception that fails to speak": (
        "class E(Exception):\n  def __str__(self): raise E\nraise E",
        "exception",
        "exception",
    ),
    "greedy regular expression": (
        "import re\nre.match(r'(a|aa|aaa|b?)+$', 'a' * 60 + '!')",
        "ok|time|exception",
        "time",
    ),
}  # fmt: skip

SECRETS = (str(Path(__file__).parents[1]), str(Path.home()), sys.prefix, sys.base_prefix)


def outcome(result: RunResult) -> str:
    if result.error is None:
        return "ok"
    kind = result.error.kind
    return f"{kind}:{result.error.type}" if kind == "exception" else kind


def check(result: RunResult, expected: str, limits: Limits) -> None:
    got = outcome(result)
    allowed = expected.split("|")
    assert got in allowed or got.split(":")[0] in allowed, (got, result)
    shown = f"{result.stdout} {result.value} {result.error}"
    for secret in SECRETS:
        assert secret not in shown
    assert not os.path.exists("/tmp/hunyuan-was-here")
    assert not os.path.exists("/hunyuan-was-here")
    assert len(result.stdout.encode()) <= limits.output_bytes
    assert result.seconds < limits.seconds + 15


@asynccontextmanager
async def closing(runner: Runner) -> AsyncIterator[Runner]:
    try:
        yield runner
    finally:
        await runner.close()


async def tried(runner: Runner, code: str) -> tuple[RunResult, RunResult]:
    """What became of a program, and of a harmless one after it."""
    async with closing(runner):
        return await runner.run(code), await runner.run("print('well')\n6 * 7")


@pytest.mark.parametrize("name", HOSTILE)
def test_the_interpreter_survives(name: str) -> None:
    code, expected, _ = HOSTILE[name]
    result, after = asyncio.run(tried(MontyRunner(SMALL), code))
    check(result, expected, SMALL)
    assert (after.stdout, after.value, after.error) == ("well\n", "42", None)


@cache
def lacking(walls: type[Walls]) -> str:
    layers = asyncio.run(walls().layers())
    return "; ".join({layer.missing_en for layer in layers if not layer.on})


# What keeps the time is the same for both walls, so the second one is tried with one such program.
WALLED = [
    (name, walls)
    for walls in (Bubblewrap, Sandlock)
    for name, (_, _, expected) in HOSTILE.items()
    if walls is Bubblewrap or "time" not in expected or name == "endless loop"
]


@pytest.mark.parametrize(("name", "walls"), WALLED)
def test_full_python_is_held(name: str, walls: type[Walls]) -> None:
    if lacking(walls):
        pytest.skip(lacking(walls))
    code, _, expected = HOSTILE[name]
    limits = BRIEF if "time" in expected else LIMITS
    hostile = CPythonRunner(limits, choices=[walls()])
    harmless = CPythonRunner(LIMITS, choices=[walls()])

    async def run() -> list[RunResult]:
        return await asyncio.gather(hostile.run(code), harmless.run("print('well')\n6 * 7"))

    result, beside = asyncio.run(run())
    check(result, expected, limits)
    assert (beside.stdout, beside.value, beside.error) == ("well\n", "42", None)


@pytest.fixture(params=["monty", "bubblewrap", "sandlock"])
def runner(request: pytest.FixtureRequest) -> Runner:
    if request.param == "monty":
        return MontyRunner(SMALL)
    walls = {"bubblewrap": Bubblewrap, "sandlock": Sandlock}[request.param]
    if lacking(walls):
        pytest.skip(lacking(walls))
    return CPythonRunner(LIMITS, choices=[walls()])


def one(runner: Runner, code: str) -> RunResult:
    return asyncio.run(tried(runner, code))[0]


@pytest.mark.parametrize(
    ("code", "stdout", "value"),
    [
        ("1 + 1", "", "2"),
        ("x = [1,\n2,\n3]\nsum(x)  # comment", "", "6"),
        ("# 中\nx = '中'; '中文😀' + x ;", "", "'中文😀中'"),
        ("print('一')\nNone", "一\n", None),
        ("print(1)\r\n2", "1\n", "2"),
        ("*[1], 2", "", "(1, 2)"),
        ("if True:\n  3", "", None),
        ("", "", None),
        ("(y := 3)", "", "3"),
    ],
)
def test_output_and_last_value(runner: Runner, code: str, stdout: str, value: str | None) -> None:
    result = one(runner, code)
    assert (result.stdout, result.value, result.error) == (stdout, value, None)
    assert not result.truncated


@pytest.mark.parametrize(
    ("code", "kind", "name", "line"),
    [
        ("x = 1\n\n1 / 0", "exception", "ZeroDivisionError", 3),
        ("def f():\n  raise ValueError('nö')\nf()", "exception", "ValueError", 2),
        ("x = 1\nx = = 2", "syntax", "SyntaxError", 2),
        ("(", "syntax", "SyntaxError", 1),
        ("import nowhere", "exception", "ModuleNotFoundError", 1),
    ],
)
def test_errors_name_their_line(runner: Runner, code: str, kind: str, name: str, line: int) -> None:
    error = one(runner, code).error
    assert error is not None
    assert (error.kind, error.type, error.line) == (kind, name, line)
    told = explain(error, runner.limits)
    assert told["en"].startswith(f"line {line}: ")
    assert told["zh"].startswith(f"第 {line} 行：")


def test_output_before_the_end_is_kept(runner: Runner) -> None:
    result = one(runner, "print('before')\n1 / 0")
    assert result.stdout == "before\n"
    assert result.error is not None


def test_a_long_value_is_cut_and_said_so(runner: Runner) -> None:
    result = one(runner, "'x' * 9000")
    assert result.truncated
    assert result.value is not None
    assert len(result.value) == 4000


def test_too_long_a_program_is_refused(runner: Runner) -> None:
    with pytest.raises(UsageError, match="shorten"):
        one(runner, "#" + "x" * MAX_CODE_BYTES)


def test_cancelling_stops_the_program(runner: Runner) -> None:
    """A stopped program frees its place at once: twice as many as there are places run through."""
    runner.limits = Limits(seconds=60, memory_bytes=LIMITS.memory_bytes)

    async def run() -> float:
        async with closing(runner):
            await runner.run("1")
            began = time.monotonic()
            for _ in range(4):
                task = asyncio.ensure_future(runner.run("while True: pass"))
                done, _ = await asyncio.wait({task}, timeout=0.1)
                assert not done
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await runner.run("6 * 7")).value == "42"
            return time.monotonic() - began

    assert asyncio.run(run()) < 50


def test_programs_share_nothing(runner: Runner) -> None:
    async def run() -> RunResult:
        async with closing(runner):
            await runner.run("secret = 1\nopen('left', 'w').write('x')")
            return await runner.run("secret")

    result = asyncio.run(run())
    assert result.error is not None
    assert result.error.type == "NameError"


def test_full_python_has_the_installed_packages() -> None:
    runner = CPythonRunner()
    if not all(layer.on for layer in asyncio.run(runner.layers())):
        pytest.skip("no walls on this machine")
    assert one(runner, "import numpy\nint(numpy.arange(10).sum())").value == "45"


def test_full_python_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUNYUAN_API_KEY", "a-secret")
    runner = CPythonRunner()
    if not all(layer.on for layer in asyncio.run(runner.layers())):
        pytest.skip("no walls on this machine")
    result = one(runner, "import os\nsorted(os.environ)")
    assert result.value is not None
    assert "LANG" in result.value
    assert "HUNYUAN" not in result.value


def test_without_walls_full_python_refuses_and_says_what_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    runner = CPythonRunner(choices=[Bubblewrap()])
    with pytest.raises(UsageError) as caught:
        one(runner, "1")
    assert "bubblewrap is not installed" in caught.value.en
    assert "runner=monty" in caught.value.zh
    assert [layer.on for layer in asyncio.run(runner.layers())] == [False] * 3


def test_private_folders_are_gone_afterwards() -> None:
    if lacking(Sandlock):
        pytest.skip(lacking(Sandlock))
    before = set(os.listdir(tempfile.gettempdir()))
    one(CPythonRunner(LIMITS, choices=[Sandlock()]), "open('x', 'w').write('y')")
    after = set(os.listdir(tempfile.gettempdir()))
    assert not [name for name in after - before if name.startswith("tmp")]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_can_be_made_a_program(text: str) -> None:
    """The rewriting never fails and never moves a line."""
    rewritten = with_value_as_text(text)
    assert rewritten.count("\n") >= text.replace("\r\n", "\n").count("\n")
