"""Each definition against another way to the same figure: plain torch, Trainer, a hand count."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from loratlas.data.collate import collate
from loratlas.data.rows import TokenizedRow
from loratlas.measure.audit.rows import audit_rows
from loratlas.measure.audit.seen import Seen, Setting
from loratlas.measure.audit.tables import has_dropout
from loratlas.measure.audit.variants import read
from loratlas.measure.likelihood import score

CPU = torch.device("cpu")
# fp32 sums taken in another order differ by about 1e-7 of themselves.
ROUNDING = 1e-5


def rows_of(base, rows, answers=None):
    return audit_rows(rows, base.tokenizer, pad_id=base.pad_id, answers=answers)


def seen_by(base, rows, **setting):
    audited = rows_of(base, rows, tuple(row.scored for row in rows))
    return Seen(base.model, audited, Setting(**setting), device=CPU)


def scoring_everything(rows):
    """The same rows with every token scored that has one before it."""
    return [replace(row, scored=np.arange(len(row.ids)) > 0) for row in rows]


def logits_of(base, row):
    with torch.no_grad():
        return base.model(torch.tensor([row.ids.tolist()])).logits[0]


def mean_over_tokens(base, rows, of_row):
    """Mean of what `of_row(logits, ids)` gives for each token, over the scored ones."""
    found = [
        value
        for row in rows
        for value, scored in zip(
            of_row(logits_of(base, row), torch.tensor(row.ids.tolist())), row.scored, strict=True
        )
        if scored
    ]
    return sum(found) / len(found)


def shifted(logits, ids):
    log_p = torch.log_softmax(logits, dim=-1)
    return [0.0, *(-float(log_p[t - 1, ids[t]]) for t in range(1, len(ids)))]


def log_perplexities(seen):
    return {name: reading.log_perplexity for name, reading in read(seen).items()}


@pytest.fixture
def rows(prepared):
    return list(prepared.test.rows)


def test_the_corpus_loss_is_the_studies_own(base, rows):
    own = score(base.model, rows, collator=base.collator, device=CPU).loss
    for batch in (1, 5, 12):
        seen = seen_by(base, rows, batch=batch)
        assert read(seen)["corpus"].log_perplexity == pytest.approx(own, rel=1e-6)


def test_unshifted_labels_meet_the_logits_at_their_own_place(base, rows):
    def unshifted(logits, ids):
        return torch.nn.functional.cross_entropy(logits, ids.long(), reduction="none").tolist()

    found = log_perplexities(seen_by(base, rows))["labels_not_shifted"]
    assert found == pytest.approx(mean_over_tokens(base, rows, unshifted), rel=ROUNDING)
    assert found != pytest.approx(mean_over_tokens(base, rows, shifted), rel=1e-2)


def test_without_the_shift_a_model_that_copies_is_perfect(base, rows):
    class Copier(torch.nn.Module):
        def forward(self, input_ids, attention_mask):  # noqa: ARG002
            logits = 50.0 * torch.nn.functional.one_hot(input_ids, 400).float()
            return type("Output", (), {"logits": logits})

    seen = Seen(Copier(), rows_of(base, rows), Setting(), device=CPU)
    marks = seen.rows.scored
    assert seen.tally(marks, lambda table: table.unshifted).mean == pytest.approx(0, abs=1e-6)
    assert seen.tally(marks).mean > 40


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batch_means_are_what_trainer_reports(base, rows, size, tmp_path):
    """Twelve rows, of which the last batch of five has two: Trainer weighs it by its rows."""
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=size, report_to="none", use_cpu=True,
        remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(
        model=base.model,
        args=arguments,
        eval_dataset=rows,
        data_collator=lambda batch: collate(batch, base.pad_id),
    )
    theirs = trainer.evaluate()["eval_loss"]
    found = log_perplexities(seen_by(base, rows, batch=size))
    assert found[f"batch_means_{size}"] == pytest.approx(theirs, rel=ROUNDING)
    if size > 1:
        assert found["corpus"] != pytest.approx(theirs, rel=ROUNDING)


def test_a_first_label_is_counted_by_trainer_for_gpt2(base, rows, tmp_path):
    """GPT2LMHeadModel has a name that Trainer does not take for a causal model's.

    So it divides by the labels before the shift. When this test fails, a newer transformers
    has mended it, and the variant is history.
    """
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=len(rows), report_to="none",
        use_cpu=True, remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip

    def all_labels(batch):
        inputs = collate(batch, base.pad_id)
        return {
            **inputs,
            "labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100),
        }

    trainer = Trainer(model=base.model, args=arguments, eval_dataset=rows, data_collator=all_labels)
    theirs = trainer.evaluate()["eval_loss"]
    found = log_perplexities(seen_by(base, scoring_everything(rows)))
    assert found["first_label_counted"] == pytest.approx(theirs, rel=ROUNDING)
    assert found["corpus"] > theirs * 1.01


def test_padding_is_scored_as_cross_entropy_without_a_mask_does(base, rows):
    """Every row scored whole, labels = input_ids with the padding in them."""
    everything = scoring_everything(rows)
    total, count = 0.0, 0
    for at in range(0, len(rows), 4):
        inputs = collate(rows[at : at + 4], base.pad_id)
        with torch.no_grad():
            logits = base.model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).logits
        targets = inputs["input_ids"][:, 1:]
        total += float(
            torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), targets.flatten(), reduction="sum"
            )
        )
        count += targets.numel()
    found = log_perplexities(seen_by(base, everything, batch=4))
    assert found["padding_scored"] == pytest.approx(total / count, rel=ROUNDING)


def test_padding_does_not_apply_to_batches_of_one(base, rows):
    reading = read(seen_by(base, rows, batch=1))["padding_scored"]
    assert reading.log_perplexity is None
    assert reading.reason == "no row is padded in batches of 1"


def test_the_mean_of_perplexities_is_each_texts_own(base, rows):
    own = score(base.model, rows, collator=base.collator, device=CPU)
    by_hand = np.mean([math.exp(n / c) for n, c in zip(own.nll, own.num_tokens, strict=True)])
    found = log_perplexities(seen_by(base, rows))["mean_of_perplexities"]
    assert math.exp(found) == pytest.approx(by_hand, rel=ROUNDING)


def test_bf16_logits_are_a_cast(base, rows):
    def rounded(logits, ids):
        return shifted(logits.bfloat16().float(), ids)

    def all_bf16(logits, ids):
        return shifted(logits.bfloat16(), ids)

    found = log_perplexities(seen_by(base, rows))
    assert found["bf16_logits"] == pytest.approx(
        mean_over_tokens(base, rows, rounded), rel=ROUNDING
    )
    # The cast turns rounding in the last place of fp32 into a step of bfloat16 here and there.
    assert found["bf16_log_softmax"] == pytest.approx(
        mean_over_tokens(base, rows, all_bf16), rel=1e-3
    )
    assert len({found[n] for n in ("corpus", "bf16_logits", "bf16_log_softmax")}) == 3


def test_ends_of_text_are_masked_or_scored(base, rows):
    assert base.pad_id == base.tokenizer.eos_token_id
    by_hand = mean_over_tokens(
        base, [replace(row, scored=row.scored & (row.ids != base.pad_id)) for row in rows], shifted
    )
    found = log_perplexities(seen_by(base, rows))
    assert found["eos_masked"] == pytest.approx(by_hand, rel=ROUNDING)
    assert found["eos_scored"] is None
    without = [replace(row, scored=row.scored & (row.ids != base.pad_id)) for row in rows]
    again = read(seen_by(base, without))
    assert again["eos_scored"].log_perplexity == pytest.approx(found["corpus"], rel=ROUNDING)
    assert again["eos_masked"].reason == "no end of text is scored here"


def test_prompts_are_scored_or_not(base, rows):
    answers = tuple(row.scored for row in rows)
    everything = scoring_everything(rows)
    corpus = {
        "answers": mean_over_tokens(base, rows, shifted),
        "everything": mean_over_tokens(base, everything, shifted),
    }
    found = read(seen_by(base, rows))
    assert found["prompt_scored"].log_perplexity == pytest.approx(
        corpus["everything"], rel=ROUNDING
    )
    assert found["prompt_not_scored"].reason == "the answer alone is scored already"
    seen = Seen(base.model, rows_of(base, everything, answers), Setting(), device=CPU)
    found = read(seen)
    assert found["prompt_not_scored"].log_perplexity == pytest.approx(
        corpus["answers"], rel=ROUNDING
    )
    assert found["prompt_scored"].reason == "every token is scored already"


def test_words_and_bytes_are_those_of_the_scored_text(base, rows):
    texts = [base.tokenizer.decode(row.ids[row.scored][:-1]) for row in rows]
    own = score(base.model, rows, collator=base.collator, device=CPU)
    found = log_perplexities(seen_by(base, rows))
    words = sum(len(text.split()) for text in texts)
    size = sum(len(text.encode()) for text in texts)
    assert found["per_word"] == pytest.approx(own.nll.sum() / words, rel=ROUNDING)
    assert found["per_byte"] == pytest.approx(own.nll.sum() / size, rel=ROUNDING)
    assert found["per_byte"] == pytest.approx(own.bits_per_byte * math.log(2), rel=ROUNDING)
    assert math.exp(found["base_2_power"]) == pytest.approx(2**own.loss, rel=ROUNDING)
    assert found["base_2_loss"] == pytest.approx(own.loss / math.log(2), rel=ROUNDING)


def test_accumulation_weighs_a_short_step_like_a_long_one(base, rows):
    """Twelve rows in batches of 5, 2 a step: steps of 5 + 5 and of 2 rows."""
    own = score(base.model, rows, collator=base.collator, device=CPU)

    def mean(start, end):
        return own.nll[start:end].sum() / own.num_tokens[start:end].sum()

    by_hand = ((mean(0, 5) + mean(5, 10)) / 2 + mean(10, 12)) / 2
    found = log_perplexities(seen_by(base, rows, batch=5, accumulation=2))
    assert found["accumulated_means"] == pytest.approx(by_hand, rel=ROUNDING)


def test_windows_are_those_of_a_plain_loop(base, rows):
    """The loop that the documentation of transformers shows, on each row alone."""
    window, stride = 10, 5
    everything = scoring_everything(rows)
    sums, targets, means, weights = 0.0, 0, [], []
    for row in everything:
        ids = torch.tensor([row.ids.tolist()])
        previous = 0
        for begin in range(0, ids.shape[1], stride):
            end = min(begin + window, ids.shape[1])
            fresh = end - previous
            labels = ids[:, begin:end].clone()
            labels[:, :-fresh] = -100
            with torch.no_grad():
                mean = float(base.model(ids[:, begin:end], labels=labels).loss)
            scored = int((labels[:, 1:] != -100).sum())
            sums, targets = sums + mean * scored, targets + scored
            means.append(mean)
            weights.append(fresh)
            previous = end
            if end == ids.shape[1]:
                break
    found = log_perplexities(seen_by(base, everything, window=window))
    assert targets == sum(row.num_scored for row in everything)
    assert found["strided_windows"] == pytest.approx(sums / targets, rel=ROUNDING)
    assert found["strided_window_means"] == pytest.approx(np.mean(means), rel=ROUNDING)
    assert found["strided_off_by_one"] == pytest.approx(
        np.average(means, weights=weights), rel=ROUNDING
    )


def test_windows_do_not_apply_to_rows_that_fit(base, rows):
    longest = max(len(row.ids) for row in rows)
    for window, reason in (
        (longest, f"no row is longer than the window: {longest} tokens of {longest}"),
        (None, "no window is set, and the model's positions have no limit"),
    ):
        found = read(seen_by(base, rows, window=window))
        assert {found[name].reason for name in found if "strided" in name} == {reason}


def test_dropout_is_seeded_and_only_where_something_drops(base, rows):
    assert not has_dropout(base.model)
    assert read(seen_by(base, rows))["dropout_on"].reason == "no dropout here"
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=64, vocab_size=400)
    dropping = replace(base, model=GPT2LMHeadModel(config).eval())
    state = torch.get_rng_state()
    first, second = (log_perplexities(seen_by(dropping, rows)) for _ in range(2))
    assert first["dropout_on"] == second["dropout_on"]
    assert abs(first["dropout_on"] - first["corpus"]) > 1e-4
    assert torch.equal(state, torch.get_rng_state())
    assert not dropping.model.training


def test_dropout_that_is_no_module_is_seen():
    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=64,
    )  # fmt: skip
    assert not has_dropout(LlamaForCausalLM(config))
    config.attention_dropout = 0.1
    assert has_dropout(LlamaForCausalLM(config))


def test_a_beginning_of_text_is_added_dropped_or_doubled(base, rows):
    found = read(seen_by(base, rows))
    assert found["bos_missing"].reason == "the tokenizer puts nothing before a text"
    assert found["bos_doubled"].reason == "the tokenizer puts nothing before a text"
    bos = base.tokenizer.bos_token_id

    def behind(start, drop):
        """The plain mean over the same tokens behind another beginning."""
        altered = [
            replace(
                row,
                ids=np.concatenate([np.array(start, dtype=np.int32), row.ids[drop:]]),
                scored=np.concatenate([np.zeros(len(start), bool), row.scored[drop:]]),
            )
            for row in rows
        ]
        return mean_over_tokens(base, altered, shifted)

    assert found["bos_added"].log_perplexity == pytest.approx(behind([bos], 0), rel=ROUNDING)
    # The same rows, taken as if the tokenizer had put their first token there itself.
    audited = replace(rows_of(base, rows), start_ids=(7,))
    found = read(Seen(base.model, audited, Setting(), device=CPU))
    assert found["bos_missing"].log_perplexity == pytest.approx(behind([], 1), rel=ROUNDING)
    assert found["bos_doubled"].log_perplexity == pytest.approx(behind([7, 7], 1), rel=ROUNDING)
    assert found["bos_added"].reason == "the tokenizer puts a beginning before a text itself"


def test_a_row_with_nothing_but_an_end_counts_for_nothing_without_it(base, rows):
    end = np.array([5, base.pad_id], dtype=np.int32)
    only_end = TokenizedRow(row=99, ids=end, scored=np.array([False, True]), num_bytes=0)
    without = log_perplexities(seen_by(base, rows, batch=1))["eos_masked"]
    found = log_perplexities(seen_by(base, [*rows, only_end], batch=1))
    assert found["eos_masked"] == pytest.approx(without, rel=ROUNDING)
    assert all(math.isfinite(value) for value in found.values() if value is not None)
    alone = read(seen_by(base, [only_end]))
    assert alone["eos_masked"].reason == "nothing but the end of text is scored here"
    assert alone["per_word"].reason == "no word of text is scored here"
    assert alone["per_byte"].reason == "no byte of text is scored here"
