"""Layouts: who stands where, who holds what, and what is refused before anything runs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hunyuan.errors import UsageError
from hunyuan.model.config import ModelConfig, Routing, preset
from hunyuan.model.routing import assign_groups, draw_slot_keys
from hunyuan.parallel.context import part_of, slot_keys_of, tokens_of
from hunyuan.parallel.layout import Layout, check

ROUTING = Routing(mode="capacity-recycle", capacity_group=8)
CONFIG = ModelConfig(
    vocab=96,
    hidden=48,
    layers=6,
    heads=8,
    kv_heads=4,
    head_dim=8,
    ffn=48,
    context=64,
    experts=6,
    cla_share=2,
    routing=ROUTING,
)


@st.composite
def layouts(draw):
    sizes = {name: draw(st.integers(1, 4)) for name in ("data", "context", "tensor", "pipeline")}
    shards = sizes["data"] * sizes["context"]
    expert = draw(st.sampled_from([n for n in range(1, shards + 1) if shards % n == 0]))
    return Layout(expert=expert, **sizes)


@given(layouts())
def test_every_process_has_a_place_of_its_own(layout):
    places = [layout.place(rank) for rank in range(layout.world)]
    assert len(set(places)) == layout.world
    # The experts of a layer lie once on every run of neighbours.
    by_expert = [p.expert for p in places if p.tensor == 0]
    assert by_expert == list(range(layout.expert)) * (len(by_expert) // layout.expert)


@given(layouts())
def test_the_text_of_a_layout_is_the_layout(layout):
    assert Layout.parse(str(layout)) == layout


@given(layouts(), st.integers(1, 3), st.integers(1, 3))
def test_processes_hold_every_token_once(layout, rows, pieces):
    shape = (rows * layout.data, pieces * 2 * layout.context)
    token = torch.arange(shape[0] * shape[1]).view(shape)
    held = [
        part_of(token, layout, layout.place(rank)).flatten()
        for rank in range(layout.world)
        if layout.place(rank).tensor == layout.place(rank).pipeline == 0
    ]
    assert torch.cat(held).sort().values.equal(token.flatten())


@given(st.integers(1, 8), st.integers(1, 8))
def test_ranks_of_a_row_have_the_same_work(context, piece):
    """A query at t attends to t + 1 keys."""
    layout = Layout(context=context)
    tokens = 2 * context * piece
    works = {int((tokens_of(layout, c, tokens) + 1).sum()) for c in range(context)}
    assert len(works) == 1


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_tokens_are_routed_as_in_one_process(data):
    """The same expert, recycled or not, for every token, whatever the layout."""
    layout = Layout(data=data.draw(st.integers(1, 3)), context=data.draw(st.integers(1, 3)))
    group = data.draw(st.integers(1, 5))
    config = replace(
        CONFIG,
        hidden=36,  # so that any of these layouts can shard a weight
        routing=replace(ROUTING, capacity_group=group, capacity_factor=1.3),
    )
    rows = layout.data * data.draw(st.integers(1, 2))
    tokens = 2 * layout.context * group * data.draw(st.integers(1, 2))
    check(config, layout, layout.world, rows, tokens)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    choice = torch.randint(0, 3, (rows * tokens, 1), generator=generator)  # of 6: many overflow
    keys = draw_slot_keys(config, rows * tokens, generator)
    whole = _experts(config, choice, keys[0]).view(rows, tokens)
    for rank in range(layout.world):
        place = layout.place(rank)
        own = part_of(choice.view(rows, tokens), layout, place)
        own_keys = slot_keys_of(keys, config, layout, place, rows, tokens)
        routed = _experts(config, own.reshape(-1, 1), own_keys[0])
        assert routed.equal(part_of(whole, layout, place).flatten())


def _experts(config, choice, keys):
    plan = assign_groups(config, choice, keys)
    slots = len(keys) // config.experts
    return plan.slot // slots


def test_a_stage_gets_the_keys_of_its_layers():
    keys = torch.arange(6.0)[:, None].expand(6, 48)
    layout = Layout(pipeline=3)
    for rank in range(3):
        own = slot_keys_of(keys, CONFIG, layout, layout.place(rank), 1, 48)
        assert own[:, 0].tolist() == list(layout.stage(CONFIG, rank))


WRONG = {
    "heads": (Layout(tensor=3), {}, "tensor", "heads=8"),
    "kv heads": (Layout(tensor=8), {}, "tensor", "kv_heads=4"),
    "vocabulary": (Layout(tensor=2), {"vocab": 97}, "tensor", "vocab=97"),
    "experts": (Layout(data=4, expert=4), {}, "expert", "experts=6"),
    "ranks of experts": (Layout(data=4, expert=3), {}, "expert", "parallel.context = 4"),
    "cut in a group": (Layout(pipeline=2), {}, "pipeline", "groups of 2"),
    "unequal stages": (Layout(pipeline=4), {"cla_share": 1}, "pipeline", "6 layers"),
    "rows": (Layout(data=3), {}, "data", "batch.rows=8"),
    "width": (Layout(data=32), {}, "data", "hidden=48"),
    "width of divided weights": (Layout(context=5, tensor=2), {}, "context", "hidden=48"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refusals_name_the_nearest_that_works(name):
    layout, changes, field, reason = WRONG[name]
    config = replace(CONFIG, **changes)
    with pytest.raises(UsageError) as error:
        check(config, layout, layout.world, 8, 128 * layout.context, micro=8)
    assert reason in error.value.en
    assert f"parallel.{field}=" in error.value.en
    assert f"parallel.{field}=" in error.value.zh
    _, _, nearest = error.value.en.partition("nearest that works: ")
    remedies = [int(n) for n in nearest.replace(f"parallel.{field}=", "").split(" or ")]
    assert remedies
    for remedy in remedies:
        better = replace(layout, **{field: remedy})
        rows = better.data if name == "width" else 8
        check(config, better, better.world, rows, 128 * better.context, micro=8)


@pytest.mark.parametrize("layout", [Layout(data=4), Layout(context=4), Layout(data=2, context=2)])
def test_a_rank_that_would_hold_part_of_a_group_is_refused(layout):
    config = replace(CONFIG, routing=replace(ROUTING, capacity_group=24))
    with pytest.raises(UsageError, match="capacity_group=24") as error:
        check(config, layout, layout.world, 4, 32)
    nearest = error.value.en.split("routing.capacity_group=")[-1].split(",")[0]
    better = replace(config, routing=replace(ROUTING, capacity_group=int(nearest)))
    check(better, layout, layout.world, 4, 32)
    assert f"routing.capacity_group={nearest}" in error.value.zh
    # One process holds everything, and without capacity there are no groups.
    check(config, Layout(), 1, 4, 32)
    check(replace(config, routing=Routing()), layout, layout.world, 4, 32)


def test_pieces_of_a_row_and_micro_batches_are_checked():
    with pytest.raises(UsageError, match=r"row_tokens=36.*32 or 40"):
        check(replace(CONFIG, routing=Routing()), Layout(context=4), 4, 4, 36)
    with pytest.raises(UsageError, match=r"accumulate=2.*at least 3"):
        check(CONFIG, Layout(pipeline=3), 3, 4, 32, micro=2)


def test_the_number_of_processes_is_checked():
    with pytest.raises(UsageError, match=r"needs 8 processes, 4 were started.*data=2") as error:
        check(CONFIG, Layout(data=4, tensor=2), 4, 8, 64)
    assert "parallel.data=2" in error.value.zh
    with pytest.raises(UsageError, match=r"needs 8 processes, 5 were started; start 8$"):
        check(CONFIG, Layout(data=4, tensor=2), 5, 8, 64)


def test_a_dense_model_has_no_experts_to_divide():
    dense = replace(CONFIG, experts=0, routing=Routing())
    with pytest.raises(UsageError, match="no experts"):
        check(dense, Layout(data=2, expert=2), 2, 4, 32)


@pytest.mark.parametrize("text", ["data", "data=0", "data=x", "rows=2", "data=2;tensor=2"])
def test_texts_that_are_no_layout(text):
    with pytest.raises(UsageError):
        Layout.parse(text)


def test_hunyuan_large_goes_on_256_accelerators():
    large = replace(preset("large"), routing=Routing(mode="capacity-recycle"))
    for text in ("data=256 expert=8", "data=16 expert=8 tensor=2 pipeline=8"):
        layout = Layout.parse(text)
        check(large, layout, 256, 256, 4096, micro=8)
