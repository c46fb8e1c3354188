"""The freely available copies of the benchmarks, turned into a `BenchmarkFolder`.

Reads a folder with one sub-folder per benchmark as their authors' repositories hold them, gives
every row the columns of the hub's dataset, and refuses a benchmark whose number of items is not the
published one. What is absent is left out.

Where the copies lack a training split, the first items of the evaluated split become the few-shot
examples and are not scored (a note of the dataset says so): a model must never be shown what it is
asked.
"""

import bz2
import csv
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hunyuan.errors import BadDataError
from hunyuan.evaluate.benchmark_folder import BenchmarkWriter

Rows = list[dict[str, Any]]

_MATH_TYPES = {
    "Algebra": "algebra",
    "Counting & Probability": "counting_and_probability",
    "Geometry": "geometry",
    "Intermediate Algebra": "intermediate_algebra",
    "Number Theory": "number_theory",
    "Prealgebra": "prealgebra",
    "Precalculus": "precalculus",
}
_MBPP_COLUMNS = ("task_id", "text", "code", "test_setup_code", "test_list")


def convert_pack(
    pack: Path, out: Path, *, progress: Callable[[str, int], None] = lambda name, rows: None
) -> list[str]:
    """Convert every benchmark found in ``pack``; the names of the datasets written.

    ``progress`` hears each dataset and its rows. Raises `BadDataError` for a wrong count.
    """
    writer = BenchmarkWriter(out)
    done: list[str] = []
    for folder, convert in _CONVERTERS.items():
        if not (pack / folder).is_dir():
            continue
        try:
            for dataset, configs, about in convert(pack / folder):
                writer.add(dataset, configs, **about)
                rows = sum(len(rows) for splits in configs.values() for rows in splits.values())
                progress(dataset, rows)
                done.append(dataset)
        except (OSError, KeyError, ValueError, IndexError, AttributeError) as error:
            raise BadDataError(
                f"{pack / folder}: cannot be read as this benchmark ({type(error).__name__}: "
                f"{str(error)[:80]}); fetch it again",
                f"{pack / folder}：无法按该评测集读取（{type(error).__name__}："
                f"{str(error)[:80]}）；请重新获取",
            ) from error
    writer.finish()
    return done


Converted = Iterator[tuple[str, dict[str, dict[str, Rows]], dict[str, Any]]]


def _expect(path: Path, rows: Rows, count: int) -> Rows:
    if len(rows) != count:
        raise BadDataError(
            f"{path}: has {len(rows)} items, {count} were published; fetch it again",
            f"{path}：有 {len(rows)} 条，应为 {count} 条；请重新获取",
        )
    return rows


def _json_lines(path: Path) -> Rows:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.splitlines() if line.strip()]


def _about(licence: str, source: str, *notes: str, examples: str | None = None) -> dict[str, Any]:
    return {"licence": licence, "source": source, "notes": notes, "examples": examples}


def _shots_from(rows: Rows, count: int, split: str, train: str = "train") -> dict[str, Rows]:
    """The first ``count`` rows as examples, the others to be scored."""
    return {train: rows[:count], split: rows[count:]}


def _held_out(count: int, split: str) -> str:
    return f"the first {count} items of {split} are the few-shot examples and are not scored"


def _mmlu(folder: Path) -> Converted:
    configs: dict[str, dict[str, Rows]] = {}
    for split, suffix in (("test", "test"), ("dev", "dev"), ("validation", "val")):
        for path in sorted((folder / suffix).glob("*.csv")):
            subject = path.stem.removesuffix(f"_{suffix}")
            with path.open(newline="", encoding="utf-8") as file:
                rows = [
                    {
                        "question": row[0],
                        "subject": subject,
                        "choices": row[1:5],
                        "answer": "ABCD".index(row[5]),
                    }
                    for row in csv.reader(file)
                ]
            configs.setdefault(subject, {})[split] = rows
    _expect(folder, [row for splits in configs.values() for row in splits["test"]], 14_042)
    yield "cais/mmlu", configs, _about("MIT", "Hendrycks et al. 2021")


def _mmlu_pro(folder: Path) -> Converted:
    rows = _expect(folder, _json_lines(folder / "mmlu_pro_test.jsonl.gz"), 12_032)
    shots: Rows = []
    scored: Rows = []
    taken: dict[str, int] = {}
    for row in rows:
        if taken.get(row["category"], 0) < 5:
            taken[row["category"]] = taken.get(row["category"], 0) + 1
            answer = f"A: Let's think step by step. The answer is ({row['answer']})."
            shots.append({**row, "cot_content": answer})
        else:
            scored.append(row)
    notes = (
        "the examples with worked reasoning are missing: the first 5 items of each category, with "
        "the bare answer, stand in for them and are not scored",
    )
    configs = {"default": {"validation": shots, "test": scored}}
    yield "TIGER-Lab/MMLU-Pro", configs, _about("MIT", "TIGER-AI-Lab/MMLU-Pro", *notes)


def _cmmlu(folder: Path) -> Converted:
    configs: dict[str, dict[str, Rows]] = {}
    for split in ("test", "dev"):
        for path in sorted((folder / "data" / split).glob("*.csv")):
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [
                    {key: row[key] for key in ("Question", "A", "B", "C", "D", "Answer")}
                    for row in csv.DictReader(file)
                ]
            configs.setdefault(path.stem, {})[split] = rows
    _expect(folder, [row for splits in configs.values() for row in splits["test"]], 11_582)
    yield "haonan-li/cmmlu", configs, _about("CC BY-NC-SA 4.0", "haonan-li/CMMLU")


def _ceval(folder: Path) -> Converted:
    configs: dict[str, dict[str, Rows]] = {}
    for path in sorted((folder / "val").glob("*/*.jsonl")):
        rows = [_ceval_row(row) for row in _json_lines(path)]
        configs[path.stem] = _shots_from(rows, 5, "val", train="dev")
    total = [row for splits in configs.values() for rows in splits.values() for row in rows]
    _expect(folder, total, 1_346)
    about = _about("CC BY-NC-SA 4.0", "hkust-nlp/ceval", f"per subject, {_held_out(5, 'val')}")
    yield "ceval/ceval-exam", configs, about


def _ceval_row(row: dict[str, Any]) -> dict[str, Any]:
    found = re.fullmatch(
        r"(.*)\nA\. (.*)\nB\. (.*)\nC\. (.*)\nD\. (.*)", row["inputs_pretokenized"], re.DOTALL
    )
    if found is None:
        raise ValueError(f"item {row['id']} has not four options")
    question, a, b, c, d = found.groups()
    answer = "ABCD"[row["label"]]
    return {"id": row["id"], "question": question, "A": a, "B": b, "C": c, "D": d, "answer": answer}


def _gsm8k(folder: Path) -> Converted:
    data = folder / "grade_school_math" / "data"
    splits = {
        "train": _expect(data, _json_lines(data / "train.jsonl"), 7_473),
        "test": _expect(data, _json_lines(data / "test.jsonl"), 1_319),
    }
    yield "openai/gsm8k", {"main": splits}, _about("MIT", "openai/grade-school-math")


def _math(folder: Path) -> Converted:
    rows = _expect(folder, _json_lines(folder / "math" / "test.jsonl"), 5_000)
    configs: dict[str, dict[str, Rows]] = {name: {"test": []} for name in _MATH_TYPES.values()}
    for row in rows:
        wanted = {key: row[key] for key in ("problem", "level", "type", "solution")}
        configs[_MATH_TYPES[row["type"]]]["test"].append(wanted)
    for splits in configs.values():
        # The tasks declare a training split; their examples are part of the task itself.
        splits["train"] = splits["test"][:1]
    notes = ("the training split is missing; its place is held by one item that is never shown",)
    yield "EleutherAI/hendrycks_math", configs, _about("MIT", "Hendrycks et al. 2021", *notes)


def _cmath(folder: Path) -> Converted:
    rows: Rows = []
    for path in sorted((folder / "datasets").glob("cmath_*.jsonl")):
        rows += _json_lines(path)
    splits = _shots_from(_expect(folder, rows, 600), 3, "test")
    about = _about("CC BY 4.0", "XiaoMi/cmath (public part)", _held_out(3, "test"))
    yield "weitianwen/cmath", {"default": splits}, about


def _humaneval(folder: Path) -> Converted:
    rows = _expect(folder, _json_lines(folder / "data" / "HumanEval.jsonl.gz"), 164)
    about = _about("MIT", "openai/human-eval")
    yield "openai/openai_humaneval", {"openai_humaneval": {"test": rows}}, about


def _mbpp(folder: Path) -> Converted:
    rows = _expect(folder, _json_lines(folder / "data" / "mbpp.jsonl"), 974)
    splits: dict[str, Rows] = {"prompt": [], "test": [], "validation": [], "train": []}
    for row in rows:
        number = row["task_id"]
        name = next(
            split
            for split, last in (("prompt", 10), ("test", 510), ("validation", 600), ("train", 974))
            if number <= last
        )
        splits[name].append({key: row[key] for key in _MBPP_COLUMNS})
    yield (
        "google-research-datasets/mbpp",
        {"full": splits},
        _about("CC BY 4.0", "Austin et al. 2021"),
    )


def _bbh(folder: Path) -> Converted:
    configs: dict[str, dict[str, Rows]] = {}
    for path in sorted((folder / "bbh").glob("*.json")):
        configs[path.stem] = {"test": json.loads(path.read_text(encoding="utf-8"))["examples"]}
    _expect(folder, [row for splits in configs.values() for row in splits["test"]], 6_511)
    yield "SaylorTwift/bbh", configs, _about("MIT", "suzgunmirac/BIG-Bench-Hard")


def _hellaswag(folder: Path) -> Converted:
    with bz2.open(folder / "hellaswag_val_full.txt.bz2", "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    rows = [_hellaswag_row(i, lines[6 * i : 6 * i + 6]) for i in range(len(lines) // 6)]
    splits = _shots_from(_expect(folder, rows, 10_042), 10, "validation")
    about = _about(
        "MIT",
        "rowanz/hellaswag through klosax/hellaswag_text_data",
        _held_out(10, "validation"),
        "where the second half of a context begins is found by its lower case",
        examples="train",
    )
    yield "Rowan/hellaswag", {"default": splits}, about


def _hellaswag_row(index: int, lines: list[str]) -> dict[str, Any]:
    activity, _, context = lines[0].partition(": ")
    parts = re.fullmatch(r"(.*[.!?]) ([a-z][^.!?]*)", context, re.DOTALL)
    first, second = parts.groups() if parts else (context, "")
    return {
        "ind": index,
        "activity_label": activity,
        "ctx_a": first,
        "ctx_b": second,
        "endings": lines[2:6],
        "label": lines[1].strip(),
    }


def _commonsense(folder: Path) -> Converted:
    for name, config in (("ARC-Challenge", 1_172), ("ARC-Easy", 2_376)):
        rows = [_arc_row(i, row) for i, row in enumerate(_instructions(folder / name, config))]
        splits = _shots_from(rows, 25, "test")
        splits["validation"] = splits["train"]
        if name == "ARC-Challenge":
            arc = {name: splits}
        else:
            arc[name] = splits
    note = _held_out(25, "test")
    yield (
        "allenai/ai2_arc",
        arc,
        _about("CC BY-SA 4.0", "AI2, through LLM-Adapters", note, examples="train"),
    )

    rows = [
        _openbook_row(i, row) for i, row in enumerate(_instructions(folder / "openbookqa", 500))
    ]
    splits = _shots_from(rows, 5, "test")
    splits["validation"] = splits["train"]
    about = _about(
        "Apache-2.0", "AI2, through LLM-Adapters", _held_out(5, "test"), examples="train"
    )
    yield "allenai/openbookqa", {"main": splits}, about

    rows = [_piqa_row(row) for row in _instructions(folder / "piqa", 1_838)]
    about = _about("AFL 3.0", "Bisk et al. 2020, through LLM-Adapters")
    yield "baber/piqa", {"default": {"train": rows[:1], "validation": rows}}, about

    rows = [_winogrande_row(row) for row in _instructions(folder / "winogrande", 1_267)]
    about = _about(
        "CC BY", "AI2, through LLM-Adapters", _held_out(5, "validation"), examples="train"
    )
    splits = _shots_from(rows, 5, "validation")
    yield "allenai/winogrande", {"winogrande_xl": splits}, about


def _instructions(folder: Path, count: int) -> Rows:
    rows = json.loads((folder / "test.json").read_text(encoding="utf-8"))
    return _expect(folder, rows, count)


def _options(text: str, word: str) -> list[str]:
    """The texts after ``word`` 1, 2, ... in an instruction."""
    text = re.split(rf"\s*Answer format: {word.lower()}", text, maxsplit=1)[0]
    return [part.strip() for part in re.split(rf"{word}\d: ?", text)[1:]]


def _lettered(row: dict[str, Any]) -> tuple[str, dict[str, list[str]], str]:
    head, _, rest = row["instruction"].partition("\n\n")
    texts = _options(rest, "Answer")
    question = head.partition("question: ")[2].strip()
    letters = list("ABCDE"[: len(texts)])
    return question, {"text": texts, "label": letters}, letters[int(row["answer"][-1]) - 1]


def _arc_row(index: int, row: dict[str, Any]) -> dict[str, Any]:
    question, choices, answer = _lettered(row)
    return {"id": str(index), "question": question, "choices": choices, "answerKey": answer}


def _openbook_row(index: int, row: dict[str, Any]) -> dict[str, Any]:
    question, choices, answer = _lettered(row)
    return {"id": str(index), "question_stem": question, "choices": choices, "answerKey": answer}


def _piqa_row(row: dict[str, Any]) -> dict[str, Any]:
    head, _, rest = row["instruction"].partition("\n\nSolution1: ")
    first, second = _options(f"Solution1: {rest}", "Solution")
    goal = head.partition("question: ")[2]
    return {"goal": goal, "sol1": first, "sol2": second, "label": int(row["answer"][-1]) - 1}


def _winogrande_row(row: dict[str, Any]) -> dict[str, Any]:
    head, _, rest = row["instruction"].partition("\n\nOption1: ")
    first, second = _options(f"Option1: {rest}", "Option")
    sentence = head.partition("sentence: ")[2]
    return {
        "sentence": sentence,
        "option1": first,
        "option2": second,
        "answer": row["answer"][-1],
    }


def _commonsense_qa(folder: Path) -> Converted:
    rows = [
        {
            "id": str(row["id"]),
            "question": row["question"],
            "choices": {"label": list("ABCDE"), "text": row["choices"]},
            "answerKey": "ABCDE"[row["answer"]],
        }
        for row in _json_lines(folder / "commonsense_qa.jsonl")
    ]
    splits = _shots_from(_expect(folder, rows, 1_221), 7, "validation")
    about = _about("MIT", "Talmor et al. 2019", _held_out(7, "validation"), examples="train")
    yield "tau/commonsense_qa", {"default": splits}, about


def _ifeval(folder: Path) -> Converted:
    rows = [
        {
            "key": row["id"],
            "prompt": row["prompt"],
            "instruction_id_list": row["instruction_id_list"],
            "kwargs": row["kwargs"],
        }
        for row in _json_lines(folder / "ifeval.jsonl")
    ]
    about = _about("Apache-2.0", "Zhou et al. 2023")
    yield "google/IFEval", {"default": {"train": _expect(folder, rows, 541)}}, about


def _c3(folder: Path) -> Converted:
    rows: Rows = []
    for part in ("d", "m"):
        path = folder / "data" / f"c3-{part}-test.json"
        for passages, questions, name in json.loads(path.read_text(encoding="utf-8")):
            rows += [
                {"id": f"{name}-{i}", "kind": part, "passage": "\n".join(passages), **question}
                for i, question in enumerate(questions)
            ]
    about = _about("non-commercial research", "nlpdata/c3")
    yield "nlpdata/c3", {"default": {"test": _expect(folder, rows, 3_892)}}, about


def _drop(folder: Path) -> Converted:
    rows = [
        _drop_row(i, row)
        for i, row in enumerate(_json_lines(folder / "dataset" / "drop_v0_dev.jsonl.gz"))
    ]
    splits = _shots_from(_expect(folder, rows, 9_536), 3, "validation")
    about = _about(
        "CC BY-SA 4.0", "AI2, through ADAS", _held_out(3, "validation"), examples="train"
    )
    yield "EleutherAI/drop", {"default": splits}, about


def _drop_row(index: int, row: dict[str, Any]) -> dict[str, Any]:
    found = re.fullmatch(r"Passage: (.*)\nQuestion: (.*)\nAnswer:", row["context"], re.DOTALL)
    if found is None:
        raise ValueError(f"item {index} has no passage and question")
    first, *others = row["ref_text"].split("|")
    no_date = {"day": "", "month": "", "year": ""}
    return {
        "query_id": str(index),
        "passage": found[1],
        "question": found[2],
        "answer": {"number": "", "date": no_date, "spans": [first]},
        "validated_answers": {
            "number": [""] * len(others),
            "date": [no_date] * len(others),
            "spans": [[other] for other in others],
        },
    }


def _triviaqa(folder: Path) -> Converted:
    data = folder / "data_subsample"
    rows: Rows = [
        {
            "question": row["question"].strip().strip('"').replace('""', '"').rstrip("?"),
            "answer": {"value": row["golden_answers"][0], "aliases": row["golden_answers"]},
        }
        for row in _json_lines(data / "triviaqa" / "test.jsonl")
    ]
    sample = "a sample of 1,000 items"
    about = _about("Apache-2.0", "Joshi et al. 2017", sample)
    splits = {"train": rows[:1], "validation": _expect(data, rows, 1_000)}
    yield "mandarjoshi/trivia_qa", {"rc.nocontext": splits}, about
    rows = [
        {"question": row["question"], "answer": row["golden_answers"]}
        for row in _json_lines(data / "nq" / "test.jsonl")
    ]
    held_out = _held_out(5, "validation")
    about = _about("Apache-2.0", "Lee et al. 2019", sample, held_out, examples="train")
    splits = _shots_from(_expect(data, rows, 1_000), 5, "validation")
    yield "google-research-datasets/nq_open", {"default": splits}, about


def _wikitext(folder: Path) -> Converted:
    splits = {
        split: [{"page": page} for page in _pages(folder / "wikitext-2" / f"{name}.txt")]
        for split, name in (("validation", "valid"), ("test", "test"))
    }
    splits["train"] = splits["validation"]
    about = _about(
        "CC BY-SA 3.0", "WikiText-2 with rare words replaced by <unk>", "not the raw text"
    )
    _expect(folder, splits["test"], 62)
    yield "EleutherAI/wikitext_document_level", {"wikitext-2-raw-v1": splits}, about


def _pages(path: Path) -> Iterable[str]:
    """Articles; each begins with a line `` = Title = ``."""
    text = path.read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(?= = [^=\n].*[^=\n] = $)", text)
    return [part for part in parts if part.strip()]


_CONVERTERS: dict[str, Callable[[Path], Converted]] = {
    "bbh": _bbh,
    "c3": _c3,
    "ceval": _ceval,
    "cmath": _cmath,
    "cmmlu": _cmmlu,
    "commonsense": _commonsense,
    "commonsense_qa": _commonsense_qa,
    "drop": _drop,
    "gsm8k": _gsm8k,
    "hellaswag": _hellaswag,
    "humaneval": _humaneval,
    "ifeval": _ifeval,
    "math": _math,
    "mbpp": _mbpp,
    "mmlu": _mmlu,
    "mmlu_pro": _mmlu_pro,
    "triviaqa": _triviaqa,
    "wikitext2": _wikitext,
}
