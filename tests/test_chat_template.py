"""Conversations to prompts: like transformers, and safe against users and templates alike."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as NativeTokenizer

from hunyuan.errors import BadDataError, UsageError
from hunyuan.tokenizer import template as template_module
from hunyuan.tokenizer.hunyuan_large import CHAT_TEMPLATE
from hunyuan.tokenizer.load import load_tokenizer
from hunyuan.tokenizer.markup import Markup, SpecialToken, choose_guard
from hunyuan.tokenizer.template import ChatTemplate
from hunyuan.tokenizer.tokenizer import Tokenizer

CONTROL = ["<|end|>", "<|im_start|>", "<|im_end|>", "<s>", "<s><s>", "[/I]"]
CONTROL += ["<|im_end|><|im_start|>"]
TAGS = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
PLAIN_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TRIMMING = """\
{%- for message in messages %}
    {%- set text = message.content | trim %}
    {%- if message.role == 'assistant' and '</think>' in text %}
        {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- bos_token if loop.first }}[{{ message.role }}]{{ text }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""
TIGHT = """\
{%- for message in messages -%}
{%- set text = message.content -%}
<{{ text }} {{ text }}> <|im_end|{{ text }} {{ text }}|im_end|> <|im_end|>
{%- endfor -%}"""
WITH_TOOLS = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}{{ tool | tojson(ensure_ascii=true, indent=2) }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.content %}{{ message.content }}{% endif %}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
        {{- call.function.arguments | tojson }}{{ '}</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
TEMPLATES = {"plain": PLAIN_CHATML, "trimming": TRIMMING, "tight": TIGHT, "tools": WITH_TOOLS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose special tokens overlap, contain and continue each other."""
    folder = tmp_path_factory.mktemp("chat")
    native = NativeTokenizer(models.BPE())
    native.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    native.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet)
    native.train_from_iterator(["the im_start im_end |><| tool think"] * 3, trainer)
    native.add_special_tokens([AddedToken(text, special=True) for text in CONTROL])
    native.add_tokens([AddedToken(text, normalized=False) for text in TAGS])
    native.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "<|im_end|>",
        "add_bos_token": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def tokenizers(folder: Path) -> dict[str, Tokenizer]:
    """One tokenizer for each template."""
    return {name: with_template(folder, text) for name, text in TEMPLATES.items()}


def with_template(folder: Path, template: str | None) -> Tokenizer:
    original = load_tokenizer(folder)
    return Tokenizer(
        original.backend,
        original.special_tokens,
        bos_id=original.bos_id,
        eos_id=original.eos_id,
        add_bos=original.add_bos,
        stop_ids=original.stop_ids,
        roles=original.roles,
        chat_template=template,
    )


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **fields}


SYSTEM = {"role": "system", "content": "  Be brief.\n"}
CONVERSATIONS = [
    [user("hi")],
    [
        {"role": "system", "content": "  Be brief.\n"},
        user(" hi \n"),
        assistant("yo"),
        user("再见😀"),
    ],
    [user("a <b> c"), assistant("<think>\nhm\n</think>\n\nyes"), user("1 < 2 > 1 [x]")],
    [user("with > edge <"), assistant(""), user("|")],
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": '天气 of a <city> & "more"',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "北京"}},
}


# Like transformers


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("name", ["plain", "trimming", "tools"])
def test_equals_transformers(
    folder: Path,
    tokenizers: dict[str, Tokenizer],
    name: str,
    messages: list[dict[str, Any]],
    add_generation_prompt: bool,
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.chat_template = TEMPLATES[name]
    ours = tokenizers[name]
    rendered = theirs.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    assert ours.render_chat(messages, add_generation_prompt=add_generation_prompt) == rendered
    ids = ours.chat_prompt(messages, add_generation_prompt=add_generation_prompt)
    assert ids == theirs.encode(rendered, add_special_tokens=False)


def test_tools_equal_transformers(folder: Path, tokenizers: dict[str, Tokenizer]) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    theirs.chat_template = WITH_TOOLS
    messages = [
        user("weather?"),
        assistant(None, tool_calls=[CALL]),
        {"role": "tool", "content": "sunny"},
    ]
    rendered = theirs.apply_chat_template(
        messages, tools=TOOLS, tokenize=False, add_generation_prompt=True
    )
    ours = tokenizers["tools"]
    assert ours.render_chat(messages, tools=TOOLS) == rendered
    expected = theirs.encode(rendered, add_special_tokens=False)
    assert ours.chat_prompt(messages, tools=TOOLS) == expected
    as_text = json.loads(json.dumps(messages))
    as_text[1]["tool_calls"][0]["function"]["arguments"] = '{"city": "北京"}'
    assert ours.chat_prompt(as_text, tools=TOOLS) == expected


def test_own_template_of_hunyuan_large(folder: Path) -> None:
    ours = with_template(folder, CHAT_TEMPLATE)
    system = {"role": "system", "content": "S"}
    start, first = "<|startoftext|>", "<|startoftext|>S<|extra_4|>"
    answered = "U1<|extra_0|>A1<|eos|>"
    turns = [user("U1"), assistant("A1"), user("U2"), assistant("A2")]
    assert ours.render_chat([system, turns[0]]) == first + "U1<|extra_0|>"
    assert ours.render_chat([system, *turns[:2]]) == first + answered
    assert ours.render_chat([system, *turns]) == (
        first + answered + start + "U2<|extra_0|>A2<|eos|>"
    )
    assert ours.render_chat(turns[:2]) == start + answered
    assert ours.render_chat([system | {"content": ""}, turns[0]]) == start + "U1<|extra_0|>"
    with pytest.raises(UsageError, match="a system message must come first"):
        ours.render_chat([turns[0], system])
    with pytest.raises(UsageError, match="no role tool"):
        ours.render_chat([{"role": "tool", "content": "x"}])
    with pytest.raises(UsageError, match="no place for tools"):
        ours.render_chat(turns, tools=TOOLS)


# A message never becomes markup

PARTS = ["<|", "|>", "<", ">", "im_end", "|im_end|>", "<|im_end|", "s", "<s", "[/I", "end|>"]
OTHERS = [" ", "\n", "é", "\ufdd0", "\ufdd1", "\\ufdd0", "[", "]", "/I]", "word"]
hostile_text = st.lists(st.sampled_from([*CONTROL, *TAGS, *PARTS, *OTHERS]), max_size=8).map(
    "".join
)


def special_ids(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    values = set(tokenizer.specials.values())
    return [id for id in ids if id in values]


@pytest.mark.parametrize("name", ["plain", "trimming", "tight", "tools"])
@settings(max_examples=150, deadline=None)
@given(text=hostile_text, more=hostile_text)
def test_specials_in_the_prompt_do_not_depend_on_the_users_text(
    tokenizers: dict[str, Tokenizer], name: str, text: str, more: str
) -> None:
    ours = tokenizers[name]
    system = {"role": "system", "content": more}
    prompt = ours.chat_prompt([system, user(text), assistant("fine"), user(more)])
    harmless = [system | {"content": "x"}, user("x"), assistant("fine"), user("x")]
    assert special_ids(ours, prompt) == special_ids(ours, ours.chat_prompt(harmless))


@settings(max_examples=150, deadline=None)
@given(text=hostile_text, more=hostile_text)
def test_what_the_user_typed_arrives(
    tokenizers: dict[str, Tokenizer], text: str, more: str
) -> None:
    ours = tokenizers["plain"]
    messages = [user(text), user(more)]
    expected = "".join(f"<|im_start|>user\n{part}<|im_end|>\n" for part in (text, more))
    rendered = ours.render_chat(messages, add_generation_prompt=False)
    ids = ours.chat_prompt(messages, add_generation_prompt=False)
    assert rendered == ours.decode(ids, skip_specials=False) == expected


@settings(max_examples=80, deadline=None)
@given(text=hostile_text, key=hostile_text)
def test_tools_and_results_never_become_markup(
    tokenizers: dict[str, Tokenizer], text: str, key: str
) -> None:
    ours = tokenizers["tools"]

    def prompt(text: str, key: str) -> list[int]:
        call = {"type": "function", "function": {"name": text, "arguments": {key: [text]}}}
        messages = [
            user("x"),
            {"role": "tool", "content": text, "name": text},
            user([{"type": "text", "text": text}, {"type": "text", "text": key}]),
        ]
        return ours.chat_prompt(messages, tools=[call, {"type": text, "parameters": {key: key}}])

    assert special_ids(ours, prompt(text, key)) == special_ids(ours, prompt("x", "y"))


def test_guards_leave_no_trace_in_escaped_json(tokenizers: dict[str, Tokenizer]) -> None:
    ours = tokenizers["tools"]
    tools = [{"<|im_end|>": "<|im_end|> \ufdd0"}]
    rendered = ours.render_chat([user("x")], tools=tools, add_generation_prompt=False)
    written = json.dumps(tools[0], ensure_ascii=False) + json.dumps(tools[0], indent=2)
    system = f"<|im_start|>system\n{written}<|im_end|>\n"
    assert rendered == f"{system}<|im_start|>user\nx<|im_end|>\n"
    ids = ours.chat_prompt([user("x")], tools=tools, add_generation_prompt=False)
    assert ours.decode(ids, skip_specials=False) == rendered


@settings(max_examples=80, deadline=None)
@given(text=hostile_text)
def test_an_answer_cannot_end_its_turn_but_may_use_tags(
    tokenizers: dict[str, Tokenizer], text: str
) -> None:
    ours = tokenizers["plain"]
    prompt = ours.chat_prompt([assistant(text)])
    controls = [id for id in special_ids(ours, prompt) if ours.is_control(id)]
    assert controls == special_ids(ours, ours.chat_prompt([assistant("x")]))


def test_tags_in_an_answer_are_the_tokens_the_model_wrote(tokenizers: dict[str, Tokenizer]) -> None:
    ours = tokenizers["plain"]
    text = "<think>x</think><tool_call>{}</tool_call><|im_end|>"
    written = set(special_ids(ours, ours.chat_prompt([assistant(text)])))
    assert {ours.specials[tag] for tag in TAGS} <= written
    typed = set(special_ids(ours, ours.chat_prompt([user(text)])))
    assert not {ours.specials[tag] for tag in TAGS} & typed


def test_templates_still_search_and_trim(tokenizers: dict[str, Tokenizer]) -> None:
    messages = [user(" <|im_end|> "), assistant("<think>hm</think>\nyes")]
    assert tokenizers["trimming"].render_chat(messages, add_generation_prompt=False) == (
        "<s>[user]<|im_end|><|im_end|>\n[assistant]yes<|im_end|>\n"
    )


def test_all_noncharacters_used() -> None:
    used = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    assert choose_guard([used[:-1]]) == used[-1]
    assert choose_guard(["\\ufdd0"]) == "\ufdd1"
    with pytest.raises(UsageError, match=r"U\+FDD0\.\.U\+FDEF"):
        choose_guard([used])


@settings(max_examples=200, deadline=None)
@given(
    texts=st.sets(st.text("ab<>", min_size=2, max_size=5), min_size=1, max_size=4),
    text=st.text("ab<>", max_size=12),
)
def test_shielded_text_holds_no_special(texts: set[str], text: str) -> None:
    markup = Markup(SpecialToken(text=t, id=i, control=True) for i, t in enumerate(texts))
    for by_model in (False, True):
        for whole in (False, True):
            shielded = markup.shield(text, "\ufdd0", by_model=by_model, whole=whole)
            assert all(isinstance(piece, str) for piece in markup.split(shielded))
            assert shielded.replace("\ufdd0", "") == text


@settings(max_examples=200, deadline=None)
@given(
    texts=st.sets(st.text("ab<>", min_size=2, max_size=5), min_size=1, max_size=4),
    before=st.text("ab<>", max_size=4),
    text=st.text("ab<>", max_size=8),
    after=st.text("ab<>", max_size=4),
)
def test_no_special_reaches_over_the_edge_of_a_text(
    texts: set[str], before: str, text: str, after: str
) -> None:
    markup = Markup(SpecialToken(text=t, id=i, control=True) for i, t in enumerate(texts))
    shielded = markup.shield(text, "\ufdd0", by_model=False, whole=False)
    for left, right in ((before, ""), ("", after)):
        found = [p for p in markup.split(left + shielded + right) if isinstance(p, SpecialToken)]
        alone = [p for p in markup.split(left + "\ufdd0" + right) if isinstance(p, SpecialToken)]
        assert found == alone


def test_control_tokens_of_the_template_count(tokenizers: dict[str, Tokenizer]) -> None:
    ours = tokenizers["plain"]
    ids = special_ids(ours, ours.chat_prompt([user("hi")]))
    names = ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert ids == [ours.specials[name] for name in names]


# Malformed conversations


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "messages: must be a list of messages, not str"),
        (None, "messages: must be a list of messages, not NoneType"),
        ({"role": "user"}, "messages: must be a list of messages, not dict"),
        ([], "messages: is empty"),
        (["hi"], r"messages\[0\]: must be an object with role and content, not str"),
        ([{"content": "x"}], r"messages\[0\]\.role: missing; must be one of system,"),
        ([{"role": "bot", "content": "x"}], r"messages\[0\]\.role: 'bot'; must be one of"),
        ([{"role": ["user"], "content": "x"}], r"messages\[0\]\.role: \['user'\]"),
        ([user("x"), {"role": "user"}], r"messages\[1\]\.content: missing"),
        ([user(None)], r"messages\[0\]\.content: missing"),
        ([assistant(None)], r"messages\[0\]\.content: missing"),
        ([user(3)], r"messages\[0\]\.content: must be a text or a list of text parts, not int"),
        ([user(["x"])], r"messages\[0\]\.content\[0\]: must be \{\"type\": \"text\""),
        ([user([{"type": "image_url", "text": ""}])], r"content\[0\]\.type: 'image_url'"),
        ([user([{"type": "image_url", "image_url": {}}])], r"content\[0\]: must be"),
        ([assistant(None, tool_calls="x")], r"messages\[0\]\.tool_calls: must be a list, not str"),
        ([assistant(None, tool_calls=[3])], r"tool_calls\[0\]: must be an object, not int"),
        ([assistant(None, tool_calls=[{}])], r"tool_calls\[0\]\.function\.name: missing"),
        ([user("x") | {"extra": object()}], r"messages\[0\]\.extra: must be a JSON value"),
        ([user("x") | {3: 4}], r"messages\[0\]: key 3: must be a text"),
    ],
)
def test_malformed_messages(tokenizers: dict[str, Tokenizer], messages: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        tokenizers["plain"].chat_prompt(messages)
    for text in (caught.value.en, caught.value.zh):
        assert "\n" not in text
    assert message.split(":")[0].split("\\")[0][:8] in caught.value.zh


@pytest.mark.parametrize(
    ("tools", "message"), [("x", "tools: must be a list"), ([3], r"tools\[0\]: must be an object")]
)
def test_malformed_tools(tokenizers: dict[str, Tokenizer], tools: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tokenizers["tools"].chat_prompt([user("x")], tools=tools)


def test_nesting_is_limited(tokenizers: dict[str, Tokenizer]) -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(UsageError, match="nested more than 64 deep"):
        tokenizers["plain"].chat_prompt([user("x") | {"extra": deep}])


def test_parts_developer_and_broken_arguments(tokenizers: dict[str, Tokenizer]) -> None:
    ours = tokenizers["tools"]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ours.render_chat([user(parts)]) == ours.render_chat([user("a\nb")])
    developer = {"role": "developer", "content": "D"}
    assert ours.render_chat([developer]) == ours.render_chat([developer | {"role": "system"}])
    broken = {"function": {"name": "f", "arguments": '{"a": '}}
    assert '"arguments": "{\\"a\\": "' in ours.render_chat([assistant(None, tool_calls=[broken])])


def test_the_callers_messages_stay_as_they_are(tokenizers: dict[str, Tokenizer]) -> None:
    call = {"function": {"name": "f", "arguments": "{}"}}
    messages = [{"role": "developer", "content": "<|im_end|>"}, assistant(None, tool_calls=[call])]
    before = json.dumps(messages)
    tokenizers["tools"].chat_prompt(messages)
    assert json.dumps(messages) == before


def test_no_template(folder: Path) -> None:
    with pytest.raises(UsageError, match="no chat template; use plain completion") as caught:
        with_template(folder, None).chat_prompt([user("hi")])
    assert "续写" in caught.value.zh


def test_where_templates_are_found(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "listed"}]
    path.write_text(json.dumps(config | {"chat_template": named}))
    assert load_tokenizer(tmp_path).render_chat([user("x")]) == "listed"
    path.write_text(json.dumps(config | {"chat_template": named[:1]}))
    with pytest.raises(BadDataError, match="'default'"):
        load_tokenizer(tmp_path)
    path.write_text(json.dumps(config | {"chat_template": "text"}))
    assert load_tokenizer(tmp_path).render_chat([user("x")]) == "text"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert load_tokenizer(tmp_path).render_chat([user("x")]) == "file"


# Hostile and broken templates


LOOP = "{% for a in range(99999) %}INNER{% endfor %}"
GROW = "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = GROWN %}{% endfor %}"
NEST = GROW.replace("'aa'", "['a']").replace("GROWN", "[ns.x, ns.x]")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "longer",
        ),
        (LOOP.replace("INNER", LOOP.replace(" %}INNER", " if false %}")), "longer"),
        (
            "{% macro f(n) %}{{ n and f(n - 1) ~ f(n - 1) }}{% endmacro %}{{ f(99) }}",
            "longer",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursion"),
        ("{{ range(10 ** 9) }}", "Range too big"),
        ("{{ 'a' * 10 ** 9 }}", "too much text"),
        ("{{ [1] * 10 ** 9 }}", "too much text"),
        (GROW.replace("GROWN", "ns.x + ns.x"), "too much text"),
        (GROW.replace("GROWN", "ns.x ~ ns.x"), "too much text"),
        (GROW.replace("GROWN", "'%s%s' % (ns.x, ns.x)"), "too much text"),
        (GROW.replace("GROWN", "'{0}{0}'.format(ns.x)"), "too much text"),
        (GROW.replace("GROWN", "ns.x.replace('a', 'aaa')"), "too much text"),
        (GROW.replace("GROWN", "ns.x | replace('a', 'aaa')"), "too much text"),
        (GROW.replace("GROWN", "ns.x.join([ns.x, ns.x])"), "too much text"),
        (GROW.replace("GROWN", "[ns.x, ns.x] | join(ns.x)"), "too much text"),
        (GROW.replace(" = GROWN %}", " %}{{ ns.x }}{{ ns.x }}{% endset %}"), "too much text"),
        (GROW.replace("'aa'", "3").replace("GROWN", "ns.x * ns.x"), "product of large numbers"),
        (NEST + "{{ ns.x | tojson }}", "longer"),
        (NEST + "{{ ns.x }}", "longer"),
        (NEST + "{{ ns.x | upper }}", "longer"),
        (NEST + "{{ raise_exception(ns.x) }}", "longer"),
        (NEST + "{{ ns }}", "writes out a"),
        ("{{ 9 ** 9 ** 9 ** 9 }}", "power of a large number"),
        ("{{ '%99999999d' % 1 }}", "wide or computed field"),
        ("{{ '%*d' % (99999999, 1) }}", "wide or computed field"),
        ("{{ '{:{}}'.format(1, 99999999) }}", "wide or computed field"),
        ("{{ '%99999999d' | format(1) }}", "wide or computed field"),
        ("{{ 'a'.ljust(99999999) }}", "unsafe"),
        ("{{ 'a' | center(99999999) }}", "No filter named 'center'"),
        ("{{ 'a' | tojson(indent=99999999) }}", "indent=99999999"),
        ("{{ 'a\n' | indent(999999999) }}", "too much text"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.__init__.__globals__ }}", "unsafe"),
        ("{{ '' | attr('__class__') | attr('x') }}", "unsafe"),
        ("{{ '{0.__class__.__mro__}'.format('') }}", "unsafe"),
        ("{{ namespace(__class__=1) }}", "underscore"),
        ("{% set ns = namespace() %}{% set ns.__class__ = 1 %}", "underscore"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ lipsum() }}", "undefined"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{% if %}", r"\(line 1\)"),
        ("\n{{ 'x' | nope }}", r"\(line 2\).*nope"),
        ("{{ a.b.c }}", "'a' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[0].content + 1 }}", "concatenate"),
        ("{{ raise_exception('not\nnow') }}", ": not now;"),
    ],
)
def test_hostile_and_broken_templates(
    monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    monkeypatch.setattr(template_module, "TIME_LIMIT", 0.2)
    started = time.monotonic()
    with pytest.raises(UsageError, match=f"the chat template fails.*{reason}") as caught:
        ChatTemplate(source).render({"messages": [user("hi")]}, 2)
    assert time.monotonic() - started < 2
    assert "\n" not in caught.value.en + caught.value.zh


def test_private_attributes_render_as_nothing() -> None:
    assert ChatTemplate("[{{ ''.__class__ }}]").render({}, 0) == "[]"


def test_what_templates_commonly_use_works() -> None:
    source = (
        "{% set ns = namespace(n=0, self=1) %}{% for m in messages %}{% if loop.index > 2 %}"
        "{% break %}{% endif %}{% set ns.n = ns.n + 1 %}{% generation %}{{ m.content | trim }}"
        "{% endgeneration %},{% endfor %}{{ ns.n }} {{ 2 ** 10 }} {{ '%s-%d' % ('a', 3) }} "
        "{{ 'x' * 3 }} {{ [1, 2] | join('+') }} {{ {'a': '<é>'} | tojson }} "
        "{{ dict(b=1) | tojson }} "
        "{{ messages | map(attribute='content') | list | length }} "
        "{{ 'a-b'.split('-')[1] | upper }} "
        "{{ 'a{}'.format('b') }} "
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
        " {{ 'ab' | replace('a', 'c') }} {{ 'x' | indent(2, true) }} {{ strftime_now('%%') }}"
        " {{ messages[0].get('nope') is none }} {{ missing }}{{ 'q' | string ~ 1 }}"
    )
    rendered = ChatTemplate(source).render({"messages": [user(" a "), user("b"), user("c")]}, 3)
    assert rendered == ('a,b,2 1024 a-3 xxx 1+2 {"a": "<é>"} {"b": 1} 3 B ab 3 cb   x % True q1')


def test_long_conversations_fit_the_limits(tokenizers: dict[str, Tokenizer]) -> None:
    ours = tokenizers["tools"]
    messages = [user("long text " * 100_000), *[user("x"), assistant("y")] * 1000]
    rendered = ours.render_chat(messages)
    assert len(rendered) > 1_000_000
