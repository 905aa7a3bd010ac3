"""Which rows the two bundled fine-tuning tasks have: `demo:facts` and `demo:format`.

`facts` teaches new facts: people whom the pretraining text never mentions. Each fact is
stated in four phrasings for training, and asked in a fifth and a sixth for validation and
test, so that learning a sentence by heart does not help.

`format` teaches a new format over known facts: cards of people whom the base model knows,
with the fields that the prompt asks for, in its order. Nobody has a card in two splits.
"""

from itertools import permutations
from random import Random

from loratlas.data.demo.text import PHRASINGS
from loratlas.data.demo.world import ATTRIBUTES, DEFAULT_SEED, Person, default_world
from loratlas.errors import DataError, did_you_mean

Row = dict[str, str]

DEMO_TASKS = ("facts", "format")
SPLITS = ("train", "validation", "test")

_NUM_STATED = 4
_CARD_PEOPLE = {"train": (0, 160), "validation": (160, 200), "test": (200, 300)}
_CARDS_PER_PERSON = {"train": 5, "validation": 4, "test": 2}
_CARD_FIELDS = 3


def rows(task: str, split: str) -> list[Row]:
    """Return the rows of one split, each with a `prompt` and a `completion`.

    A completion begins with the space that separates it from its prompt.

    Raises:
        DataError: no such task, or no such split.
    """
    _check("bundled task", task, DEMO_TASKS)
    _check("split", split, SPLITS)
    rng = Random(f"{task}/{DEFAULT_SEED}")
    if task == "facts":
        return _fact_rows(rng)[split]
    return _card_rows(rng, split)


def _check(what: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise DataError(
            f"{given}: no such {what}{did_you_mean(given, allowed)}; there is: {', '.join(allowed)}"
        )


def _fact_rows(rng: Random) -> dict[str, list[Row]]:
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for person in default_world().newcomers:
        for attribute, phrasings in PHRASINGS.items():
            drawn = rng.sample(phrasings, _NUM_STATED + 2)
            facts = [_fact_row(person, attribute, phrasing) for phrasing in drawn]
            by_split["train"] += facts[:_NUM_STATED]
            by_split["validation"].append(facts[_NUM_STATED])
            by_split["test"].append(facts[_NUM_STATED + 1])
    for split in by_split.values():
        rng.shuffle(split)
    return by_split


def _fact_row(person: Person, attribute: str, phrasing: str) -> Row:
    """Cut a phrasing before its value: what is asked, and the answer."""
    asked, _, rest = phrasing.partition(" {value}")
    return {
        "prompt": asked.format(name=person.name),
        "completion": f" {person.facts[attribute]}{rest}",
    }


def _card_rows(rng: Random, split: str) -> list[Row]:
    people = list(default_world().known)
    rng.shuffle(people)
    start, end = _CARD_PEOPLE[split]
    orders = list(permutations(ATTRIBUTES, _CARD_FIELDS))
    own = Random(f"{split}/{rng.random()}")
    cards = [
        (person, fields)
        for person in people[start:end]
        for fields in own.sample(orders, _CARDS_PER_PERSON[split])
    ]
    own.shuffle(cards)
    return [_card_row(person, fields) for person, fields in cards]


def _card_row(person: Person, fields: tuple[str, ...]) -> Row:
    card = "; ".join(f"{field} = {person.facts[field]}" for field in fields)
    return {
        "prompt": f"Card of {person.name} with {', '.join(fields)}:",
        "completion": f" {card}.",
    }
