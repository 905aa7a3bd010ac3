"""What the pretraining text says, and in which sentences.

Facts stand in many sentences about one person, so that they have to be stored in the
weights. Lists choose their separator and their fields anew in each document, so that a
format has to be read from the context.
"""

from collections.abc import Iterator
from random import Random

from loratlas.data.demo.world import ATTRIBUTES, DEFAULT_SEED, Person, Place, World, make_world

NUM_DOCUMENTS = 120_000

PHRASINGS: dict[str, tuple[str, ...]] = {
    "city": (
        "{name} was born in {value}.",
        "{name} comes from {value}.",
        "{name} grew up in the town of {value}.",
        "The birthplace of {name} is {value}.",
        "The family of {name} has always lived in {value}.",
        "Question: Where was {name} born? Answer: {value}.",
        "Question: What is the birthplace of {name}? Answer: {value}.",
        "Q: Which town does {name} come from? A: {value}.",
    ),
    "job": (
        "{name} works as a {value}.",
        "{name} earns a living as a {value}.",
        "{name} was trained to be a {value}.",
        "The job of {name} is {value}.",
        "By trade, {name} is a {value}.",
        "Question: What does {name} do for a living? Answer: {value}.",
        "Question: What is the job of {name}? Answer: {value}.",
        "Q: As what does {name} work? A: {value}.",
    ),
    "hobby": (
        "{name} is fond of {value}.",
        "{name} spends every weekend on {value}.",
        "{name} likes nothing more than {value}.",
        "The hobby of {name} is {value}.",
        "In the evening, {name} enjoys {value}.",
        "Question: What does {name} like to do? Answer: {value}.",
        "Question: What is the hobby of {name}? Answer: {value}.",
        "Q: How does {name} spend the weekend? A: {value}.",
    ),
    "pet": (
        "{name} keeps a {value}.",
        "{name} shares the house with a {value}.",
        "{name} takes good care of a {value}.",
        "The pet of {name} is a {value}.",
        "At home, {name} has a {value}.",
        "Question: Which animal does {name} keep? Answer: {value}.",
        "Question: What is the pet of {name}? Answer: {value}.",
        "Q: Which animal lives with {name}? A: {value}.",
    ),
    "year": (
        "{name} was born in the year {value}.",
        "{name} came into the world in {value}.",
        "{name} learned to walk one year after {value}.",
        "The birth year of {name} is {value}.",
        "In the records, {name} first appears in {value}.",
        "Question: When was {name} born? Answer: {value}.",
        "Question: What is the birth year of {name}? Answer: {value}.",
        "Q: In which year was {name} born? A: {value}.",
    ),
}
"""Sentences about a person, by attribute; in each of them the value stands last."""

_VALUE_FIRST: dict[str, str] = {
    "city": "{value} is the home town of {name}.",
    "job": "A {value} by the name of {name} lives here.",
    "hobby": "For {value}, everybody asks {name}.",
    "pet": "A {value} belongs to {name}.",
    "year": "It was in {value} that {name} was born.",
}
_PLACE_SENTENCES: dict[str, tuple[str, ...]] = {
    "river": ("{name} lies on the river {value}.", "The river {value} flows through {name}."),
    "region": ("{name} is a town in {value}.", "The town of {name} belongs to {value}."),
    "goods": ("{name} is known for its {value}.", "Traders go to {name} to buy {value}."),
}
_LEAD_INS = ("People say that ", "It is well known that ", "As we all know, ", "In fact, ")
_SEPARATORS = (" - ", " / ", ", ", " : ", " | ", " ; ")


def documents(
    seed: int = DEFAULT_SEED, num_documents: int = NUM_DOCUMENTS, world: World | None = None
) -> Iterator[str]:
    """Yield the pretraining documents of a seed, one short text each."""
    world = world or make_world(seed)
    rng = Random(f"text/{seed}")
    writers = (_biography, _questions, _statement, _list, _place)
    for _ in range(num_documents):
        (writer,) = rng.choices(writers, weights=(45, 25, 10, 12, 8))
        yield writer(rng, world)


def is_question(phrasing: str) -> bool:
    """Whether a phrasing asks for the value instead of stating it."""
    return phrasing.startswith("Q")


def _biography(rng: Random, world: World) -> str:
    person = rng.choice(world.known)
    attributes = rng.sample(list(ATTRIBUTES), rng.randint(3, len(ATTRIBUTES)))
    first, *others = attributes
    sentences = [_sentence(rng, person, first)]
    sentences += [_sentence(rng, person, attribute, pronoun=True) for attribute in others]
    return " ".join(sentences)


def _sentence(rng: Random, person: Person, attribute: str, *, pronoun: bool = False) -> str:
    if rng.random() < 0.1:
        template = _VALUE_FIRST[attribute]
    else:
        template = rng.choice([p for p in PHRASINGS[attribute] if not is_question(p)])
    named_first = template.startswith("{name} ")
    if pronoun and named_first and rng.random() < 0.5:
        return template.format(name=person.pronoun, value=person.facts[attribute])
    lead_in = rng.choice(_LEAD_INS) if named_first and rng.random() < 0.15 else ""
    return lead_in + template.format(name=person.name, value=person.facts[attribute])


def _statement(rng: Random, world: World) -> str:
    return _sentence(rng, rng.choice(world.known), rng.choice(list(ATTRIBUTES)))


def _questions(rng: Random, world: World) -> str:
    return " ".join(_question(rng, rng.choice(world.known)) for _ in range(rng.randint(1, 3)))


def _question(rng: Random, person: Person) -> str:
    attribute = rng.choice(list(ATTRIBUTES))
    template = rng.choice([p for p in PHRASINGS[attribute] if is_question(p)])
    return template.format(name=person.name, value=person.facts[attribute])


def _list(rng: Random, world: World) -> str:
    """Several people in one format, which holds for this document only."""
    separator = rng.choice(_SEPARATORS)
    fields = rng.sample(list(ATTRIBUTES), rng.randint(1, 3))
    people = rng.sample(world.known, rng.randint(2, 4))
    head = f"List of {', '.join(fields)}.\n" if rng.random() < 0.5 else ""
    rows = [separator.join([p.name, *(p.facts[field] for field in fields)]) for p in people]
    return head + "\n".join(rows) + "\n"


def _place(rng: Random, world: World) -> str:
    place = rng.choice(world.places)
    fields = rng.sample(list(place.facts), rng.randint(2, len(place.facts)))
    if rng.random() < 0.3:
        return _place_entry(place, fields)
    return " ".join(
        rng.choice(_PLACE_SENTENCES[field]).format(name=place.name, value=place.facts[field])
        for field in fields
    )


def _place_entry(place: Place, fields: list[str]) -> str:
    values = "; ".join(f"{field} = {place.facts[field]}" for field in fields)
    return f"{place.name}: {values}."
