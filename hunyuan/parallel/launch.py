"""Files that start a run on a cluster, as text: a Slurm batch script, Kubernetes manifests.

Both start torchrun once per node and let the nodes find each other at one of them (c10d
rendezvous). A lost process or node makes torchrun start all processes again, and these go on from
the newest checkpoint; a SIGTERM that announces the end leaves time for one more. No torch here.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

PORT = 29500

NOTICE = 300
"""Seconds between the announcement of the end and the end: to finish a step and save."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is started where."""

    name: str
    """Lower-case letters, digits and dashes."""

    arguments: tuple[str, ...]
    """Of ``hunyuan``."""

    nodes: int

    gpus_per_node: int
    """0: processors alone compute."""

    processes_per_node: int
    """One per GPU, where there are GPUs."""

    restarts: int
    """How often torchrun starts all processes again."""


def torchrun(job: Job, nodes: str, endpoint: str, identity: str) -> list[str]:
    """The command of one node; the last three are the same on all."""
    return [
        "torchrun",
        *("--nnodes", nodes),
        *("--nproc-per-node", str(job.processes_per_node)),
        *("--max-restarts", str(job.restarts)),
        *("--shutdown-timeout", str(NOTICE - 20)),
        *("--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", endpoint),
        *("--rdzv-id", identity),
        *("-m", "hunyuan", *job.arguments),
    ]


def slurm(
    job: Job, *, log: Path, partition: str | None, account: str | None, time: str | None
) -> str:
    """A script for ``sbatch``; ``log`` is where what the nodes say goes."""
    asked = {
        "job-name": job.name,
        "nodes": str(job.nodes),
        "ntasks-per-node": "1",
        "gpus-per-node": str(job.gpus_per_node) if job.gpus_per_node else None,
        "exclusive": "",
        "partition": partition,
        "account": account,
        "time": time,
        "signal": f"TERM@{NOTICE}",
        "requeue": "",
        "open-mode": "append",
        "output": str(log),
    }
    lines = [
        f"#SBATCH --{name}" + (f"={value}" if value else "")
        for name, value in asked.items()
        if value is not None
    ]
    command = torchrun(job, "NODES", "ENDPOINT", "ID")
    shown = shlex.join(command)
    for word, variable in (
        ("NODES", '"$SLURM_NNODES"'),
        ("ENDPOINT", f'"$head:{PORT}"'),
        ("ID", '"$SLURM_JOB_ID"'),
    ):
        shown = shown.replace(f" {word} ", f" {variable} ", 1)
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "#",
            "# Submitted again, or requeued, it goes on from the newest checkpoint.",
            "set -euo pipefail",
            'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            f"exec srun --kill-on-bad-exit=1 \\\n  {shown}",
            "",
        ]
    )


def kubernetes(job: Job, *, image: str, claim: str, mount: Path, namespace: str | None) -> str:
    """A headless Service, by which the pods find the first one, and an Indexed Job.

    ``claim`` is the PersistentVolumeClaim, mounted at ``mount``, that all nodes share: the recipe,
    the data and the run lie there.
    """
    endpoint = f"{job.name}-0.{job.name}:{PORT}"
    space = {"namespace": namespace} if namespace else {}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": job.name, **space},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": job.name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }
    container: dict[str, object] = {
        "name": "train",
        "image": image,
        "workingDir": str(mount),
        "command": torchrun(job, str(job.nodes), endpoint, job.name),
        "volumeMounts": [
            {"name": "shared", "mountPath": str(mount)},
            {"name": "memory", "mountPath": "/dev/shm"},
        ],
    }
    if job.gpus_per_node:
        container["resources"] = {"limits": {"nvidia.com/gpu": job.gpus_per_node}}
    pod = {
        "subdomain": job.name,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": NOTICE,
        "containers": [container],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    work = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, **space},
        "spec": {
            "completionMode": "Indexed",
            "completions": job.nodes,
            "parallelism": job.nodes,
            "backoffLimit": job.restarts * job.nodes,
            "template": {"spec": pod},
        },
    }
    return "---\n".join(_yaml(part) + "\n" for part in (service, work))


def _yaml(value: object, indent: str = "") -> str:
    """Tables and lists a line per entry; texts are quoted as in JSON, which is YAML."""
    if isinstance(value, dict):
        lines = []
        for key, entry in value.items():
            nested = isinstance(entry, dict | list)
            inner = _yaml(entry, indent + "  ")
            lines.append(f"{indent}{key}:\n{inner}" if nested else f"{indent}{key}: {inner}")
        return "\n".join(lines)
    if isinstance(value, list):
        lines = []
        for entry in value:
            inner = _yaml(entry, indent + "  ")
            lines.append(f"{indent}- {inner.removeprefix(indent + '  ')}")
        return "\n".join(lines)
    return json.dumps(value)
