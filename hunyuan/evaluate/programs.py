"""Programs that a model wrote, run to see whether they pass their tests.

Every program runs in a process of its own behind the walls that this machine offers
(`hunyuan.sandbox`): no network, no files but a temporary folder, limits on time, memory, processes
and output. Where no wall stands nothing is run.
"""

import asyncio
from functools import cache

from hunyuan.errors import Language
from hunyuan.sandbox.cpython import CPythonRunner
from hunyuan.sandbox.result import MAX_CODE_BYTES, Limits

LIMITS = Limits(seconds=60.0, processor_seconds=10.0, memory_bytes=1 << 30)
"""The clock is generous: a score must not depend on what else the machine has to do."""

_LAST_LINE = "'every test passed'"


def passes(program: str) -> bool:
    """Whether ``program`` comes to its end without an error in time.

    One that leaves early with success (``exit(0)``) or is too long to be run does not. Raises
    `UsageError` where nothing holds it.
    """
    whole = f"{program}\n{_LAST_LINE}\n"
    if len(whole.encode("utf-8", "replace")) > MAX_CODE_BYTES:
        return False
    result = asyncio.run(_runner().run(whole))
    # The value of the last line is there only if that was reached.
    return result.error is None and result.value == _LAST_LINE


def active_layers(lang: Language) -> list[str]:
    """What holds programs on this machine, for people; `UsageError` if nothing does."""

    async def look() -> list[str]:
        await _runner().run("pass")
        layers = await _runner().layers()
        return [layer.name_zh if lang == "zh" else layer.name_en for layer in layers]

    return asyncio.run(look())


@cache
def _runner() -> CPythonRunner:
    # Which walls stand here is tried out once, not for each of a thousand programs.
    return CPythonRunner(LIMITS)
