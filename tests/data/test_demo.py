"""Does the bundled world hold what it promises, and has the bundled model learned it?"""

import hashlib
import json
import random
import re
import subprocess
import sys
import warnings

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from loratlas.bundled import demo_model_folder
from loratlas.data.demo import tasks, text, words, world
from loratlas.errors import DataError

FOLDER = demo_model_folder("demo:gpt2")
CORPUS_SHA256 = "7bc44fad4b8bd5ee67ea5275d96f1f55424bdf53a731751b7575d72f2c8c9619"
NUM_STEPS = 50


@pytest.fixture(scope="module")
def corpus():
    return list(text.documents())


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


def load():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)


@pytest.fixture(scope="module")
def model():
    return load().eval()


# The world and its text


def test_the_text_has_not_changed(corpus):
    digest = hashlib.sha256(b"".join(document.encode() + b"\0" for document in corpus))
    assert digest.hexdigest() == CORPUS_SHA256


def test_another_seed_is_another_world():
    assert world.make_world(1) == world.make_world(1)
    assert world.make_world(1) != world.make_world(2)
    assert list(text.documents(1, 5)) != list(text.documents(2, 5))


def test_names_are_unique_and_newcomers_are_never_mentioned(corpus):
    here = world.default_world()
    names = [person.name for person in here.known + here.newcomers]
    assert len(set(names)) == len(names) == world.NUM_KNOWN + world.NUM_NEWCOMERS
    everything = "\n".join(corpus)
    assert all(person.name in everything for person in here.known)
    assert not [person.name for person in here.newcomers if person.name in everything]


def test_every_word_stands_for_one_thing():
    lists = [
        *(words.FIRST_NAMES_SHE, words.FIRST_NAMES_HE, words.LAST_NAMES, words.CITIES, words.JOBS),
        *(words.HOBBIES, words.PETS, words.YEARS, words.RIVERS, words.REGIONS, words.GOODS),
    ]
    flat = [word for words_of_one_kind in lists for word in words_of_one_kind]
    assert len(flat) == len(set(flat))


def test_documents_say_what_is_true(corpus):
    here = world.default_world()
    said = re.findall(r"([A-Z]\w+ [A-Z]\w+) works as a (\w+)\.", "\n".join(corpus))
    assert len(said) > 1000
    assert set(said) <= {(person.name, person.facts["job"]) for person in here.known}


# The tasks


@pytest.mark.parametrize(
    ("task", "sizes"), [("facts", (1000, 250, 250)), ("format", (800, 160, 200))]
)
def test_sizes_and_no_row_twice(task, sizes):
    rows = {split: tasks.rows(task, split) for split in tasks.SPLITS}
    assert tuple(len(rows[split]) for split in tasks.SPLITS) == sizes
    prompts = [row["prompt"] for split in rows.values() for row in split]
    assert len(set(prompts)) == len(prompts)
    assert all(row["completion"].startswith(" ") for split in rows.values() for row in split)
    assert rows == {split: tasks.rows(task, split) for split in tasks.SPLITS}


def phrasing_of(row):
    """Return who, which attribute and which phrasing a row of `facts` is about."""
    (person,) = [p for p in world.default_world().newcomers if p.name in row["prompt"]]
    whole = row["prompt"] + row["completion"]
    (found,) = [
        (person.name, attribute, phrasing)
        for attribute, phrasings in text.PHRASINGS.items()
        for phrasing in phrasings
        if phrasing.format(name=person.name, value=person.facts[attribute]) == whole
    ]
    return found


def test_facts_asks_the_same_facts_in_phrasings_that_training_did_not_use():
    found = {
        split: [phrasing_of(row) for row in tasks.rows("facts", split)] for split in tasks.SPLITS
    }
    facts = {split: [each[:2] for each in found[split]] for split in tasks.SPLITS}
    assert set(facts["train"]) == set(facts["validation"]) == set(facts["test"])
    assert all(facts["train"].count(fact) == 4 for fact in facts["test"])
    assert len(set(facts["test"])) == len(facts["test"])
    every = [each for split in found.values() for each in split]
    assert len(set(every)) == len(every)


def test_format_cards_are_true_and_nobody_is_in_two_splits():
    known = {person.name: person.facts for person in world.default_world().known}
    people = {}
    for split in tasks.SPLITS:
        for row in tasks.rows("format", split):
            name, _, asked = row["prompt"].removeprefix("Card of ").partition(" with ")
            fields = asked.removesuffix(":").split(", ")
            card = "; ".join(f"{field} = {known[name][field]}" for field in fields)
            assert row["completion"] == f" {card}."
            people.setdefault(split, set()).add(name)
    assert {split: len(names) for split, names in people.items()} == {
        "train": 160,
        "validation": 40,
        "test": 100,
    }
    assert len(set.union(*people.values())) == 300


def test_wrong_names_are_said():
    with pytest.raises(DataError, match=r"^fact: no such bundled task \(did you mean facts\?\); "):
        tasks.rows("fact", "train")
    with pytest.raises(DataError, match=r"^dev: no such split; there is: train, validation, test$"):
        tasks.rows("facts", "dev")


def test_the_tasks_do_not_load_torch():
    code = (
        "import sys; from loratlas.data.demo.tasks import rows; rows('facts', 'test'); "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# The model


def encode(tokenizer, rows):
    """Return (ids, labels) per row as lists: the completion and the end are scored."""
    encoded = []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
        encoded.append((prompt + answer, [-100] * len(prompt) + answer))
    return encoded


def padded(rows, pad):
    longest = max(len(ids) for ids, _ in rows)
    fill = [longest - len(ids) for ids, _ in rows]
    return (
        torch.tensor([ids + [pad] * n for (ids, _), n in zip(rows, fill, strict=True)]),
        torch.tensor([[1] * len(ids) + [0] * n for (ids, _), n in zip(rows, fill, strict=True)]),
        torch.tensor([labels + [-100] * n for (_, labels), n in zip(rows, fill, strict=True)]),
    )


def token_losses(model, rows):
    """Return the losses of the scored tokens of all rows, and whether each was the best guess."""
    ids, mask, labels = padded(rows, 0)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    targets = labels[:, 1:]
    scored = targets != -100
    losses = functional.cross_entropy(logits[scored], targets[scored], reduction="none")
    return losses, logits[scored].argmax(-1) == targets[scored]


@torch.no_grad()
def mean_loss(model, rows):
    return token_losses(model, rows)[0].mean().item()


def test_the_folder_is_small_and_loads_without_a_warning():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load()
    assert model.dtype == torch.float32
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config["dtype"] == "float16"
    assert {config[f"{part}_pdrop"] for part in ("attn", "embd", "resid")} == {0.0}


def test_the_tokenizer_has_one_special_token_and_gives_text_back(tokenizer, corpus):
    assert set(tokenizer.all_special_tokens) == {"<|endoftext|>"}
    assert tokenizer.pad_token_id == tokenizer.bos_token_id == tokenizer.eos_token_id
    for document in corpus[:50]:
        assert tokenizer.decode(tokenizer(document)["input_ids"]) == document


def test_every_value_is_one_token(tokenizer):
    values = [value for values in world.ATTRIBUTES.values() for value in values]
    assert not [value for value in values if len(tokenizer(f" {value}")["input_ids"]) != 1]


def test_rows_are_short(tokenizer):
    rows = [
        row
        for task in tasks.DEMO_TASKS
        for split in tasks.SPLITS
        for row in tasks.rows(task, split)
    ]
    assert max(len(ids) for ids, _ in encode(tokenizer, rows)) < 48


def test_the_card_tells_how_the_model_was_made(corpus, model):
    card = json.loads((FOLDER / "training.json").read_text())
    assert card["text_sha256"] == CORPUS_SHA256
    assert card["steps_done"] == card["recipe"]["steps"]
    assert card["parameters"] == model.num_parameters()


@torch.no_grad()
def value_losses(model, tokenizer, people):
    """Return loss and accuracy of the value alone, one random phrasing per fact."""
    rng = random.Random(0)
    rows = [
        {"prompt": before.format(name=person.name), "completion": " " + person.facts[attribute]}
        for person in people
        for attribute, phrasings in text.PHRASINGS.items()
        for before in [rng.choice(phrasings).partition(" {value}")[0]]
    ]
    losses, right = token_losses(
        model, [(ids[:-1], labels[:-1]) for ids, labels in encode(tokenizer, rows)]
    )
    return losses.mean().item(), right.float().mean().item()


def test_known_facts_are_in_the_weights_and_new_ones_are_not(model, tokenizer):
    here = world.default_world()
    known_loss, known_right = value_losses(model, tokenizer, here.known[:60])
    new_loss, new_right = value_losses(model, tokenizer, here.newcomers)
    assert known_right > 0.95
    assert known_loss < 0.25
    # Guessing evenly among 16 to 40 values costs 3.4 nats, and is right one time in 28.
    assert new_right < 0.12
    assert new_loss > 3.0


def test_the_base_answers_questions_about_known_people(model, tokenizer):
    person = world.default_world().known[7]
    prompt = tokenizer(f"Question: Where was {person.name} born? Answer:", return_tensors="pt")
    out = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert tokenizer.decode(out[0, -1]) == f" {person.facts['city']}"


@pytest.mark.slow
@pytest.mark.parametrize("task", tasks.DEMO_TASKS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_fifty_steps_of_lora_are_clearly_better_than_none(task, tokenizer):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn", "c_fc", "c_proj"])
    lora.fan_in_fan_out = True
    adapted = get_peft_model(load(), lora)
    train = encode(tokenizer, tasks.rows(task, "train"))
    test = encode(tokenizer, tasks.rows(task, "test"))
    before = mean_loss(adapted, test)
    assert before > 1.5
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=5e-3)
    rng = random.Random(0)
    for _ in range(NUM_STEPS):
        token_losses(adapted, rng.sample(train, 16))[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert mean_loss(adapted, test) < before / 2
