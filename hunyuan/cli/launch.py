"""``hunyuan launch``: files that start a recipe on a cluster, checked before they are written."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hunyuan.errors import UsageError, language
from hunyuan.files import atomic_file, human_bytes

if TYPE_CHECKING:
    from hunyuan.train.recipe import Recipe


@click.command()
@click.argument("cluster", type=click.Choice(["slurm", "kubernetes"]))
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines.")
@click.option(
    "--gpus-per-node",
    type=click.IntRange(0),
    default=8,
    show_default=True,
    help="GPUs of a machine, one process each; 0: processors alone.",
)
@click.option(
    "--processes-per-node",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes of a machine without GPUs.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="Folder of the run; by default runs/NAME of the recipe.",
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="As in train.")
@click.option(
    "--restarts",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How often a lost process may make all begin again from the newest checkpoint.",
)
@click.option("--partition", help="Slurm: partition.")
@click.option("--account", help="Slurm: account.")
@click.option("--time", help="Slurm: longest time, such as 2-00:00:00.")
@click.option("--image", help="Kubernetes: container image with hunyuan in it.")
@click.option("--claim", help="Kubernetes: PersistentVolumeClaim that all pods share.")
@click.option(
    "--mount",
    type=click.Path(path_type=Path),
    default=Path("/shared"),
    show_default=True,
    help="Kubernetes: where the claim is mounted; recipe, data and run are relative to it.",
)
@click.option("--namespace", help="Kubernetes: namespace.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File to write; by default it is printed."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Lay the model over the processes without any of them, show memory per process and stop.",
)
def launch(
    cluster: str,
    recipe: Path,
    nodes: int,
    gpus_per_node: int,
    processes_per_node: int,
    folder: Path | None,
    overrides: tuple[str, ...],
    restarts: int,
    partition: str | None,
    account: str | None,
    time: str | None,
    image: str | None,
    claim: str | None,
    mount: Path,
    namespace: str | None,
    output: Path | None,
    dry_run: bool,
) -> None:
    """Write what starts RECIPE on a cluster: a Slurm script or Kubernetes manifests.

    The layout of the recipe is checked for these processes first.
    """
    from hunyuan.parallel.launch import Job, kubernetes, slurm
    from hunyuan.settings import read_table
    from hunyuan.train.task import read_recipe

    local = gpus_per_node or processes_per_node
    read = read_recipe(read_table(recipe, overrides), nodes * local)
    config, dtype = _checked(read, nodes * local)
    if dry_run:
        _show_memory(read, config, dtype)
        return
    folder = folder or Path("runs") / recipe.stem
    more = [word for override in overrides for word in ("--set", override)]
    job = Job(
        name=re.sub(r"[^a-z0-9]+", "-", recipe.stem.lower()).strip("-") or "train",
        arguments=("train", str(recipe), "--folder", str(folder), *more),
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        processes_per_node=local,
        restarts=restarts,
    )
    if cluster == "slurm":
        log = folder.with_name(f"{folder.name}-%j.log")
        text = slurm(job, log=log, partition=partition, account=account, time=time)
    else:
        text = kubernetes(
            job,
            image=_needed("--image", image),
            claim=_needed("--claim", claim),
            mount=mount,
            namespace=namespace,
        )
    if output is None:
        print(text, end="")
        return
    with atomic_file(output) as file:
        file.write(text.encode())
    then = f"sbatch {output}" if cluster == "slurm" else f"kubectl apply -f {output}"
    print(f"{output}；启动：{then}" if language() == "zh" else f"{output}; start it: {then}")


def _needed(option: str, value: str | None) -> str:
    if value is None:
        raise UsageError(f"{option} is missing", f"缺少 {option}")
    return value


def _checked(recipe: "Recipe", world: int) -> tuple[Any, Any]:
    """Configuration and number type of the model, if it can be laid over ``world`` processes."""
    from hunyuan.data.shards import TokenSet
    from hunyuan.train.launched import require_layout
    from hunyuan.train.subject import find_subject

    folder = recipe.data.tokens
    # The data may lie where only the nodes see them; the model's own vocabulary counts then.
    tokens = TokenSet.open(folder) if folder is not None and folder.exists() else None
    subject = find_subject(recipe, tokens)
    if world > 1:
        require_layout(recipe, subject.config, world)
    return subject.config, subject.dtype


def _show_memory(recipe: "Recipe", config: Any, dtype: Any) -> None:
    """What training keeps of the weights on the first and the last process."""
    from hunyuan.parallel.state import bytes_per_process

    chinese = language() == "zh"
    layout = recipe.parallel
    print(
        f"{'布局' if chinese else 'layout'}: {layout}, {layout.world} "
        f"{'个进程' if chinese else 'processes'}"
    )
    for rank in sorted({0, layout.world - 1}):
        found = bytes_per_process(config, dtype, layout, rank)
        parts = {
            "weights": "权重",
            "masters": "主副本",
            "gradients": "梯度",
            "moments": "动量",
        }
        listed = ", ".join(
            f"{parts[name] if chinese else name} {human_bytes(size)}"
            for name, size in found.items()
        )
        total = human_bytes(sum(found.values()))
        print(
            f"进程 {rank}：{listed}；共 {total}（计算值，不含激活与通信）"
            if chinese
            else f"process {rank}: {listed}; {total} in all (calculated, without activations and "
            "communication)"
        )
