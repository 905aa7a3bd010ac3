"""Studies whose trials train together: what goes wrong with one, with a pack, with the disk."""

import json
from contextlib import closing

import pytest

import families
from loratlas.analysis.summary import results
from loratlas.study import pack_runner, training
from loratlas.study.folder import open_run
from loratlas.study.options import RunOptions
from loratlas.study.progress import Silent
from loratlas.study.run import run_study
from loratlas.study.spec import load_study
from loratlas.study.standing import standing
from loratlas.train import prefix_file

ALONE = RunOptions(probe=False)


class Listener(Silent):
    """Keeps the sentences, and how far the bar came."""

    def __init__(self):
        self.said, self.expected, self.advanced = [], 0, 0

    def say(self, text):
        self.said.append(text)

    def begin(self, what, num_steps):
        assert what.startswith("training")
        self.expected = num_steps

    def advance(self, num_steps=1):
        self.advanced += num_steps


class Run:
    """A run of the tiny study, as its folder has it in the end."""

    def __init__(self, folder, listener):
        self.folder, self.listener = folder, listener
        with closing(open_run(folder)) as store:
            self.trials = list(store.trials().values())
            self.scores = {digest: store.scores(digest) for digest in store.trials()}
            self.packs = store.meta("packs")
            self.results = results(store)
            self.standing = standing(store)

    @property
    def numbers(self):
        """Every figure of every trial: losses of training, and of each scored row."""
        return {
            trial.digest: [
                *trial.losses,
                *(value for split in self.scores[trial.digest].values() for value in split.nll),
            ]
            for trial in self.trials
        }

    @property
    def statuses(self):
        return sorted(trial.status for trial in self.trials)

    @property
    def engines(self):
        return {trial.placement_digest: trial.engine for trial in self.trials}


@pytest.fixture
def run(study_folder):
    """Runs the tiny study after replacements in its file."""
    plain = (study_folder / "study.yaml").read_text()

    def call(*changes, out="run", more="", options=ALONE):
        text = plain
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        (study_folder / "study.yaml").write_text(text + more)
        listener = Listener()
        run_study(load_study(study_folder / "study.yaml"), study_folder / out, listener, options)
        return Run(study_folder / out, listener)

    return call


ONE_SEED = ("seeds: 2", "seeds: 1")
SWEEP = ("learning_rate: 1e-2", "learning_rate: [1e-9, 1e-2]")
TOKENS = ("placements:\n", "placements:\n  tokens: embedding\n")
UPPER = ("  attention: attention\n", "  upper: all @ last(1)\n  top: attention @ last(2)\n")


def close(found: Run, wanted: Run) -> bool:
    """Whether two runs give the same numbers up to the order of sums in fp32."""
    return found.numbers.keys() == wanted.numbers.keys() and all(
        found.numbers[digest] == pytest.approx(wanted.numbers[digest], rel=1e-5)
        for digest in wanted.numbers
    )


# --- which engine


def test_the_reference_engine_gives_the_same_numbers(run):
    packed, apart = run(out="packed"), run(out="apart", more="engine: reference\n")
    assert set(packed.engines.values()) == {"packed"}
    assert set(apart.engines.values()) == {"reference"}
    assert close(packed, apart)
    assert packed.listener.said == apart.listener.said, "neither has anything to explain"
    assert packed.results["engines"] == {"packed": 4, "reference": 0, "reasons": []}
    reason = "the study asks for the reference engine"
    assert apart.results["engines"] == {
        "packed": 0,
        "reference": 4,
        "reasons": [{"reason": reason, "num_trials": 4}],
    }


def test_what_cannot_be_packed_trains_alone_and_the_run_says_so(run):
    mixed = run(TOKENS)
    (said,) = [line for line in mixed.listener.said if "one after another" in line]
    reason = "transformer.wte is no plain linear map"
    assert said == f"tokens: trained one after another: {reason}"
    assert mixed.statuses == 6 * ["done"]
    assert sorted(trial.engine for trial in mixed.trials) == 4 * ["packed"] + 2 * ["reference"]
    assert all((trial.pack is None) == (trial.engine == "reference") for trial in mixed.trials)
    assert mixed.results["engines"] == {
        "packed": 4,
        "reference": 2,
        "reasons": [{"reason": reason, "num_trials": 2}],
    }
    assert mixed.standing["complete"]
    assert not any("one after another" in line for line in run(TOKENS).listener.said)


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_train_alone_and_attention_beside_them_does_not(
    run, study_folder, tiny_folder, family
):
    families.write(family, study_folder / family)
    found = run((str(tiny_folder), family), ONE_SEED)
    by_name = {
        name: {t.engine for t in found.trials if t.placement_digest == digest}
        for name, digest in digests(found).items()
    }
    assert by_name == {"full": {"reference"}, "attention": {"packed"}}
    assert any("full: trained one after another: " in line for line in found.listener.said)
    assert found.statuses == ["done", "done"]


def digests(found: Run) -> dict[str, str]:
    with closing(open_run(found.folder)) as store:
        return {placement.name: placement.digest for placement in store.placements()}


def test_a_base_with_dropout_of_its_own_trains_trials_alone(run):
    found = run(ONE_SEED, ("learning_rate: 1e-2}", "learning_rate: 1e-2, base_dropout: 0.1}"))
    assert set(found.engines.values()) == {"reference"}
    (said,) = [line for line in found.listener.said if "one after another" in line]
    told = "full, attention: trained one after another: the base's own dropout is active"
    assert said.startswith(told)
    assert found.statuses == 2 * ["done"]


def test_adapter_dropout_is_packed_and_repeats_itself(run):
    dropout = ("alpha: 4}", "alpha: 4, dropout: 0.2}")
    first, again, without = run(dropout, out="a"), run(dropout, out="b"), run(out="c")
    assert set(first.engines.values()) == {"packed"}
    assert first.numbers == again.numbers
    assert sorted(first.numbers.values()) != sorted(without.numbers.values())


def test_a_study_that_no_longer_asks_for_the_reference_engine_packs_what_is_left(run, engine):
    """And the other way round; what is done stays as it was."""
    keys = ("reference", "auto") if engine.name == "reference" else ("auto", "reference")
    engine.interrupt(lambda seed: seed == 1)
    two = RunOptions(probe=False, trials_per_pack=2)
    with pytest.raises(KeyboardInterrupt):
        run(more=f"engine: {keys[0]}\n", options=two)
    engine.let_be()
    found = run(more=f"engine: {keys[1]}\n", options=two)
    assert sorted(trial.engine for trial in found.trials) == 2 * ["packed"] + 2 * ["reference"]
    assert {trial.seed for trial in found.trials if trial.engine == engine.name} == {0}
    assert close(found, run(out="whole"))
    assert found.results["engines"]["reasons"] == [
        {"reason": "the study asks for the reference engine", "num_trials": 2}
    ]


# --- packs


@pytest.mark.parametrize(("most", "sizes"), [(1, [1, 1, 1, 1]), (3, [2, 2]), (99, [4])])
def test_the_size_of_packs(run, most, sizes):
    found = run(options=RunOptions(probe=False, trials_per_pack=most))
    assert [len(pack["trials"]) for pack in found.packs] == sizes
    assert sorted(trial.pack["trials"] for trial in found.trials) == sorted(
        size for size in sizes for _ in range(size)
    )
    assert {trial.pack["number"] for trial in found.trials} == {p["number"] for p in found.packs}
    assert found.listener.advanced == found.listener.expected == 4 * 3
    assert all(trial.pack["seconds"] > 0 and not trial.pack["halved"] for trial in found.trials)


def test_seeds_at_the_chosen_rate_get_packs_of_their_own(run):
    found = run(SWEEP, TOKENS, ("seeds: 2", "seeds: 3\nsweep_seeds: 1"))
    assert [len(pack["trials"]) for pack in found.packs] == [4, 1, 1, 4, 1, 1]
    assert found.statuses == 12 * ["done"]
    assert found.listener.advanced == found.listener.expected == 12 * 3
    assert sum("one after another" in line for line in found.listener.said) == 1


def test_equal_placements_share_trials_and_the_bar_knows(run):
    found = run(("  attention: attention\n", "  everything: attention | feed_forward\n"))
    assert len(found.trials) == 2
    assert found.listener.advanced == found.listener.expected == 2 * 3


def test_a_repeated_run_moves_the_bar_to_its_end(run):
    run()
    assert run().listener.advanced == 4 * 3


# --- what goes wrong


def test_a_trial_that_diverges_alone_leaves_the_others_as_they_were(run):
    """A rate of 1000 under a scale of 5e11 overflows; one of 1e-14 is a usual one there."""
    loud = ("alpha: 4", "alpha: 1e12")
    sweep = ("learning_rate: 1e-2", "learning_rate: [1e-14, 1000]")
    found = run(loud, sweep)
    assert found.statuses == 4 * ["diverged"] + 4 * ["done"]
    for trial in found.trials:
        assert (trial.status == "diverged") == (trial.learning_rate > 1)
        if trial.status == "diverged":
            assert trial.error.startswith("diverged: the training loss is nan at step")
            assert (trial.adapter, trial.losses) == (None, [])
    assert {trial.pack["trials"] for trial in found.trials} == {8}
    alone = run(loud, ("learning_rate: 1e-2", "learning_rate: 1e-14"), out="alone")
    numbers = {d: values for d, values in found.numbers.items() if d in alone.numbers}
    assert len(numbers) == 4
    for digest, values in numbers.items():
        assert values == pytest.approx(alone.numbers[digest], rel=1e-5)
    json.dumps(found.results, allow_nan=False)
    again = run(loud, sweep)
    assert [trial.attempts for trial in again.trials] == 8 * [1]


def test_a_pack_that_breaks_fails_and_the_next_goes_on(run, monkeypatch):
    calls = []

    def breaks_first(*arguments, **more):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a kernel said no")
        return real(*arguments, **more)

    real = pack_runner.fit_pack
    monkeypatch.setattr(pack_runner, "fit_pack", breaks_first)
    two = RunOptions(probe=False, trials_per_pack=2)
    found = run(options=two)
    assert found.statuses == ["done", "done", "failed", "failed"]
    errors = [trial.error for trial in found.trials if trial.status == "failed"]
    assert errors == 2 * ["RuntimeError: a kernel said no"]
    assert "a kernel said no" in (found.folder / "run.log").read_text()
    assert sum("RuntimeError: a kernel said no" in line for line in found.listener.said) == 2
    assert {trial["engine"] for trial in found.standing["not_done"]} == {"packed"}
    again = run(options=two)
    assert again.statuses == 4 * ["done"]
    assert sorted(trial.attempts for trial in again.trials) == [1, 1, 2, 2]
    assert again.packs == found.packs
    assert again.numbers == run(out="whole", options=two).numbers


def test_a_broken_pack_leaves_the_base_as_it_was(run, monkeypatch):
    """What a failed pack put into the base would be in everything that comes after it."""

    def breaks(flow, *_arguments, **_more):
        flow.routing.spans = ()
        raise RuntimeError("no")

    monkeypatch.setattr(pack_runner, "fit_pack", breaks)
    found = run(TOKENS, ONE_SEED)
    assert found.statuses == ["done", "failed", "failed"]
    monkeypatch.undo()
    sound = run(TOKENS, ONE_SEED, out="sound")
    assert sound.statuses == 3 * ["done"]
    for digest, numbers in found.numbers.items():
        assert numbers in ([], sound.numbers[digest])


def test_a_pack_that_does_not_fit_can_be_made_smaller(run, monkeypatch):
    """The same command fails again and again, since packs are kept; --pack is the way out."""

    class Slot:
        @staticmethod
        def new(*arguments, **more):
            if len(slots) >= 2:
                raise MemoryError("no room for more adapters")
            slots.append(real.new(*arguments, **more))
            return slots[-1]

    def run_pack(*arguments, **more):
        slots.clear()
        return real_run_pack(*arguments, **more)

    slots, real, real_run_pack = [], pack_runner.Slot, pack_runner.run_pack
    monkeypatch.setattr(pack_runner, "Slot", Slot)
    monkeypatch.setattr(training, "run_pack", run_pack)
    for _ in range(2):
        found = run()
        assert {trial.error for trial in found.trials} == {"MemoryError: no room for more adapters"}
    found = run(options=RunOptions(probe=False, trials_per_pack=2))
    assert found.statuses == 4 * ["done"]
    assert [len(pack["trials"]) for pack in found.packs] == [2, 2]


def cut(folder):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def flipped(folder):
    file = folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x40
    file.write_bytes(data)


def other_alpha(folder):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 40}))


def gone(folder):
    (folder / "adapter_config.json").unlink()


DAMAGE = {"full-lr0.01-seed0": cut, "full-lr0.01-seed1": flipped,
          "attention-lr0.01-seed1": other_alpha, "attention-lr0.01-seed2": gone}  # fmt: skip
ERRORS = {cut: "SafetensorError", flipped: "VerificationError", other_alpha: "VerificationError",
          gone: "ValueError"}  # fmt: skip


def test_a_saved_file_that_is_damaged_fails_its_trial_alone(run, monkeypatch):
    """Damaged between being written and being read; six trials in one pack, two of them sound."""

    def save_slot(slot, folder, base):
        real(slot, folder, base)
        for name, damage in DAMAGE.items():
            if folder.name.startswith(name):
                damage(folder)

    real, seeds = pack_runner.save_slot, ("seeds: 2", "seeds: 3")
    whole = run(seeds, out="whole")
    monkeypatch.setattr(pack_runner, "save_slot", save_slot)
    found = run(seeds)
    assert found.statuses == 2 * ["done"] + 4 * ["failed"]
    names = {digest: name for name, digest in digests(found).items()}
    for trial in found.trials:
        damage = DAMAGE.get(f"{names[trial.placement_digest]}-lr0.01-seed{trial.seed}")
        assert (trial.status == "failed") == (damage is not None)
        if damage is None:
            assert found.numbers[trial.digest] == whole.numbers[trial.digest]
        else:
            assert trial.error.startswith(f"{ERRORS[damage]}: ")
            assert (trial.adapter, found.scores[trial.digest]) == (None, {})
    monkeypatch.undo()
    again = run(seeds)
    assert again.statuses == 6 * ["done"]
    assert close(again, whole)


# --- the frozen prefix


def test_the_prefix_changes_no_number_wherever_it_is_kept(run, monkeypatch):
    kept = run(UPPER, out="memory")
    assert not any("prefix" in line for line in kept.listener.said)

    def said(out, file):
        options = RunOptions(probe=False, prefix_memory=0, prefix_file=file)
        found = run(UPPER, out=out, options=options)
        assert close(found, kept)
        assert not (found.folder / "prefix").exists(), "no file of it is left"
        return [line for line in found.listener.said if "prefix" in line]

    assert said("file", 64 * 2**20) == []
    for file in (0, 3000):
        (line,) = said(f"file of {file}", file)
        assert f"do not all fit in 0 bytes of memory and {file} bytes of file" in line
    full = prefix_file.shutil.disk_usage("/")._replace(free=0)
    monkeypatch.setattr(prefix_file.shutil, "disk_usage", lambda _path: full)
    first, *_ = said("full disk", 2**30)
    assert "takes no more: less than 256 MiB" in first


def test_what_a_killed_run_left_of_the_prefix_is_taken_off_the_disk(run, study_folder):
    run(UPPER)
    left = study_folder / "run" / "prefix" / "frozen_prefix.states"
    left.parent.mkdir()
    left.write_bytes(b"what a killed run wrote")
    run(UPPER)
    assert not left.parent.exists()


# --- without probes


def test_a_run_without_probes_is_complete(run):
    found = run()
    assert found.standing["complete"]
    assert found.standing["probes"] == 0
    for placement in found.results["placements"].values():
        assert (placement["seconds"], placement["peak_memory_bytes"]) == (None, None)
        assert placement["loss"] is not None
    json.dumps(found.results, allow_nan=False)
