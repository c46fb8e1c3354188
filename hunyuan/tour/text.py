"""Documents and conversations of the tiny world, endless and reproducible."""

import random
from collections.abc import Iterator
from typing import Any

from hunyuan.tour.words import ANIMALS, CAPITALS, NAMES, OPPOSITES, PLACES, WEATHER


def documents(seed: int) -> Iterator[tuple[str, str]]:
    """(language, text) of short stories and lists of facts, without end."""
    draw = random.Random(seed)
    while True:
        language = draw.choice(("en", "zh"))
        make = draw.choice((_story, _story, _facts))
        yield language, make(draw, language)


def _story(draw: random.Random, language: str) -> str:
    name, other = draw.sample(NAMES, 2)
    place, weather = draw.choice(PLACES), draw.choice(WEATHER)
    animal = draw.choice(ANIMALS)
    count = draw.randint(2, 9)
    if language == "zh":
        parts = [
            f"{weather[1]}的一天，{name[1]}和{other[1]}一起去了{place[1]}。",
            f"他们在那里看见{count}只{animal[1]}。",
            f"{name[1]}说：“{animal[1]}喜欢吃{animal[3]}。”",
            f"{other[1]}给了{animal[1]}一些{animal[3]}，{animal[1]}很高兴。",
            f"后来{name[1]}回家了，{other[1]}也回家了。",
        ]
        return "".join(parts[: draw.randint(3, 5)])
    parts = [
        f"One {weather[0]} day {name[0]} and {other[0]} went to {place[0]}.",
        f"There they saw {count} {_plural(animal[0])}.",
        f'{name[0]} said: "The {animal[0]} likes {animal[2]}."',
        f"So {other[0]} gave the {animal[0]} some {animal[2]}, and it was happy.",
        f"Later {name[0]} went home, and {other[0]} went home too.",
    ]
    return " ".join(parts[: draw.randint(3, 5)])


def _facts(draw: random.Random, language: str) -> str:
    return ("" if language == "zh" else " ").join(
        _fact(draw, language) for _ in range(draw.randint(3, 6))
    )


def _fact(draw: random.Random, language: str) -> str:
    zh = language == "zh"
    kind = draw.randrange(4)
    if kind == 0:
        country, city, country_zh, city_zh = draw.choice(CAPITALS)
        return f"{country_zh}的首都是{city_zh}。" if zh else f"The capital of {country} is {city}."
    if kind == 1:
        a, b, a_zh, b_zh = draw.choice(OPPOSITES)
        if draw.random() < 0.5:
            a, b, a_zh, b_zh = b, a, b_zh, a_zh
        return f"“{a_zh}”的反义词是“{b_zh}”。" if zh else f"The opposite of {a} is {b}."
    if kind == 2:
        first, second = draw.randint(0, 9), draw.randint(0, 9)
        total = first + second
        return f"{first} 加 {second} 等于 {total}。" if zh else f"{first} plus {second} is {total}."
    name, name_zh, food, food_zh = draw.choice(ANIMALS)
    return f"{name_zh}喜欢吃{food_zh}。" if zh else f"The {name} likes {food}."


def _plural(animal: str) -> str:
    return "mice" if animal == "mouse" else f"{animal}s"


def conversations(seed: int, count: int) -> list[dict[str, Any]]:
    """Questions about the tiny world with their answers, as fine-tuning takes them."""
    draw = random.Random(seed)
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question, answer in (_exchange(draw) for _ in range(count))
    ]


def _exchange(draw: random.Random) -> tuple[str, str]:
    zh = draw.random() < 0.5
    kind = draw.randrange(4)
    if kind == 0:
        country, city, country_zh, city_zh = draw.choice(CAPITALS)
        if zh:
            return f"{country_zh}的首都是哪里？", f"{country_zh}的首都是{city_zh}。"
        return f"What is the capital of {country}?", f"The capital of {country} is {city}."
    if kind == 1:
        a, b, a_zh, b_zh = draw.choice(OPPOSITES)
        if zh:
            return f"“{a_zh}”的反义词是什么？", f"“{a_zh}”的反义词是“{b_zh}”。"
        return f"What is the opposite of {a}?", f"The opposite of {a} is {b}."
    if kind == 2:
        first, second = draw.randint(0, 9), draw.randint(0, 9)
        if zh:
            return f"{first} 加 {second} 等于多少？", f"{first} 加 {second} 等于 {first + second}。"
        return f"What is {first} plus {second}?", f"{first} plus {second} is {first + second}."
    name, name_zh, food, food_zh = draw.choice(ANIMALS)
    if zh:
        return f"{name_zh}喜欢吃什么？", f"{name_zh}喜欢吃{food_zh}。"
    return f"What does the {name} like?", f"The {name} likes {food}."
