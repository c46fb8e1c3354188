"""What routing, shared K and V, and the experts' learning rate do: a study at equal tokens.

    python benchmarks/study.py DATA            all runs that are not there yet, one after the other
    python benchmarks/study.py DATA --collect  only the table and the curves of those that are

DATA is a folder of jsonl.gz files with fields text and lang. A model of about 10 M active
parameters is pretrained on the same tokens in every variant, three seeds each, and evaluated on the
same held-out text, dropless. Runs lie in benchmarks/.runs and go on where they were stopped, so the
study can be spread over days (about 20 minutes a run on two cores). Writes
benchmarks/results/study.json, docs/study.md and docs/study.svg.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import tomli_w
from provenance import RESULTS, provenance

from hunyuan.data.shards import MANIFEST

HERE = Path(__file__).parent
RUNS = HERE / ".runs"
DOCS = HERE.parent / "docs"
SEEDS = (0, 1, 2)
TOKENS = 4_000_000
VOCABULARY = 8192

SOURCES = {
    "books": ("en_books_public_domain", "books", "en"),
    "laws": ("zh_laws", "web", "zh"),
    "wiki": ("zh_wikipedia_paragraphs", "web", "zh"),
    "docs": ("zh_tech_docs_apache_mit", "web", "zh"),
    "python": ("code_thealgorithms_py", "code", "code"),
}

SHAPE = {
    **{"hidden": 256, "layers": 8, "heads": 8, "kv_heads": 2, "head_dim": 32, "context": 512},
    **{"qk_norm": True, "tied": True, "cla_share": 2},
}
EXPERTS = {"ffn": 512, "experts": 16, "shared_experts": 1}

# Everything that differs from the recipe below.
VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {"shape": {"ffn": 1024}},
    "dropless": {"routing": {"mode": "dropless"}},
    "drop 1.0": {"routing": {"mode": "capacity-drop", "capacity_factor": 1.0}},
    "recycle 1.0": {"routing": {"mode": "capacity-recycle", "capacity_factor": 1.0}},
    "drop 1.25": {"routing": {"mode": "capacity-drop", "capacity_factor": 1.25}},
    "recycle 1.25": {"routing": {"mode": "capacity-recycle", "capacity_factor": 1.25}},
    "recycle 1.25, no shared K/V": {
        "routing": {"mode": "capacity-recycle", "capacity_factor": 1.25},
        "shape": EXPERTS | {"cla_share": 1},
    },
    "recycle 1.25, expert rate 1": {
        "routing": {"mode": "capacity-recycle", "capacity_factor": 1.25},
        "expert_ratio": 1.0,
    },
}
COMPARISONS = (
    ("dense", "dropless"),
    ("dropless", "recycle 1.0"),
    ("drop 1.0", "recycle 1.0"),
    ("drop 1.25", "recycle 1.25"),
    ("recycle 1.25, no shared K/V", "recycle 1.25"),
    ("recycle 1.25, expert rate 1", "recycle 1.25"),
)


def recipe(variant: dict[str, Any], seed: int) -> dict[str, Any]:
    """The whole recipe of one run."""
    routing = {"capacity_group": 2048} | variant.get("routing", {})
    return {
        "task": "pretrain",
        "seed": seed,
        "model": {
            "shape": SHAPE | variant.get("shape", EXPERTS),
            "routing": routing,
        },
        "data": {"tokens": str(RUNS / "tokens")},
        "batch": {"rows": 8, "row_tokens": 512},
        "optimizer": {
            "learning_rate": 2e-3,
            "expert_ratio": variant.get("expert_ratio", 0.31),
        },
        "schedule": {"tokens": TOKENS},
        "evaluation": {"every": 0.1, "rows": 32},
        "log": {"every": 20, "experts_every": 50},
        "saving": {"keep_last": 1, "keep_best": False},
    }


def prepare(data: Path) -> None:
    """The tokenizer and the token set, made once."""
    RUNS.mkdir(exist_ok=True)
    files = {name: data / f"{file}.jsonl.gz" for name, (file, _, _) in SOURCES.items()}
    tokenizer = RUNS / "tokenizer"
    if not tokenizer.is_dir():
        paths = [str(path) for path in files.values()]
        size = ["--vocab", str(VOCABULARY), "--share", "0.1"]
        _hunyuan("tokenizer", "train", str(tokenizer), *size, *paths)
    if (RUNS / "tokens" / MANIFEST).is_file():
        return
    table = {
        "tokenizer": str(tokenizer),
        "source": [
            {
                **{"name": name, "path": str(files[name]), "license": "see the data's own record"},
                **{"category": category, "language": language},
            }
            for name, (_, category, language) in SOURCES.items()
        ],
    }
    path = RUNS / "data.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    _hunyuan("data", "prepare", str(path), str(RUNS / "tokens"))


def _hunyuan(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "hunyuan", *arguments], check=True)


def folder_of(variant: str, seed: int) -> Path:
    """Where a run lies."""
    name = "".join(c if c.isalnum() or c == "." else "-" for c in variant)
    return RUNS / f"{name}-{seed}"


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """The records of all held-out text together, the later of a repeated step."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = {r["step"]: r for r in records if r["kind"] == "eval" and r["name"] == "all"}
    return [found[step] for step in sorted(found)]


def finished(folder: Path) -> bool:
    """Whether a run has seen all its tokens."""
    records = evaluations(folder)
    return bool(records) and records[-1]["tokens"] >= TOKENS


def collect() -> dict[str, Any]:
    """Everything that is known so far."""
    found: dict[str, Any] = {}
    for variant in VARIANTS:
        runs = {s: evaluations(folder_of(variant, s)) for s in SEEDS}
        done = {s: records for s, records in runs.items() if finished(folder_of(variant, s))}
        if not done:
            continue
        final = [records[-1]["bits_per_byte"] for records in done.values()]
        found[variant] = {
            "seeds": list(done),
            "bits_per_byte": final,
            "mean": statistics.mean(final),
            "deviation": statistics.stdev(final) if len(final) > 1 else None,
            "curves": [
                [(r["tokens"], r["bits_per_byte"]) for r in records] for records in done.values()
            ],
        }
    return found


def table(found: dict[str, Any]) -> str:
    """The page of the study."""
    lines = [
        "# What routing, shared K and V, and the experts' learning rate do",
        "",
        f"Pretraining of a model of about 10 M active parameters on {TOKENS:,} tokens (English "
        "books, Chinese laws, encyclopedia and technical text, Python), equal for all; bits per "
        "byte of held-out text at the end, evaluated dropless; mean and standard deviation over "
        "seeds. Made by `benchmarks/study.py`.",
        "",
        "![curves](study.svg)",
        "",
        "| variant | seeds | bits per byte | deviation |",
        "|---|---|---|---|",
    ]
    for name, row in found.items():
        spread = "-" if row["deviation"] is None else f"{row['deviation']:.4f}"
        lines.append(f"| {name} | {len(row['seeds'])} | {row['mean']:.4f} | {spread} |")
    lines += [
        "",
        "| comparison, seed by seed | difference | standard error | parts |",
        "|---|---|---|---|",
    ]
    for a, b in COMPARISONS:
        if a not in found or b not in found:
            continue
        ours = dict(zip(found[a]["seeds"], found[a]["bits_per_byte"], strict=True))
        theirs = dict(zip(found[b]["seeds"], found[b]["bits_per_byte"], strict=True))
        both = sorted(ours.keys() & theirs.keys())
        differences = [theirs[s] - ours[s] for s in both]
        if len(differences) < 2:
            continue
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / len(differences) ** 0.5
        # Three pairs: a t of 4.3 is the 5 % level.
        verdict = "yes" if len(both) >= 3 and abs(mean) > 4.3 * error else "no"
        lines.append(f"| {b} minus {a} | {mean:+.4f} | {error:.4f} | {verdict} |")
    return "\n".join(lines) + "\n"


def curves(found: dict[str, Any]) -> str:
    """Mean curves as one SVG."""
    colours = (
        "#4477aa",
        "#ee6677",
        "#228833",
        "#ccbb44",
        "#66ccee",
        "#aa3377",
        "#555555",
        "#ee8866",
    )
    means = {
        name: [
            (points[0][0], statistics.mean(p[1] for p in points))
            for points in zip(*row["curves"], strict=False)
        ][2:]
        for name, row in found.items()
    }
    values = [y for curve in means.values() for _, y in curve]
    low, high = min(values), max(values)
    width, height, left, top = 720, 420, 60, 20

    def place(x: float, y: float) -> str:
        return (
            f"{left + x / TOKENS * (width - left - 200):.1f},"
            f"{top + (high - y) / (high - low) * (height - top - 50):.1f}"
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i in range(5):
        y = low + (high - low) * i / 4
        at = place(0, y).split(",")[1]
        parts.append(
            f'<line x1="{left}" x2="{width - 200}" y1="{at}" y2="{at}" stroke="#ddd"/>'
            f'<text x="{left - 8}" y="{float(at) + 4}" text-anchor="end">{y:.2f}</text>'
        )
    for i in range(5):
        x = TOKENS * i / 4
        at = place(x, low).split(",")[0]
        parts.append(f'<text x="{at}" y="{height - 30}" text-anchor="middle">{x / 1e6:g} M</text>')
    parts.append(
        f'<text x="{left}" y="{height - 8}">tokens; bits per byte of held-out text, mean over '
        "seeds</text>"
    )
    for i, (name, curve) in enumerate(means.items()):
        points = " ".join(place(x, y) for x, y in curve)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colours[i]}" stroke-width="1.8"/>'
            f'<rect x="{width - 190}" y="{top + 20 * i}" width="12" height="3" '
            f'fill="{colours[i]}"/><text x="{width - 172}" y="{top + 6 + 20 * i}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Run what is missing, then collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--collect", action="store_true")
    options = parser.parse_args()
    if not options.collect:
        prepare(options.data)
        for seed in SEEDS:
            for variant, settings in VARIANTS.items():
                folder = folder_of(variant, seed)
                if finished(folder):
                    continue
                print(f"{variant}, seed {seed}", flush=True)
                folder.mkdir(exist_ok=True)
                path = RUNS / f"{folder.name}.toml"
                path.write_text(tomli_w.dumps(recipe(settings, seed)), encoding="utf-8")
                _hunyuan("train", str(path), "--run", str(folder))
    found = collect()
    (RESULTS / "study.json").write_text(
        json.dumps({"from": provenance(), "tokens": TOKENS, "variants": found}, indent=1) + "\n"
    )
    if found:
        (DOCS / "study.md").write_text(table(found), encoding="utf-8")
        (DOCS / "study.svg").write_text(curves(found), encoding="utf-8")
        print(table(found))


if __name__ == "__main__":
    main()
