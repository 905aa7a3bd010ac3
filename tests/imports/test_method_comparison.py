"""PEFT's own results as a run; the files here have the keys of those that PEFT publishes."""

import copy
import json
from contextlib import closing

import pytest

from loratlas.analysis.summary import results
from loratlas.errors import DataError
from loratlas.imports.base import BaseModel
from loratlas.imports.run import import_run
from loratlas.study.folder import open_run

LORA = {
    "run_info": {
        "created_at": "2025-10-23T16:57:13+00:00",
        "total_time": 30.0,
        "experiment_name": "lora/tiny-rank2-target-mlp",
        "peft_branch": "main",
        "train_config": {
            "model_id": "ada/tiny",
            "dtype": "bfloat16",
            "max_seq_length": 768,
            "batch_size": 4,
            "max_steps": 500,
            "eval_steps": 250,
            "query_template": "Question: {query}",
            "seed": 0,
            "optimizer_type": "AdamW",
            "optimizer_kwargs": {"lr": 0.0001, "weight_decay": 0.1},
        },
        "peft_config": {
            "task_type": "CAUSAL_LM",
            "peft_type": "LORA",
            "r": 2,
            "target_modules": ["c_fc"],
            "lora_alpha": 4,
            "use_rslora": False,
            "rank_pattern": {},
            "alpha_pattern": {},
        },
        "error_msg": "",
    },
    "train_info": {
        "accelerator_memory_reserved_avg": 1000,
        "accelerator_memory_max": 2000,
        "train_time": 25.0,
        "file_size": 4321,
        "num_trainable_params": 960,
        "num_total_params": 52416 + 960,
        "status": "success",
        "metrics": [
            {"step": 250, "valid accuracy": 0.3, "train time": 10.0, "eval time": 2.0},
            {"step": 500, "valid accuracy": 0.4, "train time": 15.0, "eval time": 2.0},
            {"step": 500, "test accuracy": 0.5261, "train loss": 0.58, "train total tokens": 50000},
        ],
    },
    "meta_info": {
        "model_info": {"sha": "13af", "created_at": "2024-09-18T15:23:48+00:00"},
        "package_info": {
            "peft-version": "0.17.2", "peft-commit-hash": "a18b", "torch-version": "2.9.0",
        },
        "system_info": {"system": "Linux", "machine": "x86_64", "accelerator": "NVIDIA L40S"},
    },
}  # fmt: skip


def changed(**changes):
    """Return a result with other values, by dotted keys written with two underscores."""
    result = copy.deepcopy(LORA)
    for path, value in changes.items():
        place = result
        *way, last = path.split("__")
        for key in way:
            place = place[key]
        place[last] = value
    return result


FULL = changed(
    run_info__experiment_name="full-finetuning/tiny",
    run_info__peft_config=None,
    train_info__num_trainable_params=52416,
    train_info__num_total_params=52416,
)


@pytest.fixture
def folder(tmp_path):
    """Writes results as PEFT names them; returns the benchmark's folder."""

    def write(*every):
        place = tmp_path / "MetaMathQA" / "results"
        place.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(every):
            name = each["run_info"]["experiment_name"].replace("/", "--")
            (place / f"{name}-{number}.json").write_text(json.dumps(each))
        return tmp_path / "MetaMathQA"

    return write


def imported(source, tmp_path, model=None, **options):
    told = import_run(source, tmp_path / "run", BaseModel(name=model), **options)
    with closing(open_run(tmp_path / "run")) as store:
        return told, results(store), store


def test_the_figures_of_the_test_set_are_a_task(folder, tmp_path):
    told, found, _ = imported(folder(LORA, FULL), tmp_path)
    lora = found["placements"]["lora/tiny-rank2-target-mlp"]
    assert lora["tasks"]["MetaMathQA"]["accuracy"]["mean"] == 0.5261
    assert lora["tasks"]["MetaMathQA"]["accuracy"]["interval"] is None
    assert lora["tasks"]["MetaMathQA"]["accuracy"]["num_questions"] is None
    assert found["base"]["tasks"]["MetaMathQA"]["accuracy"]["mean"] is None
    assert (lora["loss"], lora["perplexity"], lora["accuracy"]) == (None, None, None)
    assert (lora["learning_rate"], lora["trainable_parameters"]) == (1e-4, 960)
    # One of them trained the base itself, of which adapters are no share.
    assert lora["percent_of_base_and_adapters"] is None
    assert lora["rule"] == "rank 2, alpha 4 on c_fc"
    assert found["placements"]["full-finetuning/tiny"]["rule"] == "full fine-tuning"
    assert told["source"] == "method_comparison"
    assert any("Every result is of seed 0" in note for note in told["notes"])


def test_costs_are_those_of_the_training_steps(folder, tmp_path):
    _, found, _ = imported(folder(LORA), tmp_path)
    (lora,) = found["placements"].values()
    assert lora["percent_of_base_and_adapters"] == pytest.approx(100 * 960 / (52416 + 960))
    assert lora["seconds_per_step"] == pytest.approx(25.0 / 500)
    assert lora["seconds"] == pytest.approx(25.0)
    assert lora["tokens_per_second"] == pytest.approx(50000 / 25)
    # What the allocator reserved holds the model, too: it is no memory above the model.
    assert lora["peak_memory_bytes"] is None
    assert lora["resources"]["trial_memory"]["train"]["reserved_bytes"] == 2000
    assert lora["resources"]["adapter_bytes"]["on_disk"] == 4321
    assert found["environment"] == {
        "platform": "Linux x86_64", "gpu": "NVIDIA L40S", "peft": "0.17.2", "torch": "2.9.0",
    }  # fmt: skip


def test_with_a_model_a_configuration_is_a_placement(folder, tmp_path, tiny_folder):
    ia3 = changed(run_info__experiment_name="ia3/tiny", run_info__peft_config__peft_type="IA3")
    _, found, _ = imported(folder(LORA, ia3), tmp_path, model=str(tiny_folder))
    lora, other = found["placements"]["lora/tiny-rank2-target-mlp"], found["placements"]["ia3/tiny"]
    # 3 layers, c_fc from 32 to 128, rank 2.
    assert lora["families"] == {"feed_forward": 3 * 2 * (32 + 128)} == {"feed_forward": 960}
    assert (lora["num_sites"], lora["ranks"]) == (3, [2])
    assert (other["num_sites"], other["ranks"], other["rule"]) == (None, [], "ia3")


def test_several_seeds_have_an_interval(folder, tmp_path):
    metrics = copy.deepcopy(LORA["train_info"]["metrics"])
    metrics[-1]["test accuracy"] = 0.55
    other = changed(run_info__train_config__seed=1, train_info__metrics=metrics)
    told, found, _ = imported(folder(LORA, other), tmp_path)
    accuracy = next(iter(found["placements"].values()))["tasks"]["MetaMathQA"]["accuracy"]
    assert accuracy["mean"] == pytest.approx((0.5261 + 0.55) / 2)
    assert accuracy["values"] == {"0": 0.5261, "1": 0.55}
    assert accuracy["interval"] is not None
    assert not any("Every result is of seed" in note for note in told["notes"])


def test_what_failed_or_was_done_again_is_said(folder, tmp_path):
    older = changed(run_info__created_at="2024-01-01T00:00:00+00:00")
    failed = changed(
        run_info__experiment_name="lora/broken",
        run_info__error_msg="CUDA out of memory",
        train_info__status="failed",
        train_info__metrics=[],
    )
    no_rate = changed(
        run_info__experiment_name="lora/none", run_info__train_config__optimizer_kwargs={}
    )
    told, found, store = imported(folder(LORA, older, failed, no_rate), tmp_path)
    assert found["placements"]["lora/broken"]["num_failed"] == 1
    errors = [trial.error for trial in store.trials().values() if trial.status == "failed"]
    assert errors == ["failed: CUDA out of memory"]
    assert "lora/none" not in found["placements"]
    assert sum("left out: a newer result has its name" in note for note in told["notes"]) == 1
    assert sum("states no learning rate or no seed" in note for note in told["notes"]) == 1


def test_another_shape_is_refused(folder, tmp_path):
    source = folder(LORA)
    odd = source / "results" / "odd.json"
    for content in ("[]", "{}", json.dumps(changed(train_info__metrics="none")), "{"):
        odd.write_text(content)
        with pytest.raises(DataError) as caught:
            imported(source, tmp_path)
        expected = "cannot be read as JSON" if content == "{" else (
            "expected an object with run_info (experiment_name, train_config, peft_config) and "
            "train_info (status, num_trainable_params, metrics), as PEFT's method_comparison writes"
        )  # fmt: skip
        assert str(caught.value).startswith(f"{odd}: {expected}")
        assert not (tmp_path / "run").exists()


def test_results_of_two_models_do_not_compare(folder, tmp_path):
    source = folder(LORA, changed(run_info__train_config__model_id="ada/other"))
    with pytest.raises(DataError, match="different models do not compare: ada/other, ada/tiny"):
        imported(source, tmp_path)
