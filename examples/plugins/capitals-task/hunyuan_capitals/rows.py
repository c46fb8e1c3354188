"""The rows of the benchmark: a country and four cities, its capital first."""

from typing import Any

_ROWS = """
France: Paris, Lyon, Marseille, Nice
China: Beijing, Shanghai, Shenzhen, Chengdu
Japan: Tokyo, Osaka, Kyoto, Sapporo
Italy: Rome, Milan, Naples, Turin
Spain: Madrid, Barcelona, Seville, Valencia
Germany: Berlin, Munich, Hamburg, Cologne
Egypt: Cairo, Alexandria, Giza, Luxor
Turkey: Ankara, Istanbul, Izmir, Antalya
Australia: Canberra, Sydney, Melbourne, Perth
Canada: Ottawa, Toronto, Vancouver, Montreal
Brazil: Brasilia, Rio de Janeiro, Salvador, Recife
Poland: Warsaw, Krakow, Gdansk, Lodz
Vietnam: Hanoi, Da Nang, Hue, Hai Phong
Kenya: Nairobi, Mombasa, Kisumu, Nakuru
Morocco: Rabat, Casablanca, Marrakesh, Fez
Pakistan: Islamabad, Karachi, Lahore, Peshawar
New Zealand: Wellington, Auckland, Christchurch, Dunedin
Switzerland: Bern, Zurich, Geneva, Basel
Kazakhstan: Astana, Almaty, Shymkent, Karaganda
Nigeria: Abuja, Lagos, Kano, Ibadan
"""


def dataset(**_: Any) -> dict[str, Any]:
    """What the harness asks for: a split's name and its rows."""
    from datasets import Dataset

    rows = []
    for line in _ROWS.strip().splitlines():
        country, cities = line.split(": ")
        rows.append({"country": country, "choices": [f" {city}" for city in cities.split(", ")]})
    return {"test": Dataset.from_list(rows)}
