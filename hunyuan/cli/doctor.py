"""``hunyuan doctor``: what this machine offers and whether the installation works."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from hunyuan import __version__
from hunyuan.cli.commit import commit
from hunyuan.errors import HunyuanError, language
from hunyuan.files import existing_parent, human_bytes


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--report", is_flag=True, help="Print the block that a bug report needs.")
def doctor(as_json: bool, report: bool) -> None:
    """Report versions, processor, memory and disk, and compute with a tiny model.

    Ends with exit code 1 if a check fails. The output holds no prompts, keys or file contents;
    that of --report no user's name and no path of a home folder either.
    """
    facts = _facts()
    added = _plugins()
    checks = {name: _outcome(check) for name, check in _CHECKS.items()}
    checks |= {f"plugin {name}": problem for name, problem in added.items() if problem}
    if report:
        from hunyuan.cli.bug_report import bug_report

        own = {name: checks[name] for name in _CHECKS}
        print(bug_report({**facts, "commit": commit()}, own, added))
        return
    facts["plugins"] = ", ".join(added) or "none"
    if as_json:
        print(json.dumps({**facts, "checks": checks}, ensure_ascii=False))
    else:
        for key, value in facts.items():
            print(f"{key:16} {value}")
        for name, problem in checks.items():
            print(f"{name:16} {'ok' if problem is None else problem}")
    failed = [name for name, problem in checks.items() if problem is not None]
    if failed:
        raise HunyuanError(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}",
            f"{len(checks)} 项检查中有 {len(failed)} 项失败：{'、'.join(failed)}",
        )


def _facts() -> dict[str, Any]:
    import torch

    from hunyuan.catalogue.store import installed, store
    from hunyuan.checkpoint.load import dtype_name, fastest_dtype
    from hunyuan.memory import available_memory
    from hunyuan.native.machine import processor

    return {
        "hunyuan": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "torch": torch.__version__,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "processor": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} processors",
        "kernels": _kernels(),
        "fastest_dtype": dtype_name(fastest_dtype()),
        "memory_free": human_bytes(available_memory()),
        "disk_free": human_bytes(shutil.disk_usage(existing_parent(store())).free),
        "models": ", ".join(m.entry.name for m in installed()) or "none",
        "language": language(),
    }


def _plugins() -> dict[str, str | None]:
    """Each plug-in with its group, and what is wrong with it or None; all are loaded."""
    from hunyuan import plugins
    from hunyuan.evaluate.suites import read_plugin

    tries: dict[plugins.Group, Callable[[plugins.EntryPoint], object]] = {
        plugins.READERS: plugins.load_reader,
        plugins.TASKS: read_plugin,
        plugins.TOOLS: plugins.load_tool,
    }
    found: dict[str, str | None] = {}
    for group, attempt in tries.items():
        for entry in plugins.installed(group):
            found[f"{group} {plugins.described(entry)}"] = _outcome(partial(attempt, entry))
    return found


def _kernels() -> str:
    """The instruction set of the compiled kernels, or why there are none."""
    from hunyuan.native.library import isa, unavailable

    reason = unavailable()
    return f"none, torch computes everything ({reason})" if reason else isa()


def _outcome(check: Callable[[], object]) -> str | None:
    """The problem a check found, or None; a check that breaks is a problem."""
    try:
        found = check()
    except (ImportError, OSError, RuntimeError, HunyuanError) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return found if isinstance(found, str) else None


def _check_model() -> str | None:
    """A tiny Hunyuan-shaped model must give the same logits whole, cached and by the kernels."""
    from dataclasses import replace

    import torch

    from hunyuan.checkpoint.load import pack_transformer
    from hunyuan.engine.cache import PagedCache
    from hunyuan.engine.request import Request, SamplingParams
    from hunyuan.engine.scheduler import Segment
    from hunyuan.model.config import preset
    from hunyuan.model.transformer import build, init_weights
    from hunyuan.native.library import unavailable

    model = build(replace(preset("tiny"), head_dim=16)).to_empty(device="cpu").eval()
    init_weights(model, torch.Generator().manual_seed(0))
    ids = torch.arange(12)
    request = Request(ids.tolist(), SamplingParams(), limit=1)
    cache = PagedCache(model.config, 1, torch.float32)
    with torch.inference_mode():
        whole = model(ids[None])[0]
        steps = [
            model(ids[None, i : i + 1], torch.tensor([[i]]), cache.view([one]))[0]
            for i in range(12)
            for one in [Segment(request, i, 1, (0,))]
        ]
    found = {"cached": torch.cat(steps)}
    if unavailable() is None:
        view = PagedCache(model.config, 1, torch.float32).view([Segment(request, 0, 12, (0,))])
        wanted = torch.arange(12, dtype=torch.int32)
        found["native"] = pack_transformer(model).step_logits(ids, ids, view, wanted)
    for name, logits in found.items():
        difference = float((logits - whole).abs().max())
        if difference > 1e-4:
            return f"{name} logits differ by {difference:.3g}"
    return None


def _check_store() -> str | None:
    """The model store must be writable."""
    from hunyuan.catalogue.store import store

    folder = existing_parent(store())
    return None if os.access(folder, os.W_OK) else f"{folder} is not writable"


_CHECKS = {"model": _check_model, "store": _check_store}
