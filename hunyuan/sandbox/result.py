"""What a run came to, and how long and how much it was allowed."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from hunyuan.errors import Language, OverloadedError, UsageError

Failure = Literal["exception", "syntax", "time", "memory", "output", "recursion", "crash"]

PROGRAM = "program.py"
"""How a program is called in its own error messages; no path of the server is."""

MAX_CODE_BYTES = 64 * 1024
MAX_VALUE_CHARACTERS = 4000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one run may use."""

    seconds: float
    """On the clock."""

    memory_bytes: int
    output_bytes: int = 100_000

    processor_seconds: float | None = None
    """Of processor time; None: as on the clock. A busy machine makes only the clock run out."""


@dataclass(frozen=True, kw_only=True)
class RunError:
    """Why a program ended early."""

    kind: Failure
    type: str
    """Name of the exception."""

    message: str
    line: int | None
    """Line of the program, from 1; None where it is not known."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a program printed and came to."""

    runner: str
    stdout: str
    """What was printed, standard error included, in the order it came."""

    value: str | None
    """``repr`` of the last line if that is an expression and not None."""

    error: RunError | None
    seconds: float
    truncated: bool
    """Whether output or value were cut."""

    def data(self, limits: Limits, lang: Language) -> dict[str, Any]:
        """As JSON values; an error's ``message`` is for people, ``detail`` what Python said."""
        plain = asdict(self)
        plain["seconds"] = round(self.seconds, 4)
        if self.error is not None:
            plain["error"]["detail"] = self.error.message
            plain["error"]["message"] = explain(self.error, limits)[lang]
        return plain


class BusyError(OverloadedError):
    """As many programs are running as may run at once."""

    def __init__(self) -> None:
        super().__init__(
            "other programs are still running; try again in a moment",
            "还有其他程序正在运行；请稍后再试",
        )


class Runner(Protocol):
    """Something that runs programs."""

    name: str
    limits: Limits

    async def run(self, code: str) -> RunResult:
        """Run a program to its end or its limits; cancelling the task stops it at once.

        Raises `UsageError` for a program that is too long, `BusyError` if too many are running.
        """

    async def close(self) -> None:
        """End the worker processes."""


def explain(error: RunError, limits: Limits) -> dict[Language, str]:
    """One sentence on why a program ended, in both languages."""
    seconds = f"{limits.seconds:g}"
    megabytes = limits.memory_bytes // 1024**2
    kilobytes = limits.output_bytes // 1000
    sentences: dict[str, tuple[str, str]] = {
        "time": (
            f"stopped after {seconds} s; look for a loop that does not end",
            f"运行超过 {seconds} 秒，已停止；请检查是否有不会结束的循环",
        ),
        "memory": (
            f"stopped: it needed more than {megabytes} MB of memory; use smaller lists or numbers",
            f"已停止：所需内存超过 {megabytes} MB；请使用更小的列表或数值",
        ),
        "output": (
            f"stopped: it printed more than {kilobytes} kB; print less",
            f"已停止：输出超过 {kilobytes} kB；请减少打印",
        ),
        "recursion": (
            "a function calls itself too deeply; check where it ends",
            "函数递归过深；请检查递归的结束条件",
        ),
        "crash": (
            "the program brought its interpreter down; nothing else was affected",
            "程序使解释器崩溃；其他功能不受影响",
        ),
    }
    plain = f"{error.type}: {error.message}" if error.message else error.type
    en, zh = sentences.get(error.kind, (plain, plain))
    if error.type == "ModuleNotFoundError":
        en += "; full Python has all of its library, the safe interpreter a few modules"
        zh += "；完整 Python 有全部标准库，安全解释器只有少数模块"
    if error.line is not None:
        en, zh = f"line {error.line}: {en}", f"第 {error.line} 行：{zh}"
    return {"en": en, "zh": zh}


def require_short(code: str) -> None:
    """Raise `UsageError` for a program that is too long or no text that Python reads."""
    size = len(code.encode("utf-8", "surrogatepass"))
    if size > MAX_CODE_BYTES:
        raise UsageError(
            f"code: {size} bytes, at most {MAX_CODE_BYTES} can be run; shorten the program",
            f"code：{size} 字节，最多可运行 {MAX_CODE_BYTES} 字节；请缩短程序",
        )
