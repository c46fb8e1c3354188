"""``hunyuan train``: run a recipe, or go on with it where it stopped."""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hunyuan.cli.commit import commit
from hunyuan.errors import UsageError, language
from hunyuan.files import atomic_file, human_bytes

if TYPE_CHECKING:
    from hunyuan.train.loop import Run
    from hunyuan.train.metrics import Listener
    from hunyuan.train.ranks import Ranks
    from hunyuan.train.recipe import Recipe


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--run",
    "--folder",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder of the run; by default runs/NAME of the recipe. Under torchrun, which has a "
    "--run-path of its own, write --folder.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override what the recipe says; may be repeated.",
)
@click.option("--accept-changes", is_flag=True, help="Go on although the recipe has changed.")
@click.option("--dry-run", is_flag=True, help="Show the complete recipe and stop.")
@click.option(
    "--stop-after",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Stop, resumably, after some steps.",
)
def train(
    recipe: Path,
    folder: Path | None,
    overrides: tuple[str, ...],
    accept_changes: bool,
    dry_run: bool,
    stop_after: int | None,
) -> None:
    """Train by RECIPE, a TOML file. The same command goes on after a stop, a crash or a kill.

    Every checkpoint is a Hugging Face folder: `hunyuan serve RUN` serves the newest.
    """
    from hunyuan.settings import read_table

    table = read_table(recipe, overrides)
    folder = folder or Path("runs") / recipe.stem
    if dry_run:
        _show(table)
        return
    run_recipe(table, folder, accept_changes=accept_changes, stop_after=stop_after)


def run_recipe(
    table: dict[str, Any],
    folder: Path,
    *,
    accept_changes: bool = False,
    stop_after: int | None = None,
) -> None:
    """Begin or go on with a run, telling the terminal how it goes."""
    from hunyuan.train.launched import joined, world_size
    from hunyuan.train.outside import keep_freed_memory
    from hunyuan.train.task import read_recipe

    keep_freed_memory()
    world = world_size()
    with _one_voice(world):
        recipe = read_recipe(table, world)
        with joined(recipe) as ranks:
            _run(table, recipe, folder, ranks, accept_changes, stop_after)


def _run(
    table: dict[str, Any],
    recipe: "Recipe",
    folder: Path,
    ranks: "Ranks",
    accept_changes: bool,
    stop_after: int | None,
) -> None:
    """What every process does; the main one also writes and speaks."""
    import tomli_w

    from hunyuan.train.loop import fit
    from hunyuan.train.saving import read_newest
    from hunyuan.train.summary import describe
    from hunyuan.train.task import prepare

    ranks.together(lambda: _check_recipe(table, folder, accept_changes))
    with ExitStack() as stack:
        listeners: list[Listener] = []
        if ranks.main:
            listeners += _listeners(stack, recipe, folder)
        run, tally = prepare(
            recipe,
            folder,
            listeners=listeners,
            stop_after=stop_after,
            sampler=_sampler,
            ranks=ranks,
        )
        say = _say if ranks.main else _say_nothing
        if ranks.main:
            with atomic_file(folder / "recipe.toml") as file:
                file.write(tomli_w.dumps(table).encode())
        for line in describe(run, tally):
            say(line.en, line.zh)
        saved, damaged = read_newest(run.saver.folder, ranks)
        for path in damaged:
            aside = run.saver.set_aside(path)
            say(f"{path} is damaged; it is now {aside}", f"{path} 已损坏，现改名为 {aside}")
        if saved is not None:
            run.restore(saved)
            say(f"going on from step {run.step}", f"从第 {run.step} 步继续")
        for listener in listeners:
            listener(_start(run))
        fit(run)
    newest = run.saver.folder / f"step-{run.step:08d}"
    say(f"done: {newest}", f"完成：{newest}")
    say(
        f"try it: hunyuan chat {folder}   hunyuan serve {folder}   hunyuan report {folder}",
        f"试用：hunyuan chat {folder}   hunyuan serve {folder}   hunyuan report {folder}",
    )


def _listeners(stack: ExitStack, recipe: "Recipe", folder: Path) -> "list[Listener]":
    """Who is told how training goes, until ``stack`` ends."""
    from hunyuan.train.metrics import MetricsFile, tensorboard

    metrics = MetricsFile(folder / "metrics.jsonl")
    stack.callback(metrics.close)
    screen = Screen()
    stack.callback(screen.close)
    listeners: list[Listener] = [metrics, screen]
    if recipe.log.tensorboard:
        try:
            listeners.append(tensorboard(folder / "tensorboard"))
        except ImportError as error:
            raise UsageError(
                "log.tensorboard: needs the package tensorboard; pip install tensorboard",
                "log.tensorboard：需要 tensorboard 包；请运行 pip install tensorboard",
            ) from error
    return listeners


def _start(run: "Run") -> dict[str, Any]:
    """The record of a process that begins or goes on."""
    from hunyuan import __version__

    config = run.forward.model.config
    return {
        "kind": "start",
        "time": time.time(),
        "command": shlex.join(["hunyuan", *sys.argv[1:]]),
        "version": __version__,
        "commit": commit(),
        "parameters": config.total_parameters,
        "active_parameters": config.active_parameters,
        "resumed_at_step": run.step,
        "processes": run.ranks.count,
        "config": _plain(config),
    }


@contextmanager
def _one_voice(world: int) -> Iterator[None]:
    """Of many processes that end in an error, the first one says why; torchrun ends the rest."""
    try:
        yield
    except Exception as error:
        if world > 1:
            from hunyuan.parallel.ranks import first_to_fail

            if not first_to_fail():
                raise SystemExit(getattr(error, "exit_code", 1)) from error
        raise


def _sampler(model: Any, tokenizer: Any, settings: Any) -> Any:
    """Lets the model as it is answer, through the engine: see `hunyuan.train.online.Sample`."""
    from hunyuan.engine.engine import Engine

    def sample(prompts: Any, count: int, seed: int) -> list[list[str]]:
        engine = Engine(model, tokenizer)
        answers: list[list[str]] = [[] for _ in prompts]
        for i in range(count):
            made = engine.generate_many(
                prompts,
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                top_p=1.0,
                top_k=0,
                seed=seed + i,
            )
            for texts, completion in zip(answers, made, strict=True):
                texts.append(completion.text)
        return answers

    return sample


def _plain(config: Any) -> dict[str, Any]:
    from dataclasses import asdict

    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return values


def _say(english: str, chinese: str) -> None:
    print(chinese if language() == "zh" else english, flush=True)


def _say_nothing(english: str, chinese: str) -> None:
    pass


def _check_recipe(table: dict[str, Any], folder: Path, accept_changes: bool) -> None:
    """Refuse another recipe for a run that has begun."""
    import tomllib

    from hunyuan.settings import changed

    path = folder / "recipe.toml"
    if path.is_file() and (folder / "checkpoints").is_dir():
        before = tomllib.loads(path.read_text(encoding="utf-8"))
        # How many processes do it changes nothing of what is done.
        differences = changed(before | {"parallel": {}}, table | {"parallel": {}})
        if differences and not accept_changes:
            listed = "; ".join(differences)
            raise UsageError(
                f"{folder}: was begun with another recipe ({listed}); choose another --run, or add "
                "--accept-changes to go on with the new one",
                f"{folder}：该训练以不同的配方开始（{listed}）；请换一个 --run，或加 "
                "--accept-changes 按新配方继续",
            )


def _show(table: dict[str, Any]) -> None:
    """The recipe with every default, as JSON."""
    from dataclasses import asdict

    from hunyuan.train.task import read_recipe

    print(json.dumps(asdict(read_recipe(table)), indent=2, default=str, ensure_ascii=False))


class Screen:
    """One line that tells how training goes; on a terminal it is redrawn in place."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._begin: tuple[float, float] | None = None
        self._open = False
        self._reader = True

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a record of the metrics."""
        chinese = language() == "zh"
        if record["kind"] == "train":
            self._line(self._progress(record, chinese))
        elif record["kind"] == "eval":
            name = "评测" if chinese else "evaluated"
            per_byte = record.get("bits_per_byte")
            text = f"{name} {record['name']}: loss {record['loss']:.4f}"
            if per_byte is not None:
                text += f", {per_byte:.4f} " + ("比特/字节" if chinese else "bits per byte")
            if "accuracy" in record:
                text += f", {'准确率' if chinese else 'accuracy'} {record['accuracy']:.0%}"
            self._whole(text)
        elif record["kind"] == "alarm":
            label = (
                ("警告" if chinese else "warning")
                if record["level"] == "warning"
                else ("停止" if chinese else "stopped")
            )
            self._whole(f"{label}: {record['zh' if chinese else 'en']}")

    def close(self) -> None:
        """End the line."""
        if self._open:
            self._print("")
        self._open = False

    def _progress(self, record: dict[str, Any], chinese: bool) -> str:
        share, now = record["progress"], record["time"]
        if self._begin is None:
            self._begin = (now, share)
        since, from_share = self._begin
        left = (1 - share) * (now - since) / (share - from_share) if share > from_share else None
        shown = "" if left is None else _duration(left) + (" 剩余" if chinese else " left")
        return (
            f"{share:4.0%}  {'步' if chinese else 'step'} {record['step']}  "
            f"loss {record['loss']:.4f}  |g| {record['grad_norm']:.2f}  "
            f"lr {record['learning_rate']:.2e}  {record['tokens_per_second']:,.0f} "
            f"{'词元' if chinese else 'tok'}/s ({record['peak_share']:.0%} "
            f"{'峰值' if chinese else 'of peak'})  {human_bytes(record['memory_bytes'])}  {shown}"
        )

    def _line(self, text: str) -> None:
        if self._terminal:
            self._print(f"\r\x1b[2K{text}", end="")
            self._open = True
        else:
            self._print(text)

    def _whole(self, text: str) -> None:
        self._print(("\r\x1b[2K" if self._open else "") + text)
        self._open = False

    def _print(self, text: str, end: str = "\n") -> None:
        """Training goes on when its reader has left, as `| head` does."""
        if self._reader:
            try:
                print(text, end=end, flush=True)
            except BrokenPipeError:
                self._reader = False
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends


def _duration(seconds: float) -> str:
    minutes = int(seconds + 59) // 60
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
