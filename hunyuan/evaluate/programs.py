"""Programs that a model wrote, run to see whether they pass their tests.

Every program runs in a process of its own behind the walls that this machine offers
(`hunyuan.sandbox`): no network, no files but a temporary folder, limits on time, memory, processes
and output. Where no wall stands nothing is run.
"""

import asyncio

from hunyuan.errors import Language
from hunyuan.sandbox.cpython import CPythonRunner
from hunyuan.sandbox.result import Limits

LIMITS = Limits(seconds=10.0, memory_bytes=1 << 30)


def passes(program: str) -> bool:
    """Whether ``program`` ends without an error in time; `UsageError` where nothing holds it."""

    async def run() -> bool:
        return (await CPythonRunner(LIMITS).run(program)).error is None

    return asyncio.run(run())


def active_layers(lang: Language) -> list[str]:
    """What holds programs on this machine, for people; `UsageError` if nothing does."""

    async def look() -> list[str]:
        runner = CPythonRunner(LIMITS)
        await runner.run("pass")
        return [layer.name_zh if lang == "zh" else layer.name_en for layer in await runner.layers()]

    return asyncio.run(look())
