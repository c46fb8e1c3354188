"""Run the stages of a recipe, or the rest of them after a kill.

What is to be done is fixed when a run begins: the recipe, the sizes and dates of the inputs, the
tokenizer's files and how the inputs are dealt to tasks are written down first, and a later run of
the same command takes up the work only if none of them has changed. Within a stage datatrove marks
every finished task; only the others are run again.

On this machine each task is a process. A process whose parent was killed ends itself, and a new run
waits until the last has: two never write the same file. On Slurm and Ray the same stages run as
jobs; with Slurm the command only submits them, and run again later says how far they are.

A process needs about 300 MB and some 60 bytes per character of the longest document. Two stages
are one task each: comparing the hashes of equal texts, which streams, and grouping near duplicates,
which keeps about 200 bytes per duplicate in memory.
"""

# mypy: disable-error-code="misc"

import contextlib
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import multiprocess
from datatrove.executor import LocalPipelineExecutor
from loguru import logger

from hunyuan.data.benchmarks import check_benchmarks
from hunyuan.data.inputs import Inputs, plan_tasks, write_pieces
from hunyuan.data.plan import WORK, Stage, stages
from hunyuan.data.recipe import Recipe, read_recipe
from hunyuan.data.shards import MANIFEST, TokenSet, end_of_text_id, folder_sha256, write_tokenizer
from hunyuan.errors import BadDataError, InterruptedWorkError, UsageError
from hunyuan.files import atomic_file, disk_errors
from hunyuan.settings import changed
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.tokenizer import Tokenizer

Progress = Callable[[str, int, int], None]
"""Called with the name of the current stage, finished tasks and all tasks."""

_PLAN = "plan.json"


def prepare(path: Path, target: Path, *, restart: bool = False, progress: Progress) -> TokenSet:
    """Make the token set of the recipe at ``path`` in the folder ``target``.

    Takes up what a killed run left; ``restart`` throws that away. Raises `UsageError` for a recipe
    that does not fit what is in ``target``, `BadDataError` for inputs that cannot be used, and
    `InterruptedWorkError` where jobs were submitted and are not finished.
    """
    recipe = read_recipe(path)
    base = path.absolute().parent
    target = target.absolute()
    _require_own(target)
    if restart:
        with _alone(target):
            _throw_away(target)
    if (target / MANIFEST).is_file():
        return _already_there(recipe, target)
    check_benchmarks(recipe.decontamination.benchmarks, base)
    tokenizer = load_tokenizer(base / recipe.tokenizer)
    end_of_text_id(tokenizer)
    planned = plan_tasks(recipe, base, _worker_count(recipe))
    with _alone(target), disk_errors(target):
        tasks = _begin(recipe, tokenizer, planned, target)
        _run(recipe, stages(recipe, base, target, tasks), target / WORK, progress)
        shutil.rmtree(target / WORK)
    return TokenSet.open(target)


def _throw_away(target: Path) -> None:
    for name in (MANIFEST, "report.json", "report.md", "train", "heldout", "tokenizer", WORK):
        entry = target / name
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _require_own(target: Path) -> None:
    """`UsageError` if the folder holds anything but a set or the beginning of one."""
    if target.is_file():
        raise UsageError(
            f"{target}: is a file; give a folder for the token set",
            f"{target}：是一个文件；请给出用于数据集的目录",
        )
    ours = (target / MANIFEST).is_file() or (target / WORK).is_dir()
    if target.is_dir() and any(target.iterdir()) and not ours:
        raise UsageError(
            f"{target}: holds other files; give a new or empty folder",
            f"{target}：目录中有其他文件；请给出新的或空的目录",
        )


def _already_there(recipe: Recipe, target: Path) -> TokenSet:
    report = json.loads((target / "report.json").read_bytes())
    if differences := _differences(report["recipe"], recipe):
        raise UsageError(
            f"{target}: holds the set of another recipe ({differences}); choose another folder or "
            "add --restart",
            f"{target}：其中是另一配方的数据集（{differences}）；请换一个目录或加上 --restart",
        )
    shutil.rmtree(target / WORK, ignore_errors=True)
    return TokenSet.open(target)


def _differences(before: dict[str, Any], recipe: Recipe) -> str:
    after = json.loads(json.dumps(asdict(recipe)))
    # How the work is spread over processes changes nothing of the result.
    lines = changed({**before, "run": {}}, {**after, "run": {}})
    return "; ".join(line if len(line) < 120 else line[:120] + "..." for line in lines[:3])


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the folder against other runs, and wait for processes of a killed one."""
    (target / WORK).mkdir(parents=True, exist_ok=True)
    with (target / WORK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{target}: another run is working there; wait for it or choose another folder",
                f"{target}：另一个任务正在该目录中运行；请等待其结束或换一个目录",
            ) from error
        with _workers(target / WORK).open("a") as workers:
            fcntl.flock(workers, fcntl.LOCK_EX)
        yield


def _workers(work: Path) -> Path:
    return work / "workers"


def _begin(recipe: Recipe, tokenizer: Tokenizer, inputs: Inputs, target: Path) -> int:
    """Write down what is to be done, or check it against what was; returns the number of tasks."""
    work = target / WORK
    known = work / _PLAN
    if known.is_file():
        plan = json.loads(known.read_bytes())
        if differences := _differences(plan["recipe"], recipe):
            raise _changed(target, f"the recipe ({differences})", f"配方（{differences}）")
        write_tokenizer(work / "compare", tokenizer)
        if folder_sha256(work / "compare" / "tokenizer") != plan["tokenizer_sha256"]:
            raise _changed(target, "the tokenizer", "分词器")
        if inputs.identity != plan["inputs"]:
            raise _changed(target, "a file of the sources", "来源中的文件")
        return int(plan["tasks"])
    write_tokenizer(target, tokenizer)
    for task, own in enumerate(inputs.tasks):
        write_pieces(work / "inputs" / f"{task:05d}.json", own)
    plan = {
        "recipe": asdict(recipe),
        "tokenizer_sha256": folder_sha256(target / "tokenizer"),
        "inputs": inputs.identity,
        "tasks": len(inputs.tasks),
    }
    with atomic_file(known) as file:
        file.write(json.dumps(plan, ensure_ascii=False).encode())
    return len(inputs.tasks)


def _changed(target: Path, what: str, what_zh: str) -> UsageError:
    return UsageError(
        f"{target}: {what} changed since this run began; undo it, or add --restart to begin anew",
        f"{target}：任务开始后{what_zh}发生了变化；请撤销改动，或加上 --restart 重新开始",
    )


def _worker_count(recipe: Recipe) -> int:
    if recipe.run.workers:
        return recipe.run.workers
    if recipe.run.executor != "local":
        return 64
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(recipe: Recipe, plan: list[Stage], work: Path, progress: Progress) -> None:
    logger.remove()  # its log files have everything
    if recipe.run.executor == "local":
        # Workers start from a process that has imported everything already.
        multiprocess.get_context("forkserver").set_forkserver_preload(["hunyuan.data.plan"])
        for stage in plan:
            with _watched(stage, work, progress):
                _Local(
                    stage.steps,
                    stage.tasks,
                    min(_worker_count(recipe), stage.tasks),
                    logging_dir=str(_logs(work, stage)),
                    lock=_workers(work),
                ).run()
    elif recipe.run.executor == "slurm":
        _submit(recipe, plan, work)
    else:
        _on_ray(recipe, plan, work, progress)


def _logs(work: Path, stage: Stage) -> Path:
    return work / "stages" / stage.name


def _done(work: Path, stage: Stage) -> int:
    folder = _logs(work, stage) / "completions"
    return len(list(folder.iterdir())) if folder.is_dir() else 0


@contextlib.contextmanager
def _watched(stage: Stage, work: Path, progress: Progress) -> Iterator[None]:
    """Report the finished tasks of a stage while it runs."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            progress(stage.name, _done(work, stage), stage.tasks)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    progress(stage.name, stage.tasks, stage.tasks)


class _Silence(io.TextIOBase):
    """A stream for what datatrove says on the terminal; its log files have it too."""

    def write(self, text: str) -> int:
        return len(text)


class _Local(LocalPipelineExecutor):
    """datatrove's tasks in processes that end with this one, without output on our terminal.

    Its own loop has one more process, a manager, that would outlive a killed run for ever.
    """

    def __init__(self, *args: Any, lock: Path, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pipeline: list[Any]
        self.lock = lock

    def run(self) -> None:
        """Run the tasks that are not finished."""
        ranks = self.get_incomplete_ranks()
        if min(self.workers, len(ranks)) == 1:
            fresh = self.pipeline
            for rank in ranks:
                self.pipeline = deepcopy(fresh)
                self._run_for_rank(rank)
        elif ranks:
            context = multiprocess.get_context("forkserver")
            leash = (os.getpid(), self.lock)
            with context.Pool(self.workers, initializer=_leash, initargs=leash) as pool:
                for _ in pool.imap_unordered(self._run_for_rank, ranks):
                    pass

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        with contextlib.redirect_stderr(_Silence()):
            return super()._run_for_rank(rank, local_rank, node_rank)


def _leash(owner: int, lock: Path) -> None:
    """End this process soon after ``owner``; meanwhile hold a lock that the next run waits for."""
    logger.remove()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner is told, and ends the others
    held = lock.open("a")
    fcntl.flock(held, fcntl.LOCK_SH)

    def watch() -> None:
        while not held.closed:
            try:
                os.kill(owner, 0)
            except ProcessLookupError:
                os._exit(InterruptedWorkError.exit_code)
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()


def _submit(recipe: Recipe, plan: list[Stage], work: Path) -> None:
    """Submit all stages to Slurm, each after the one before; raises unless they are finished."""
    from datatrove.executor import SlurmPipelineExecutor

    settings = recipe.run.slurm
    assert settings is not None
    done, tasks = sum(_done(work, stage) for stage in plan), sum(stage.tasks for stage in plan)
    if done == tasks:
        return
    submitted = work / "submitted"
    if submitted.is_file():
        raise InterruptedWorkError(
            f"{done} of {tasks} tasks are finished; run this again later. If the jobs failed (see "
            f"{work / 'stages'}), remove {submitted} to submit the rest",
            f"已完成 {tasks} 个任务中的 {done} 个；请稍后再运行。若作业失败"
            f"（见 {work / 'stages'}），请删除 {submitted} 以提交其余任务",
        )
    if shutil.which("sbatch") is None:
        raise UsageError(
            'run.executor="slurm": sbatch is not on this machine; run this on a login node of the '
            'cluster or set executor="local"',
            'run.executor="slurm"：本机没有 sbatch；请在集群登录节点运行，或设为 executor="local"',
        )
    before = None
    for stage in plan:
        before = SlurmPipelineExecutor(
            stage.steps,
            tasks=stage.tasks,
            time=settings.time,
            partition=settings.partition,
            mem_per_cpu_gb=settings.memory,
            workers=min(_worker_count(recipe), stage.tasks),
            job_name=f"hunyuan-data-{stage.name}",
            qos=settings.qos or None,
            env_command=settings.environment or None,
            depends=before,
            logging_dir=str(_logs(work, stage)),
        )
    assert before is not None
    submitted.touch()
    try:
        before.run()
    except (OSError, subprocess.CalledProcessError) as error:
        submitted.unlink()
        raise BadDataError(
            f"sbatch failed ({error}); correct [run.slurm] and run this again",
            f"sbatch 失败（{error}）；请更正 [run.slurm] 后重新运行",
        ) from error
    raise InterruptedWorkError(
        f"{tasks - done} tasks were submitted; run this again to see how far they are",
        f"已提交 {tasks - done} 个任务；再次运行可查看进度",
    )


def _on_ray(recipe: Recipe, plan: list[Stage], work: Path, progress: Progress) -> None:
    try:
        from datatrove.executor.ray import RayPipelineExecutor

        __import__("ray")
    except ImportError as error:
        raise UsageError(
            "run.executor=\"ray\": ray is not installed; pip install 'ray[default]' or set "
            'executor="local"',
            "run.executor=\"ray\"：未安装 ray；请运行 pip install 'ray[default]' 或设为 "
            'executor="local"',
        ) from error
    for stage in plan:
        with _watched(stage, work, progress):
            RayPipelineExecutor(
                stage.steps,
                tasks=stage.tasks,
                workers=min(_worker_count(recipe), stage.tasks),
                logging_dir=str(_logs(work, stage)),
            ).run()
