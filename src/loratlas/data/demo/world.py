"""Who lives in the bundled world, and what is true there."""

from dataclasses import dataclass
from functools import cache
from random import Random

from loratlas.data.demo import words

DEFAULT_SEED = 2024
NUM_KNOWN = 300
NUM_NEWCOMERS = 50

ATTRIBUTES: dict[str, list[str]] = {
    "city": words.CITIES,
    "job": words.JOBS,
    "hobby": words.HOBBIES,
    "pet": words.PETS,
    "year": words.YEARS,
}
"""What is known of a person, and the values it can take."""

PLACE_ATTRIBUTES: dict[str, list[str]] = {
    "river": words.RIVERS,
    "region": words.REGIONS,
    "goods": words.GOODS,
}
"""What is known of a place, and the values it can take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """A person: a full name that nobody else has, a pronoun, one value per attribute."""

    name: str
    pronoun: str
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A town and what is known of it."""

    name: str
    facts: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """Everything that is true.

    Attributes:
        known: people whom the pretraining text tells about.
        newcomers: people whom it never mentions; their first and last names occur in it,
            borne by others.
        places: the towns, all of them known.
    """

    known: tuple[Person, ...]
    newcomers: tuple[Person, ...]
    places: tuple[Place, ...]


def make_world(seed: int = DEFAULT_SEED) -> World:
    """Return the world of a seed."""
    rng = Random(f"world/{seed}")
    people = _people(rng, NUM_KNOWN + NUM_NEWCOMERS)
    places = tuple(
        Place(name=name, facts=_draw_facts(rng, PLACE_ATTRIBUTES)) for name in words.CITIES
    )
    return World(known=people[:NUM_KNOWN], newcomers=people[NUM_KNOWN:], places=places)


@cache
def default_world() -> World:
    """Return the world that the bundled model was pretrained on."""
    return make_world()


def _people(rng: Random, num_people: int) -> tuple[Person, ...]:
    pronouns = dict.fromkeys(words.FIRST_NAMES_SHE, "She") | dict.fromkeys(
        words.FIRST_NAMES_HE, "He"
    )
    names = [(first, last) for first in pronouns for last in words.LAST_NAMES]
    return tuple(
        Person(
            name=f"{first} {last}",
            pronoun=pronouns[first],
            facts=_draw_facts(rng, ATTRIBUTES),
        )
        for first, last in rng.sample(names, num_people)
    )


def _draw_facts(rng: Random, attributes: dict[str, list[str]]) -> dict[str, str]:
    return {attribute: rng.choice(values) for attribute, values in attributes.items()}
