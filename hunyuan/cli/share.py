"""``hunyuan share``: an evaluation as rows that others can check, and the check."""

from pathlib import Path

import click

from hunyuan.errors import BadDataError, UsageError, language


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH..."
)
@click.option("--check", is_flag=True, help="Check files of shared rows instead of writing one.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Default: print the rows."
)
def share(paths: tuple[Path, ...], check: bool, out: Path | None) -> None:
    """Write the results of an evaluation's folder as rows to share, or --check files of rows.

    Rows hold no prompts, answers, names of users or folders above a home folder.
    """
    if check:
        if out is not None:
            raise UsageError(
                f"--out {out}: --check writes nothing; leave one of them out",
                f"--out {out}：--check 不写文件；请去掉其中之一",
            )
        _check(paths)
        return
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} folders: one is written at a time; give one, or --check files of rows",
            f"{len(paths)} 个目录：一次只写一个；请只给一个，或用 --check 校验结果文件",
        )
    _write(paths[0], out)


def _write(folder: Path, out: Path | None) -> None:
    from dataclasses import asdict

    from hunyuan.evaluate.run_folder import EvaluationRun
    from hunyuan.evaluate.shared import problems, rows_of, to_json
    from hunyuan.files import atomic_file

    rows = rows_of(EvaluationRun(folder))
    # Better told here than by whoever is asked to take them.
    found = [problem for row in rows for problem in problems(asdict(row))]
    if found:
        raise BadDataError(f"{folder}: {found[0].en}", f"{folder}：{found[0].zh}")
    text = to_json(rows)
    if out is None:
        print(text, end="")
        return
    with atomic_file(out) as file:
        file.write(text.encode())
    print(out)


def _check(paths: tuple[Path, ...]) -> None:
    from hunyuan.evaluate.shared import problems, read_rows, repeated

    rows = [(path, n, row) for path in paths for n, row in enumerate(read_rows(path), 1)]
    wrong = 0
    for path, number, row in rows:
        for problem in problems(row):
            wrong += 1
            if language() == "zh":
                print(f"{path} 第 {number} 行：{problem.zh}")
            else:
                print(f"{path} row {number}: {problem.en}")
    for problem in repeated([row for _, _, row in rows]):
        wrong += 1
        print(problem.zh if language() == "zh" else problem.en)
    if wrong:
        raise BadDataError(
            f"problems found: {wrong}, rows checked: {len(rows)}; correct them and check again",
            f"{len(rows)} 行中有 {wrong} 处问题；请更正后重新校验",
        )
    print(
        f"{len(rows)} 行，全部有效"
        if language() == "zh"
        else f"rows checked: {len(rows)}, all valid"
    )
