from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from loratlas.data.collate import collate
from loratlas.placement.placement import place
from loratlas.train.adapters import initialise, new_adapters, save_adapters, saved_adapters
from loratlas.train.base import load_base, quiet
from loratlas.train.randomness import row_order
from loratlas.train.reference import (
    DivergedError,
    fit,
    num_steps,
    steps_per_epoch,
    warmup_steps,
)
from loratlas.train.trial import ModelRef, TrainingSpec
from loratlas.train.verify import wrapped_layers

TRAINING = TrainingSpec(
    steps=5, batch=4, scheduler="cosine", warmup=0.4, weight_decay=0.1, clip=0.5
)


def trained(base, anatomy, rows, training=TRAINING, *, seed=0, rate=1e-2):
    placement = place(anatomy, "all", rank=4, alpha=8)
    with new_adapters(base, placement, seed=seed, dropout=0.0) as model:
        run = fit(base, model, rows, training, learning_rate=rate, seed=seed)
        weights = {
            f"{path}.{name}": getattr(layer, name)["default"].weight.detach().clone()
            for path, layer in wrapped_layers(model).items()
            for name in ("lora_A", "lora_B")
        }
    return run, weights


def by_hand(base, rows, training, *, seed, rate):
    """The same trial in plain torch: order, loss over the window, clipping, AdamW, schedule."""
    targets = ["c_attn", "c_proj", "c_fc"]
    config = LoraConfig(target_modules=targets, r=4, lora_alpha=8, fan_in_fan_out=True)
    with quiet():
        model = get_peft_model(base.model, config)
    initialise(model, seed=seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=training.weight_decay)
    total = num_steps(training, len(rows))
    warm = warmup_steps(training, total)
    order = [i for epoch in range(20) for i in row_order(seed, epoch, len(rows)).tolist()]
    window = training.batch * training.accumulation
    losses = []
    model.train()
    for step in range(total):
        chosen = [rows[i] for i in order[step * window : (step + 1) * window]]
        parts = [chosen[i : i + training.batch] for i in range(0, window, training.batch)]
        count = sum(row.num_scored for row in chosen)
        value = 0.0
        for part in parts:
            inputs = collate(part, base.pad_id)
            labels = inputs.pop("labels")[:, 1:]
            logits = model(**inputs).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="sum"
            )
            (loss / count).backward()
            value += loss.item() / count
        losses.append(value)
        torch.nn.utils.clip_grad_norm_(parameters, training.clip)
        if step < warm:
            factor = step / warm
        else:
            share = (step - warm) / (total - warm)
            factor = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * share)).item())
        for group in optimiser.param_groups:
            group["lr"] = rate * factor
        optimiser.step()
        optimiser.zero_grad()
    weights = {
        f"{path}.{name}": getattr(layer, name)["default"].weight.detach().clone()
        for path, layer in wrapped_layers(model).items()
        for name in ("lora_A", "lora_B")
    }
    model.unload()
    return losses, weights


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_trial_is_what_plain_torch_computes(base, anatomy, prepared, accumulation):
    training = replace(TRAINING, accumulation=accumulation)
    rows = prepared.train.rows
    run, weights = trained(base, anatomy, rows, training)
    losses, expected = by_hand(base, rows, training, seed=0, rate=1e-2)
    # fp32, five steps; Trainer sums the same terms in the same order up to rounding of 1e-7.
    assert run.losses == pytest.approx(losses, rel=1e-5)
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[name], rtol=1e-4, atol=1e-6), name


def test_the_same_trial_twice_is_equal_bit_for_bit(base, anatomy, prepared):
    first, second = (trained(base, anatomy, prepared.train.rows) for _ in range(2))
    assert first[0].losses == second[0].losses
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_the_seed_decides_order_and_start(base, anatomy, prepared):
    first = trained(base, anatomy, prepared.train.rows, seed=0)[0]
    second = trained(base, anatomy, prepared.train.rows, seed=1)[0]
    assert first.losses[0] != second.losses[0]


def test_rows_come_in_the_order_of_seed_and_epoch(base, anatomy, prepared, monkeypatch):
    seen = []
    collator = type(base.collator)
    made = collator.__call__

    def recording(self, rows):
        seen.extend(row.row for row in rows)
        return made(self, rows)

    monkeypatch.setattr(collator, "__call__", recording)
    rows = prepared.train.rows
    trained(base, anatomy, rows, TrainingSpec(epochs=2, batch=5), seed=3)
    expected = [rows[i].row for epoch in (0, 1) for i in row_order(3, epoch, len(rows))]
    assert seen == expected


def test_only_adapters_change(base, anatomy, prepared):
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    trained(base, anatomy, prepared.train.rows)
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_a_diverging_trial_says_so(base, anatomy, prepared):
    with pytest.raises(DivergedError, match=r"diverged: the training loss is nan at step \d+ of 5"):
        trained(base, anatomy, prepared.train.rows, replace(TRAINING, clip=None), rate=1e20)


@pytest.mark.parametrize(
    ("training", "num_rows"),
    [
        (TrainingSpec(epochs=3, batch=4, accumulation=2), 33),
        (TrainingSpec(epochs=1.5, batch=5), 32),
        (TrainingSpec(epochs=1, batch=64, accumulation=4), 10),
    ],
)
def test_steps_are_counted_as_trainer_counts_them(tmp_path, training, num_rows):
    args = TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=training.batch,
        gradient_accumulation_steps=training.accumulation,
        num_train_epochs=training.epochs,
        report_to="none",
        use_cpu=True,
    )
    trainer = Trainer(model=torch.nn.Linear(1, 1), args=args, train_dataset=[{}] * num_rows)
    theirs = trainer.set_initial_training_values(args, trainer.get_train_dataloader())
    assert num_steps(training, num_rows) in theirs
    assert steps_per_epoch(training, num_rows) in theirs


def test_warm_up_is_a_share_or_a_number():
    assert warmup_steps(TrainingSpec(warmup=0.1), 25) == 3
    assert warmup_steps(TrainingSpec(warmup=0.0), 25) == 0
    assert warmup_steps(TrainingSpec(warmup=7), 25) == 7


def test_dropout_is_drawn_from_the_trials_own_seed(base, anatomy, prepared):
    def losses(seed):
        torch.manual_seed(seed)  # whatever happened before in this process
        with new_adapters(base, place(anatomy, "all", rank=4), seed=0, dropout=0.3) as model:
            return fit(base, model, prepared.train.rows, TRAINING, learning_rate=0.1, seed=0).losses

    first = losses(1)
    assert losses(2) == first
    assert trained(base, anatomy, prepared.train.rows, rate=0.1)[0].losses != first


def test_a_bf16_base_carries_fp32_adapters(tiny_folder, anatomy, prepared, tmp_path):
    base = load_base(
        ModelRef(name=str(tiny_folder)), dtype="bf16", base_dropout=0.0, device=torch.device("cpu")
    )
    placement = place(anatomy, "all", rank=4)
    tokens = torch.arange(1, 9).reshape(1, 8)
    with new_adapters(base, placement, seed=0, dropout=0.0) as model:
        run = fit(base, model, prepared.train.rows, TRAINING, learning_rate=1e-2, seed=0)
        types = {p.dtype for name, p in model.named_parameters() if "lora" in name}
        expected = model.eval()(tokens).logits.detach()
        save_adapters(model, placement, tmp_path / "a", base_name="tiny", revision=None)
    assert types == {torch.float32}
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}
    assert all(loss > 0 for loss in run.losses)
    with saved_adapters(base, tmp_path / "a", placement) as model:
        assert torch.equal(model(tokens).logits, expected)
