"""Conversations with tools: calls are real, answers repeat them, the files can be learned."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from hunyuan.cli.main import run
from hunyuan.data.dialogue import read_examples
from hunyuan.data.rows import NO_TARGET
from hunyuan.errors import UsageError
from hunyuan.tokenizer.tokenizer import Tokenizer
from hunyuan.workbench.tool_data.execute import Tools
from hunyuan.workbench.tool_data.make import held_out, make_tool_data
from hunyuan.workbench.tool_data.offered import BY_ID, DISTRACTORS
from hunyuan.workbench.tool_data.tasks import phrases

Record = dict[str, Any]


def records(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    asyncio.run(make_tool_data(folder, count=300, seed=5, form="tools"))
    return folder


@pytest.fixture(scope="module")
def every(made: Path) -> list[Record]:
    return records(made / "train.jsonl") + records(made / "heldout.jsonl")


def calls(record: Record) -> list[tuple[Record, Record, str]]:
    """Each call with its result and the answer after it."""
    found = []
    messages = record["messages"]
    for i, message in enumerate(messages):
        if message.get("tool_calls"):
            function = message["tool_calls"][0]["function"]
            found.append(
                (function, json.loads(messages[i + 1]["content"]), messages[i + 2]["content"])
            )
    return found


def test_files_are_complete_and_counted(made: Path, every: list[Record]) -> None:
    counted = json.loads((made / "statistics.json").read_text())
    assert len(every) == 300
    assert sum(counted[part]["conversations"] for part in ("train", "heldout")) == 300
    assert 0.05 < counted["heldout"]["conversations"] / 300 < 0.35
    kinds = set(counted["train"]["kinds"]) | set(counted["heldout"]["kinds"])
    assert kinds == {"call", "documents", "follow_up", "clarify", "talk", "missing", "failure"}
    assert set(counted["train"]["calls"]) == set(BY_ID)
    assert counted["train"]["without_call"] > 20
    assert counted["train"]["renamed"] > 20


def test_calls_fit_what_was_offered(every: list[Record]) -> None:
    for record in every:
        offered = {tool["function"]["name"]: tool["function"] for tool in record["tools"]}
        assert len(offered) == len(record["tools"]), "names on offer are different"
        for function, _, _ in calls(record):
            schema = offered[function["name"]]["parameters"]
            arguments = json.loads(function["arguments"])
            assert set(arguments) == set(schema["required"])
            for name, value in arguments.items():
                assert value in schema["properties"][name].get("enum", [value])


def test_answers_repeat_what_the_tool_gave(every: list[Record]) -> None:
    with_numbers = 0
    for record in every:
        for _, result, answer in calls(record):
            if "result" in result:
                with_numbers += 1
                assert result["result"] in answer
            elif "error" in result:
                assert not re.search(r"= ?\d", answer)
            elif "passages" in result:
                assert "[1]" in answer
    assert with_numbers > 100


def test_results_are_those_of_the_tools(every: list[Record]) -> None:
    """Executed once more, by other names, every call gives the same."""
    tools = Tools([])
    checked = 0

    async def check() -> None:
        nonlocal checked
        for record in every:
            for function, result, _ in calls(record):
                values = list(json.loads(function["arguments"]).values())
                for tool in BY_ID.values():
                    if function["name"] in tool.names and tool.id not in ("search_documents",):
                        usual = [argument.names[0] for argument in tool.arguments]
                        outcome = await tools.run(tool.id, dict(zip(usual, values, strict=True)))
                        assert json.loads(outcome.content) == result
                        checked += 1
        await tools.close()

    asyncio.run(check())
    assert checked > 150


@pytest.mark.parametrize(
    ("expression", "result"), [("12*(3+4)", "84"), ("10/4", "2.5"), ("2^40", "1099511627776")]
)
def test_known_values(expression: str, result: str) -> None:
    tools = Tools([])

    async def ask() -> str:
        outcome = await tools.run("calculate", {"expression": expression})
        await tools.close()
        return outcome.shown

    assert asyncio.run(ask()) == result


def test_nothing_is_called_where_nothing_helps(every: list[Record]) -> None:
    talk = {pair[0] for lang in ("en", "zh") for pair in phrases()["talk"][lang]}
    useless = {name for tool in DISTRACTORS for name in tool.names}
    for record in every:
        if record["messages"][0]["content"] in talk:
            assert len(record["messages"]) == 2
            assert record["tools"], "tools were on offer"
        for function, _, _ in calls(record):
            assert function["name"] not in useless


def test_one_seed_one_file(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        asyncio.run(make_tool_data(tmp_path / name, count=40, seed=seed, form="text"))
    same = [(tmp_path / name / "train.jsonl").read_bytes() for name in "abc"]
    assert same[0] == same[1] != same[2]


def test_no_conversation_twice_and_no_template_in_both(made: Path) -> None:
    train, other = records(made / "train.jsonl"), records(made / "heldout.jsonl")
    texts = [json.dumps(record, sort_keys=True) for record in train + other]
    assert len(set(texts)) == len(texts)
    templates = [f"arithmetic/{lang}/{i}" for lang in ("en", "zh") for i in range(7)]
    assert {held_out(template) for template in templates} == {True, False}


def test_more_than_there_is_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hunyuan.workbench.tool_data import make

    monkeypatch.setattr(make, "_TRIES", 0)
    with pytest.raises(UsageError, match="different conversations"):
        asyncio.run(make_tool_data(tmp_path, count=2000, seed=0, form="text", languages=["en"]))


@pytest.mark.parametrize("form", ["text", "tools"])
def test_the_trainer_reads_them(tmp_path: Path, byte_tokenizer: Tokenizer, form: str) -> None:
    """As text any template serves; calls as fields need one that knows them."""
    assert run(["data", "make-tools", str(tmp_path), "--count", "30", "--form", form]) == 0
    tokenizer = byte_tokenizer
    if form == "tools":
        tokenizer = with_tools(byte_tokenizer)
    files = [tmp_path / "train.jsonl", tmp_path / "heldout.jsonl"]
    examples, tally = read_examples(files, tokenizer, longest=100_000)
    assert tally.used == 30
    assert not tally.malformed
    for example, record in zip(examples, [r for path in files for r in records(path)], strict=True):
        learned = tokenizer.decode(
            [int(t) for t in example.targets if t != NO_TARGET], skip_specials=False
        )
        for message in record["messages"]:
            if message["role"] == "assistant" and message["content"]:
                assert message["content"] in learned
            if message["role"] == "user":
                assert f"{message['content']}\n" not in learned
        for function, _, _ in calls(record):
            assert function["name"] in learned


def with_tools(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with a chat template that shows tools, calls and results."""
    return Tokenizer(
        tokenizer.backend,
        tokenizer.special_tokens,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        add_bos=tokenizer.add_bos,
        stop_ids=tokenizer.stop_ids,
        roles=tokenizer.roles,
        chat_template=(
            "{% if tools %}{{ tools | tojson }}\n{% endif %}"
            "{% for m in messages %}{{ m.role }}: "
            "{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}</call>{% endfor %}"
            "{{ m.content or '' }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        ),
    )
