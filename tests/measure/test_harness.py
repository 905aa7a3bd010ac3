"""lm_eval's tasks, put to a model in memory and held against transformers and our own scorer."""

import json
import random
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from loratlas.data.rows import TokenizedRow
from loratlas.errors import DataError, ModelError, NotYetError, StudyError, TrialError
from loratlas.measure import harness
from loratlas.measure.harness import prepare_task
from loratlas.measure.harness_task import questions
from loratlas.measure.likelihood import score
from loratlas.measure.measures import TaskMeasure
from loratlas.placement.placement import place
from loratlas.train.adapters import new_adapters

# The tiny model reads 64 tokens, and its tokenizer spells most words.
QUESTIONS = [
    {"question": "Ada has 24 and 5?", "answer": "24 + 5 = 29\n#### 29"},
    {"question": "How many?", "answer": "#### 1029"},
    {"question": "Ben in Oslo?", "answer": "3\n#### 3"},
    {"question": "Where does Cleo number 7 live, since 1950, and Dan?", "answer": "#### 7"},
]
CHOICES = [
    {
        "question": f"Where is {name}?",
        "choices": {"text": ["Oslo", "Rome in", "a Lima"], "label": ["A", "B", "C"]},
        "answerKey": key,
    }
    for name, key in [("Ada", "A"), ("Ben", "C"), ("Cleo", "B")]
]


@pytest.fixture
def write(tmp_path):
    def written(rows: list, name: str = "rows.jsonl") -> Path:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path

    return written


@pytest.fixture
def gsm8k(base, write):
    def prepared(rows=QUESTIONS, **options):
        options = {"max_new_tokens": 8, "batch": 2, **options}
        measure = TaskMeasure(task="lm_eval:gsm8k", source="rows.jsonl", **options)
        return prepare_task(measure, base, root=write(rows))

    return prepared


@pytest.fixture
def arc(base, write):
    measure = TaskMeasure(task="lm_eval:arc_easy", source="rows.jsonl", batch=2)
    return prepare_task(measure, base, root=write(CHOICES))


def prompt(row) -> str:
    return f"Question: {row['question']}\nAnswer:"


def generated(model, base, text: str, limit: int) -> str:
    """What transformers' own greedy decoding gives, a row alone, cut where the task says."""
    ids = torch.tensor([base.tokenizer(text).input_ids[-limit:]])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False,
            pad_token_id=base.pad_id,
        )  # fmt: skip
    answer = base.tokenizer.decode(out[0][ids.shape[1] :], skip_special_tokens=True)
    return answer.split("Question:")[0]


def texts(score) -> list[str]:
    return [answer.text for answer in score.answers]


@pytest.fixture
def adapted(base, anatomy):
    """The base with adapters that change what it says."""
    with new_adapters(base, place(anatomy, "all", rank=4, alpha=64), seed=0, dropout=0) as model:
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if ".lora_B." in name:
                    weights.normal_(std=0.5)
        yield model


def test_answers_are_those_of_transformers_whatever_the_batch(base, gsm8k, adapted):
    expected = [generated(adapted, base, prompt(row), 64 - 8) for row in QUESTIONS]
    for batch in (1, 3):
        assert texts(gsm8k(batch=batch).take(adapted, base)) == expected
    assert len(set(expected)) == len(QUESTIONS)


def test_the_adapter_answers_and_not_the_base(base, gsm8k, adapted):
    task = gsm8k()
    found = texts(task.take(adapted, base))
    with adapted.disable_adapter():
        untuned = texts(task.take(adapted, base))
    assert all(ours != theirs for ours, theirs in zip(found, untuned, strict=True))


def test_each_question_is_kept(base, gsm8k):
    found = gsm8k(rows=QUESTIONS).take(base.model, base)
    assert [answer.question for answer in found.answers] == [0, 1, 2, 3]
    for answer, row in zip(found.answers, QUESTIONS, strict=True):
        assert answer.prompt_digest == sha256(prompt(row).encode()).hexdigest()
        assert set(answer.metrics) == {
            "exact_match,strict-match",
            "exact_match,flexible-extract",
        } == set(found.metrics)  # fmt: skip
    assert found.seconds > 0


# What a model may say to the first two questions (29 and 1029), and the two matches by hand.
SAID = [
    ("24 + 5 = 29\n#### 29", 1, 1),
    # A known trap: the figures are equal, the texts are not, once the dollar sign is dropped.
    (" She pays $29.00", 0, 0),
    (" She pays $29.", 0, 1),
    (" The answer is 29", 0, 1),
    # The other trap: what is recited after the answer would match, and is cut off.
    (" 28\n#### 28\n\nQuestion: Ada?\nAnswer: 29\n#### 29", 0, 0),
    (" none", 0, 0),
]


@pytest.mark.parametrize(("text", "strict", "flexible"), SAID)
def test_matches_are_those_found_by_hand(base, gsm8k, monkeypatch, text, strict, flexible):
    monkeypatch.setattr(harness._Lent, "_model_generate", saying(text))
    answer = gsm8k(rows=QUESTIONS[:1], max_new_tokens=40).take(base.model, base).answers[0]
    assert answer.metrics["exact_match,strict-match"] == strict
    assert answer.metrics["exact_match,flexible-extract"] == flexible
    assert answer.text == text.split("Question:")[0]


def test_separators_of_thousands_do_not_count(base, gsm8k, monkeypatch):
    monkeypatch.setattr(harness._Lent, "_model_generate", saying("#### 1,029"))
    found = gsm8k(rows=QUESTIONS[:2], max_new_tokens=40).take(base.model, base)
    assert found.metrics == {"exact_match,strict-match": 0.5, "exact_match,flexible-extract": 0.5}
    assert found.answers[1].extracted == {"strict-match": "1,029", "flexible-extract": "1,029"}


def saying(text: str):
    def generate(self, context, max_length, stop, **_):
        ids = torch.tensor([self.tokenizer(text).input_ids] * len(context))
        return torch.cat([context, ids], dim=1)

    return generate


def test_a_prompt_that_does_not_fit_is_cut_on_the_left_and_counted(base, gsm8k, adapted):
    long = {"question": "Where does Cleo live? " * 8, "answer": "#### 1"}
    rows = [QUESTIONS[0], long, QUESTIONS[1]]
    found = gsm8k(rows=rows, batch=3).take(adapted, base)
    assert [answer.truncated for answer in found.answers] == [False, True, False]
    assert found.num_truncated == 1
    assert texts(found) == [generated(adapted, base, prompt(row), 64 - 8) for row in rows]


def test_generation_keeps_its_cache(base, gsm8k):
    """The base is loaded with use_cache off; each further token must read one token only."""
    lengths = []
    hook = base.model.register_forward_pre_hook(
        lambda _module, _args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    gsm8k(rows=QUESTIONS[:1]).take(base.model, base)
    hook.remove()
    assert lengths[0] > 1
    assert set(lengths[1:]) == {1}
    assert base.model.config.use_cache is False


def test_the_studys_bound_on_an_answer_holds(base, gsm8k):
    """Neither the task's own bound nor one in the model's generation settings outranks it."""
    base.model.generation_config.max_new_tokens = 20
    try:
        found = gsm8k(max_new_tokens=2).take(base.model, base)
        assert base.model.generation_config.max_new_tokens == 20
    finally:
        base.model.generation_config.max_new_tokens = None
    assert all(len(base.tokenizer(text).input_ids) <= 2 for text in texts(found))


def test_choices_are_scored_as_our_scorer_scores_them(base, arc, adapted):
    for model in (base.model, adapted):
        found = arc.take(model, base)
        for answer, row in zip(found.answers, CHOICES, strict=True):
            ours = [-nll for nll in own_scores(model, base, row)]
            # fp32 sums over a handful of tokens, in another order.
            assert answer.log_likelihoods == pytest.approx(ours, rel=1e-5)
            lengths = [len(text) for text in row["choices"]["text"]]
            gold = "ABC".index(row["answerKey"])
            by_length = [value / length for value, length in zip(ours, lengths, strict=True)]
            assert answer.metrics["acc"] == float(np.argmax(ours) == gold)
            assert answer.metrics["acc_norm"] == float(np.argmax(by_length) == gold)
        mean = np.mean([answer.metrics["acc"] for answer in found.answers])
        assert found.metrics["acc"] == pytest.approx(mean)


def own_scores(model, base, row):
    rows = []
    for number, choice in enumerate(row["choices"]["text"]):
        start = len(base.tokenizer(prompt(row)).input_ids)
        ids = np.array(base.tokenizer(f"{prompt(row)} {choice}").input_ids, dtype=np.int32)
        scored = np.arange(len(ids)) >= start
        rows.append(TokenizedRow(row=number, ids=ids, scored=scored, num_bytes=1))
    return score(model, rows, collator=base.collator, device=base.device).nll


def test_solved_examples_come_before_the_question(base, gsm8k):
    bare, shown = gsm8k(), gsm8k(shots=1)
    first, second = (
        next(iter(task.task.instances)).args[0]
        for task in (bare, shown)
        if task.take(base.model, base)
    )
    assert first == prompt(QUESTIONS[0])
    assert second.endswith(f"\n\n{first}")
    assert second.count("Question:") == 2
    assert second.count(QUESTIONS[0]["question"]) == 1, "a question is not its own example"
    assert bare.digest != shown.digest


def test_only_what_matters_is_in_the_digest(gsm8k):
    same = {gsm8k().digest, gsm8k(batch=1).digest}
    assert len(same) == 1
    others = [gsm8k(max_new_tokens=9), gsm8k(rows=QUESTIONS[:3]), gsm8k(rows=QUESTIONS[::-1])]
    assert len(same | {task.digest for task in others}) == 4


def legacy_state():
    return np.random.get_state()[1].copy()  # noqa: NPY002


def test_nothing_global_is_changed(base, arc, gsm8k, capsys):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    base.model.train()
    state = torch.get_rng_state(), legacy_state(), random.getstate()
    for task in (arc, gsm8k()):
        task.take(base.model, base)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(legacy_state(), state[1])
    assert random.getstate() == state[2]
    assert base.model.training
    base.model.eval()
    assert "tie_weights" not in base.model.__dict__
    assert capsys.readouterr() == ("", "")


def test_adapters_on_tied_sites_are_left_alone(base, anatomy, arc):
    """The embedding and the head share their weights; lm_eval would tie them anew."""
    placement = place(anatomy, "embedding | head", rank=2)
    with new_adapters(base, placement, seed=0, dropout=0) as model:
        before = {name: id(weights) for name, weights in model.named_parameters()}
        arc.take(model, base)
        assert {name: id(weights) for name, weights in model.named_parameters()} == before


def test_log_likelihoods_that_are_no_numbers_are_an_error(base, arc):
    hook = base.model.register_forward_hook(
        lambda _module, _args, out: setattr(out, "logits", out.logits * float("nan"))
    )
    with pytest.raises(TrialError, match="of 3 of 3 questions are no numbers, first of question 1"):
        arc.take(base.model, base)
    hook.remove()


BAD_ROWS = [
    (
        [{"query": "?", "answer": "1"}],
        "rows.jsonl does not fit the task: 'question' is undefined; the task reads: answer, "
        "question",
    ),
    ([QUESTIONS[0], {"question": "?"}], 'rows.jsonl:2: no key "answer", which rows.jsonl:1 has'),
    (
        [QUESTIONS[0], {"question": None, "answer": "1"}],
        'rows.jsonl:2 does not fit the task: "question" is null',
    ),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS)
def test_rows_that_do_not_fit(gsm8k, rows, message):
    with pytest.raises(DataError) as caught:
        gsm8k(rows=rows)
    assert message in str(caught.value)


def test_too_few_questions(base, write):
    measure = TaskMeasure(task="lm_eval:gsm8k", source="rows.jsonl", rows=9, max_new_tokens=8)
    with pytest.raises(DataError, match="asks 9 questions, and there are 4"):
        prepare_task(measure, base, root=write(QUESTIONS))


def test_no_room_for_a_prompt(gsm8k):
    with pytest.raises(StudyError, match=r"max_new_tokens 64 leaves no room.*at most 64 tokens"):
        gsm8k(max_new_tokens=64)


def test_without_the_network_a_source_is_asked_for(base):
    with pytest.raises(DataError) as caught:
        prepare_task(TaskMeasure(task="lm_eval:arc_easy"), base, root=Path())
    said = str(caught.value)
    assert said.startswith("measures: lm_eval:arc_easy: its data set allenai/ai2_arc cannot be")
    assert said.endswith("`source` takes a local file in its place")


def test_a_task_that_lacks_a_package_or_a_metric_is_told(base, write, monkeypatch):
    """One needs a package that is not installed, the other a metric from the hub."""
    monkeypatch.setitem(sys.modules, "langdetect", None)
    for name, row in (("ifeval", {"prompt": "?"}), ("humaneval", {"prompt": "?"})):
        measure = TaskMeasure(task=f"lm_eval:{name}", source="rows.jsonl")
        with pytest.raises(StudyError, match=f"measures: lm_eval:{name} cannot be read: "):
            prepare_task(measure, base, root=write([row]))


def test_whole_texts_are_scored_as_our_scorer_scores_them(base, write, capfd):
    """lm_eval predicts the first token, too, from the end-of-text token before it."""
    rows = [{"page": "Ada lives in Oslo . Ben lives in Rome ."}, {"page": "Cleo"}]
    measure = TaskMeasure(task="lm_eval:wikitext", source="rows.jsonl", batch=2)
    task = prepare_task(measure, base, root=write(rows))
    found = task.take(base.model, base)
    assert capfd.readouterr() == ("", "")
    for answer, asked in zip(found.answers, questions(measure, task.task), strict=True):
        ids = np.array([0, *base.tokenizer(task.task.doc_to_target(asked)).input_ids])
        row = TokenizedRow(row=0, ids=ids, scored=np.arange(len(ids)) > 0, num_bytes=1)
        ours = score(base.model, [row], collator=base.collator, device=base.device)
        assert answer.log_likelihoods == pytest.approx([-ours.nll[0]], rel=1e-5)
        assert answer.truncated is False


def test_a_task_with_code_of_its_own_takes_no_source(base, write):
    measure = TaskMeasure(task="lm_eval:squadv2", source="rows.jsonl")
    with pytest.raises(StudyError, match="reads its data by code of its own"):
        prepare_task(measure, base, root=write(QUESTIONS))


def test_models_that_cannot_be_asked(base, tmp_path):
    measure = TaskMeasure(task="lm_eval:gsm8k", source="rows.jsonl")
    with pytest.raises(NotYetError, match=r"is put to causal language models; .* masked model"):
        prepare_task(measure, replace(base, task="masked"), root=tmp_path)

    class Endless:
        eos_token_id = None

    with pytest.raises(ModelError, match="no end-of-text token"):
        prepare_task(measure, replace(base, tokenizer=Endless()), root=tmp_path)
