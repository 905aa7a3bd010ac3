"""Every family that is trained: what is placed is what changes, and PEFT gives it back."""

import math
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

import families
from loratlas.anatomy.read import read
from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.placement.placement import place
from loratlas.study.trial_runner import Bench, run_trial
from loratlas.train.base import load_base, quiet, read_task
from loratlas.train.objective import auto_class
from loratlas.train.trial import ModelRef, TrainingSpec, TrialSpec

DATA = DataSpec(
    source="rows.jsonl", format="prompt_completion", train=24, validation=4, test=8, max_length=48
)
TRAINING = TrainingSpec(steps=2, batch=4, accumulation=2)
RULES = {
    "all": "all",
    "attention": "attention",
    "feed_forward": "feed_forward",
    "range": "all @ layers(1..)",
    "two ranks": "attention:4 + feed_forward:2",
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=list(families.EVERY))
def bench(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    families.write(request.param, folder)
    (folder / "rows.jsonl").write_text(families.prompt_rows(40))
    ref = ModelRef(name=str(folder))
    base = load_base(ref, dtype="fp32", base_dropout=0.0, device=CPU)
    assert base.task == read_task(ref, DATA.format)
    data = prepare(DATA, base.tokenizer, root=folder, task=base.task)
    return Bench(
        base=base,
        train=data.train.rows,
        scored={"test": data.test.rows},
        folder=folder,
        environment={},
        masking=data.masking,
    )


def trial(bench, rule, folder="adapter", **changes):
    placement = place(read(bench.base.ref.name), rule, rank=4, alpha=8)
    spec = TrialSpec(
        base_digest="", data_digest="", placement_digest=placement.digest, learning_rate=1e-2,
        seed=0, lora_dropout=0.0, training=replace(TRAINING, **changes),
    )  # fmt: skip
    record, scores = run_trial(
        bench, spec, placement, adapter=folder, attempts=1, on_step=lambda *_: None
    )
    assert record.status == "done", record.error
    return placement, record, scores["test"]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_what_is_placed_is_what_changes_and_peft_reads_it(bench, rule):
    before = {name: value.clone() for name, value in bench.base.model.state_dict().items()}
    placement, record, score = trial(bench, rule)
    after = bench.base.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(math.isfinite(loss) for loss in record.losses)

    with quiet():
        fresh = auto_class(bench.base.task).from_pretrained(bench.base.ref.name)
    fresh.eval()
    fresh.config.use_cache = False
    inputs = bench.base.collator(bench.scored["test"])
    labels = inputs.pop("labels")
    with torch.no_grad():
        untuned = fresh(**inputs).logits
        with quiet():
            loaded = PeftModel.from_pretrained(fresh, bench.folder / "adapter").eval()
        tuned = loaded(**inputs).logits
    assert not torch.equal(untuned, tuned), "two steps change what the model says"
    # fp32 sums over a few hundred tokens, in one batch of 8 here and by length there
    assert nll(tuned, labels, bench.base.task) == pytest.approx(score.nll.sum(), rel=1e-5)

    merged = loaded.merge_and_unload().state_dict()
    moved = {name for name in before if not torch.equal(before[name], merged[name])}
    placed = {weight_of(adapter.site, before) for adapter in placement.adapters}
    assert moved == placed


def nll(logits, labels, task):
    """Σ -ln p in float64 by transformers' own conventions of where a label stands."""
    if task == "causal":
        logits, labels = logits[:, :-1], labels[:, 1:]
    return torch.nn.functional.cross_entropy(
        logits.double().flatten(0, 1), labels.flatten(), reduction="sum"
    ).item()


def weight_of(site, state):
    return site.path if site.path in state else f"{site.path}.weight"


def test_the_same_trial_twice_is_equal_bit_for_bit(bench):
    first, second = (trial(bench, "all", f"adapter{number}")[1:] for number in range(2))
    assert first[0].losses == second[0].losses
    assert first[1].nll.tolist() == second[1].nll.tolist()


def test_routers_train_only_when_asked(bench):
    anatomy = read(bench.base.ref.name)
    routers = {site.path for site in anatomy.sites if str(site.role) == "router"}
    assert bool(routers) == (anatomy.model_type in ("mixtral", "qwen3_moe"))
    if not routers:
        return
    assert not routers & {a.site.path for a in place(anatomy, "all", rank=4, alpha=8).adapters}
    placement, _, _ = trial(bench, "router")
    assert {adapter.site.path for adapter in placement.adapters} == routers


def test_the_window_loss_is_one_mean_over_its_predictions(bench):
    """Two micro-batches of one window, or one batch of them all: the loss is the same."""
    _, record, _ = trial(bench, "all", batch=4, accumulation=2)
    _, whole, _ = trial(bench, "all", batch=8, accumulation=1)
    # the same rows and masks in one batch or two: fp32 sums in another order
    assert record.losses == pytest.approx(whole.losses, rel=1e-5)
