"""A trial that is stopped and goes on is the trial that was never stopped, bit for bit."""

import json
import shutil
from dataclasses import dataclass, replace

import pytest
import torch
from reference_cases import Case, Trained, case_of, classifier, keeper
from transformers import Trainer

from loratlas.errors import VerificationError
from loratlas.placement.placement import place
from loratlas.train.adapters import new_adapters
from loratlas.train.reference_resume import put_back, require_whole, trained_tensors
from loratlas.train.trial import TrainingSpec

# 13 rows are windows of 4, 4, 4 and 1 rows: 4 steps an epoch, 12 in all, the last of each short.
TRAINING = TrainingSpec(
    epochs=3, batch=2, accumulation=2, warmup=0.2, weight_decay=0.05, clip=0.5, scheduler="cosine"
)
FILES = [
    "course.json",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trained.safetensors",
    "trainer_state.json",
]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Trials of one kind, and the one among them that nothing stops."""

    case: Case
    training: TrainingSpec
    options: dict
    whole: Trained

    def train(self, **more) -> Trained:
        return self.case.train(self.training, **self.options, **more)


def kind(case, training=TRAINING, **options) -> Kind:
    whole = case.train(training, **options)
    return Kind(case=case, training=training, options=options, whole=whole)


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    """Adapters on embedding and head as well, which PEFT keeps in another way."""
    case = case_of("gpt2", tmp_path_factory.mktemp("causal"))
    return kind(case, rule="all | embedding | head")


@pytest.fixture(scope="module")
def dropped(causal):
    return kind(causal.case, dropout=0.3)


@pytest.fixture(scope="module")
def cut_short(causal):
    """The last step lies within an epoch."""
    return kind(causal.case, replace(TRAINING, steps=7, scheduler="linear"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """BERT's own dropout of 0.1 is on, too."""
    case = case_of("bert", tmp_path_factory.mktemp("masked"), dropout=None)
    return kind(case, dropout=0.1)


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    case = classifier("roberta", tmp_path_factory.mktemp("classes"))
    return kind(case, replace(TRAINING, accumulation=1, epochs=1.5), dropout=0.1)


@pytest.mark.parametrize(
    ("of", "stops"),
    [
        pytest.param("causal", [1], marks=pytest.mark.slow),
        ("causal", [3, 1, 3, 1]),
        pytest.param("causal", [11], marks=pytest.mark.slow),
        ("causal", [12]),
        pytest.param("dropped", [5], marks=pytest.mark.slow),
        ("dropped", [8]),
        pytest.param("cut_short", [5], marks=pytest.mark.slow),
        ("cut_short", [7]),
        ("masked", [4, 3]),
        ("classes", [2, 5]),
    ],
    ids=str,
)
def test_a_trial_that_was_stopped_goes_on_bit_for_bit(request, tmp_path, of, stops):
    trial = request.getfixturevalue(of)
    total = len(trial.whole.fit.losses)
    for count in stops:
        stopped = trial.train(keeper=keeper(tmp_path, stop_after=count))
        assert stopped.fit is None
    last = keeper(tmp_path)
    step, folder = last.checkpoints.newest()
    course = json.loads((folder / "course.json").read_text())
    ended = trial.train(keeper=last)
    assert step == sum(stops)
    assert ended.heard == [(done, total) for done in range(step, total + 1)]
    assert ended.fit.step_seconds[:step] == tuple(course["seconds"])
    assert len(ended.fit.step_seconds) == total
    assert ended.fit.micro_batch is None
    assert ended.same_bits(trial.whole)


def test_what_is_kept_on_the_way_changes_nothing(causal, tmp_path):
    assert causal.train(keeper=keeper(tmp_path, every_seconds=0)).same_bits(causal.whole)
    assert keeper(tmp_path).checkpoints.newest()[0] == 11, "nothing is kept after the last step"


@pytest.fixture(scope="module")
def two_kept(dropped, tmp_path_factory):
    """The checkpoints after steps 4 and 5 of a trial that was stopped."""
    folder = tmp_path_factory.mktemp("kept")
    dropped.train(keeper=keeper(folder, stop_after=5, every_seconds=0))
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000004", "step-00000005"]
    return folder


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(dropped, two_kept, tmp_path, name):
    folder = shutil.copytree(two_kept, tmp_path / "kept")
    damaged = folder / "step-00000005" / name
    if name.endswith(".json"):
        damaged.write_text("")
    else:
        damaged.unlink()
    ended = dropped.train(keeper=keeper(folder))
    assert ended.heard[0] == (4, 12)
    assert ended.same_bits(dropped.whole)


def test_a_checkpoint_holds_these_files_and_not_the_base(two_kept):
    found = two_kept / "step-00000005"
    assert sorted(path.name for path in found.iterdir()) == sorted([*FILES, "manifest.json"])
    for name in FILES:
        lacking = shutil.copytree(found, two_kept.parent / f"lacking-{name}")
        (lacking / name).unlink()
        with pytest.raises(VerificationError, match=f"the checkpoint lacks {name}"):
            require_whole(lacking)


def test_what_trainer_does_not_write_is_an_error_and_no_checkpoint(causal, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_save_rng_state", lambda *_: None)
    with pytest.raises(VerificationError, match=r"the checkpoint lacks rng_state.pth"):
        causal.train(keeper=keeper(tmp_path / "kept", every_seconds=0))
    assert not list((tmp_path / "kept").iterdir())


def test_every_trained_tensor_is_put_back_or_none(classes):
    case = classes.case
    with new_adapters(case.base, place(case.anatomy, "all", rank=4), seed=0, dropout=0.0) as model:
        kept = trained_tensors(model)
        heads = [name for name in kept if "modules_to_save" in name]
        assert heads, "a new head is trained whole"
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(1)
        moved = trained_tensors(model)
        for name in (heads[0], next(iter(kept))):
            others = {key: value for key, value in kept.items() if key != name}
            for wrong in (others, kept | {"other": kept[name]}, others | {name: kept[name][:1]}):
                with pytest.raises(
                    VerificationError, match="does not hold what is trained: 1 tens"
                ):
                    put_back(model, wrong)
        unchanged = trained_tensors(model)
        assert all(torch.equal(moved[name], unchanged[name]) for name in kept)
        put_back(model, kept)
        again = trained_tensors(model)
        assert all(torch.equal(kept[name], again[name]) for name in kept)
