"""Are rows and models what the pages say they are?"""

import json

import numpy as np
import pytest
from transformers import AutoConfig, AutoTokenizer


@pytest.fixture(scope="module")
def materials(benchmarks):
    return benchmarks.materials


def test_drawn_rows_have_the_lengths_of_alpaca(materials, tmp_path):
    """Mean 84, median 76, nine tenths at most 149 tokens, as counted with GPT-2's tokenizer."""
    materials.write_tokenizer(1000, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = materials.drawn_rows(400, 1000, 256)
    lengths = [len(tokenizer(row["prompt"] + row["completion"]).input_ids) + 1 for row in rows]
    assert np.mean(lengths) == pytest.approx(84, abs=1)
    assert np.median(lengths) == pytest.approx(76, abs=1)
    assert np.quantile(lengths, 0.9) == pytest.approx(149, abs=1)
    assert max(lengths) <= 256
    assert all(row["prompt"] and row["completion"].strip() for row in rows)


def test_a_shorter_longest_row_shortens_all(materials):
    def total(longest):
        rows = materials.drawn_rows(40, 1000, longest)
        return sum(len((row["prompt"] + row["completion"]).split()) + 1 for row in rows)

    assert total(128) == pytest.approx(total(256) / 2, rel=0.02)


def test_rows_are_the_same_each_time(materials):
    assert materials.drawn_rows(5, 100, 48) == materials.drawn_rows(5, 100, 48)


def test_ids_of_words_and_of_the_end(materials, tmp_path):
    materials.write_tokenizer(300, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("w7 w298").input_ids == [7, 298]
    assert tokenizer.eos_token_id == 299


@pytest.mark.parametrize("name", ["GPT2_MEDIUM", "LLAMA_1B"])
def test_shapes_are_configurations(materials, tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(dict(getattr(materials, name))))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.vocab_size in (50257, 128256)


def test_alpaca_rows_become_prompts_and_answers(materials, tmp_path):
    file = tmp_path / "alpaca.jsonl"
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"instruction": "Say nothing.", "input": "", "output": " "},
        {"instruction": "Greet.", "input": "", "output": "Hello"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = materials.alpaca_rows(file, 2)
    assert first["prompt"].endswith("### Input:\n1 and 2\n\n### Response:\n")
    assert second["prompt"].endswith("### Instruction:\nGreet.\n\n### Response:\n")
    assert (first["completion"], second["completion"]) == ("3", "Hello")
    with pytest.raises(materials.MaterialsError, match="3 rows are needed, and it holds 2"):
        materials.alpaca_rows(file, 3)


def test_a_line_that_is_no_row_is_named(materials, tmp_path):
    file = tmp_path / "alpaca.jsonl"
    file.write_text('{"instruction": "Add."}\n')
    with pytest.raises(materials.MaterialsError, match=r"alpaca.jsonl:1: no row of Alpaca's"):
        materials.alpaca_rows(file, 1)


def test_files_belong_together(materials, tmp_path):
    assert materials.given(None, None) is None
    with pytest.raises(materials.MaterialsError, match="give both or neither"):
        materials.given(tmp_path, None)
    with pytest.raises(materials.MaterialsError, match=r"holds no tokenizer.json"):
        materials.copy_tokenizer(tmp_path, tmp_path)
