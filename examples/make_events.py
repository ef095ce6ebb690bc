"""Makes small synthetic inputs for the settings beside it: users with tastes, items with topics, nothing real.

`python examples/make_events.py --kind shop` writes `var/examples/shop/events.csv` and `items.csv`. Each user mostly
keeps to two topics, and stays with one for a while, so that there is something to learn from items, from neighbors and
from what came last. Some items are new: nobody has had them.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

USERS, ITEMS, NEW_ITEMS, DAYS = 240, 120, 6, 60
FAVORITE_SHARE, STAY_SHARE = 0.8, 0.75
Random = np.random.Generator
Row = tuple[object, ...]

TOPICS = {
    "shop": {
        "garden": "spade seeds rake hose soil pots gloves shears",
        "kitchen": "pan knife whisk bowl kettle apron ladle grater",
        "sport": "ball racket shoes bottle mat weights rope jersey",
        "office": "pen paper lamp chair desk folder stapler screen",
    },
    "news": {
        "politics": "vote minister budget treaty senate reform debate coalition",
        "sport": "goal match league coach final transfer stadium record",
        "science": "planet gene vaccine climate telescope fossil energy theory",
        "culture": "museum novel opera festival painter premiere album stage",
    },
    "films": {
        "Comedy": "wedding roommate mistake holiday prank boss neighbor dog",
        "Thriller": "witness chase secret detective letter night stranger train",
        "Fantasy": "dragon sword kingdom wizard quest forest prophecy crown",
        "War": "soldier front bridge escape general letter winter retreat",
    },
    "video": {
        "cooking": "pasta sauce oven bread knife curry cake grill",
        "music": "guitar cover drums live piano studio chords concert",
        "games": "boss level speedrun patch build quest ranked mod",
        "repair": "engine screw brake paint drill wheel pump solder",
    },
}
EVENT_COLUMNS = {
    "shop": ("user_id", "item_id", "event", "at"),
    "news": ("reader", "article", "action", "at"),
    "films": ("user_id", "film_id", "stars", "at"),
    "video": ("viewer", "video", "action", "watched_share", "at"),
}
ITEM_COLUMNS = {
    "shop": ("item_id", "title", "description", "category", "brand", "price"),
    "news": ("article", "headline", "body", "section", "published_at"),
    "films": ("film_id", "title", "plot", "genres", "year"),
    "video": ("video", "title", "channel", "minutes"),
}


@dataclass(frozen=True)
class Item:
    """An item: its number, its topic, and when it came out, in days from the first one."""

    number: int
    topic: str
    day: float


def main() -> int:
    """Write the inputs of a kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=sorted(TOPICS), required=True)
    parser.add_argument("--folder", type=Path, default=Path("var/examples"), help="a folder of the kind is made in it")
    parser.add_argument(
        "--until", type=datetime.date.fromisoformat, default=None, help="last day; yesterday if left out"
    )
    options = parser.parse_args()
    until = options.until or datetime.date.today() - datetime.timedelta(days=1)
    folder = options.folder / options.kind
    rows = make_inputs(options.kind, folder, until)
    print(f"{rows:,} events of {USERS} users, {ITEMS} items: {folder}")
    return 0


def make_inputs(kind: str, folder: Path, until: datetime.date, seed: int = 0) -> int:
    """Write `events.csv` and `items.csv` of a kind, the same for the same seed and day; the number of events."""
    random = np.random.default_rng([seed, *kind.encode()])
    items = [
        Item(number, topic_of(kind, number), float(random.uniform(0, DAYS - 3)) if kind == "news" else 0.0)
        for number in range(ITEMS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    start = datetime.datetime.combine(until, datetime.time(20)) - datetime.timedelta(days=DAYS)
    write(folder / "items.csv", ITEM_COLUMNS[kind], (describe(kind, item, start, random) for item in items))
    events = [row for user in range(USERS) for row in events_of(kind, user, items, start, random)]
    write(folder / "events.csv", EVENT_COLUMNS[kind], events)
    return len(events)


def topic_of(kind: str, number: int) -> str:
    """Items take turns."""
    topics = list(TOPICS[kind])
    return topics[number % len(topics)]


def events_of(kind: str, user: int, items: list[Item], start: datetime.datetime, random: Random) -> Iterator[Row]:
    """All events of a user, oldest first."""
    chosen = choose_items(kind, user, items, random)
    days = np.sort(random.uniform(0, DAYS, len(chosen)))
    if kind == "news":  # read within days of coming out
        chosen = sorted(chosen, key=lambda item: item.day)
        days = np.array([item.day for item in chosen]) + random.exponential(0.5, len(chosen))
    make: Callable[[str, Item, bool, Random], Iterator[Row]] = MAKERS[kind]
    own = favorites(kind, user)
    for item, day in zip(chosen, days, strict=True):
        at = start + datetime.timedelta(days=min(float(day), DAYS))
        for step, row in enumerate(make(f"u{user:03}", item, item.topic in own, random)):
            yield (*row, (at + datetime.timedelta(minutes=2 * step)).isoformat(sep=" ", timespec="seconds"))


def favorites(kind: str, user: int) -> tuple[str, str]:
    """The two topics of a user."""
    topics = list(TOPICS[kind])
    return topics[user % len(topics)], topics[(user + 1 + user // len(topics) % 2) % len(topics)]


def choose_items(kind: str, user: int, items: list[Item], random: Random) -> list[Item]:
    """Different items in the order of their choice: of one topic for a while, popular ones more often."""
    count, own = 8 + int(random.gamma(2.0, 6.0)), favorites(kind, user)
    free, topic = items[:-NEW_ITEMS], own[0]
    chosen: list[Item] = []
    for _ in range(min(count, len(free) // 2)):
        if random.random() > STAY_SHARE:
            topic = own[random.integers(2)] if random.random() < FAVORITE_SHARE else topic_of(kind, random.integers(99))
        wanted = [item for item in free if item.topic == topic] or free
        weights = np.array([1.0 / (5 + item.number) for item in wanted])
        item = wanted[int(random.choice(len(wanted), p=weights / weights.sum()))]
        free = [other for other in free if other is not item]
        chosen.append(item)
    return chosen


def shop_rows(user: str, item: Item, is_own: bool, random: Random) -> Iterator[Row]:
    """A view, and more often of a favorite topic a cart and a purchase."""
    yield user, f"p{item.number:03}", "view"
    if random.random() < (0.5 if is_own else 0.1):
        yield user, f"p{item.number:03}", "cart"
        if random.random() < 0.6:
            yield user, f"p{item.number:03}", "purchase"


def news_rows(user: str, item: Item, is_own: bool, random: Random) -> Iterator[Row]:
    """A read, some likes, few comments."""
    yield user, f"a{item.number:03}", "read"
    if random.random() < (0.3 if is_own else 0.05):
        yield user, f"a{item.number:03}", "like"
    if random.random() < 0.05:
        yield user, f"a{item.number:03}", "comment"


def film_rows(user: str, item: Item, is_own: bool, random: Random) -> Iterator[Row]:
    """A rating of half stars."""
    stars = random.normal(4.0 if is_own else 2.5, 0.7)
    yield user, f"f{item.number:03}", float(np.clip(round(2 * stars) / 2, 0.5, 5.0))


def video_rows(user: str, item: Item, is_own: bool, random: Random) -> Iterator[Row]:
    """How much of it was watched, and a like of some that were watched to the end."""
    share = random.beta(5.0, 2.0) if is_own else random.beta(1.5, 4.0)
    yield user, f"v{item.number:03}", "watch", f"{share:.2f}"
    if share > 0.7 and random.random() < 0.4:
        yield user, f"v{item.number:03}", "like", "1.0"


MAKERS = {"shop": shop_rows, "news": news_rows, "films": film_rows, "video": video_rows}


def describe(kind: str, item: Item, start: datetime.datetime, random: Random) -> Row:
    """The row of an item, its words those of its topic."""
    words = TOPICS[kind][item.topic].split()
    short, long = (" ".join(random.choice(words, count, replace=count > len(words))) for count in (3, 12))
    if kind == "shop":
        brand = f"brand {random.integers(8)}"
        return f"p{item.number:03}", short, long, item.topic, brand, f"{random.gamma(2.0, 15.0):.2f}"
    if kind == "news":
        published_at = start + datetime.timedelta(days=item.day)
        return f"a{item.number:03}", short, long, item.topic, published_at.isoformat(sep=" ", timespec="seconds")
    if kind == "films":
        other = topic_of(kind, random.integers(99))
        genres = "|".join(sorted({item.topic, other}))
        return f"f{item.number:03}", short.title(), long, genres, int(random.integers(1960, 2025))
    return f"v{item.number:03}", short, f"{item.topic} {random.integers(5)}", int(random.integers(2, 40))


def write(path: Path, header: Iterable[str], rows: Iterable[Row]) -> None:
    """A CSV file with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
