"""The ``hunyuan`` command: one table of verbs, each imported only when it is called.

Exit codes: 0 done, 1 failed at run time, 2 wrong usage or input, 3 it would not fit, 4 bad data or
checkpoint, 5 interrupted and resumable. An error is one line; ``--traceback`` shows the rest.
"""

import sys
import traceback
import warnings
from difflib import get_close_matches
from importlib import import_module

import click

from hunyuan import __version__
from hunyuan.errors import HunyuanError, language

VERBS = {
    "pull": "Download a model by name.",
    "list": "The models that can be pulled, and those on this machine.",
    "info": "Parameters, memory and licence of a model.",
    "generate": "Continue a text.",
    "chat": "Talk with a model in the terminal.",
    "serve": "Serve a model over HTTP, with a chat page.",
    "data": "Prepare text for training: filter, deduplicate, tokenise.",
    "tokenizer": "Learn a tokenizer from text.",
    "train": "Pretrain or fine-tune by a recipe; resumes by itself.",
    "launch": "Write what starts a recipe on a cluster: Slurm or Kubernetes.",
    "tour": "Train, fine-tune, serve and ask a tiny model, in minutes.",
    "upcycle": "Turn a dense checkpoint into a mixture of experts.",
    "merge": "Merge a LoRA adapter into its model.",
    "report": "Draw a training run as one HTML page.",
    "eval": "Benchmarks on any model; resumes by itself.",
    "judge": "Open questions, answered and judged by another model.",
    "compare": "Which differences between two evaluations are real.",
    "share": "Write an evaluation's results for others, or check shared ones.",
    "plan": "Memory, communication and time of a run, before it starts.",
    "scaling": "Fit the scaling law to a folder of runs.",
    "convert": "Write a checkpoint in another format.",
    "bench": "Measure the speed and memory of a model here.",
    "doctor": "What this machine offers and whether the installation works.",
}


class _Verbs(click.Group):
    """Shows the table without importing anything; loads the one verb that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = import_module(f"hunyuan.cli.{name}")
        command = getattr(module, name if name not in ("list", "eval") else f"{name}_")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = get_close_matches(args[0], VERBS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such verb '{args[0]}'{hint} Verbs: {', '.join(VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="hunyuan %(version)s")
@click.option("--traceback", "_traceback", is_flag=True, help="Show where an error came from.")
def cli(_traceback: bool) -> None:
    """An open stack for Hunyuan-Large-class mixture-of-experts language models.

    `hunyuan VERB --help` tells more about a verb.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    show_all, arguments = _take_traceback(arguments)
    warnings.showwarning = _show_warning
    try:
        cli.main(arguments, prog_name="hunyuan", standalone_mode=False)
    except HunyuanError as error:
        return _fail(str(error), error.exit_code, show_all)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except click.ClickException as error:
        usage = f"{error.format_message()} ({_help_hint(error)})".replace("\n", " ")
        return _fail(usage, 2, show_all)
    except (KeyboardInterrupt, click.Abort):
        return _fail(*_interrupted(), show_all)
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; nothing is left to say.
        sys.stderr.close()
        return 0
    except Exception as error:
        from hunyuan.cli.bug_report import keep_error

        keep_error(error, arguments)
        text = " ".join(str(error).split()) or type(error).__name__
        return _fail(_unexpected(type(error).__name__, text), 1, show_all)
    return 0


def _take_traceback(arguments: list[str]) -> tuple[bool, list[str]]:
    """``--traceback`` is understood before and after the verb."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [a for a in arguments[:end] if a != "--traceback"]
    return len(options) < end, options + arguments[end:]


def _fail(message: str, code: int, show_all: bool) -> int:
    if show_all:
        traceback.print_exc()
    label = "错误" if language() == "zh" else "error"
    print(f"{label}: {message}", file=sys.stderr)
    return code


def _interrupted() -> tuple[str, int]:
    text = {"en": "interrupted; the same command starts again", "zh": "已中断；可重新运行同一命令"}
    return text[language()], 5


def _unexpected(kind: str, text: str) -> str:
    if language() == "zh":
        return f"内部错误 {kind}：{text}；加 --traceback 查看详情并请反馈"
    return f"internal error {kind}: {text}; add --traceback for the details and please report it"


def _help_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hunyuan"
    return f"见 {path} --help" if language() == "zh" else f"see {path} --help"


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    label = "警告" if language() == "zh" else "warning"
    print(f"{label}: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
