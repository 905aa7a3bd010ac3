import random
import subprocess
import sys

import numpy as np
import pytest

from loratlas.data.batches import prepare
from loratlas.data.spec import DataSpec
from loratlas.errors import DataError

ROWS = [{"prompt": f"Question {number}:", "completion": f" {number}."} for number in range(20)]


def spec(**changes):
    return DataSpec(**({"format": "prompt_completion", "source": "d.jsonl", "test": 5} | changes))


def refusal(given, tokenizer, root):
    with pytest.raises(DataError) as caught:
        prepare(given, tokenizer, root=root)
    return str(caught.value)


def test_a_clean_file(tmp_path, write_rows, tokenizer):
    write_rows("d.jsonl", ROWS)
    data = prepare(spec(train=10, validation=3), tokenizer, root=tmp_path)
    assert [len(split.rows) for split in (data.train, data.validation, data.test)] == [10, 3, 5]
    assert data.report == ()
    for row in data.test.rows:
        answer = ROWS[row.row]["completion"]
        assert tokenizer.decode(row.ids[row.scored]) == f"{answer}<|endoftext|>"
        assert row.num_bytes == len(answer)
    assert data.test.num_bytes == sum(len(ROWS[row.row]["completion"]) for row in data.test.rows)
    assert data.test.num_scored == sum(row.num_scored for row in data.test.rows)


def test_the_digest_is_of_ids_and_masks(tmp_path, write_rows, tokenizer):
    write_rows("d.jsonl", ROWS)
    data = prepare(spec(), tokenizer, root=tmp_path)
    assert data.digest == prepare(spec(), tokenizer, root=tmp_path).digest
    others = [spec(split_seed=1), spec(loss_on="everything"), spec(max_length=8), spec(test=6)]
    digests = {prepare(other, tokenizer, root=tmp_path).digest for other in others}
    assert len(digests | {data.digest}) == 5
    # the same text from another file is the same data
    write_rows("e.jsonl", [{"id": number} | row for number, row in enumerate(ROWS)])
    assert prepare(spec(source="e.jsonl"), tokenizer, root=tmp_path).digest == data.digest


def test_no_global_random_state_is_touched(tmp_path, write_rows, tokenizer):
    write_rows("d.jsonl", ROWS)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    prepare(spec(), tokenizer, root=tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


def test_everything_left_out_is_said(tmp_path, write_rows, tokenizer):
    long = {"prompt": "p", "completion": " b" * 100}
    buried = {"prompt": "p" * 100, "completion": " b"}
    empty = {"prompt": "p", "completion": ""}
    write_rows("train.jsonl", [*ROWS, ROWS[0], ROWS[1], long, buried, empty])
    write_rows("test.jsonl", [ROWS[1], {"prompt": "new", "completion": " x"}])
    given = spec(
        source=None,
        files={"train": "train.jsonl", "test": "test.jsonl"},
        test=None,
        max_length=20,
        loss_on="completion",
    )
    data = prepare(given, tokenizer, root=tmp_path)
    assert data.report == (
        "train.jsonl: 1 of 25 rows left out for an empty answer.",
        "train.jsonl: rows dropped because the source's own test or validation split holds "
        "them: 2.",
        "train.jsonl: rows that repeat an earlier one: 1, kept.",
        "train: 1 of 22 rows cut at 20 tokens.",
        "train: 1 of 22 rows skipped: no scored token within the first 20 tokens.",
    )
    train = data.train
    assert (train.num_unanswered, train.num_overlaps, train.num_duplicates) == (1, 2, 1)
    assert (len(train.rows), train.num_truncated, train.num_skipped) == (21, 1, 1)


def test_duplicates_of_one_source_are_said_once(tmp_path, write_rows, tokenizer):
    write_rows("d.jsonl", ROWS + ROWS[:3])
    data = prepare(spec(validation=2), tokenizer, root=tmp_path)
    assert data.report == ("d.jsonl: rows that repeat an earlier one: 3, dropped before the draw.",)
    assert data.train.num_duplicates == data.test.num_duplicates == 3


def test_every_label_masked(tmp_path, write_rows, tokenizer):
    write_rows("d.jsonl", [{"prompt": "p" * 50 + str(n), "completion": "c"} for n in range(4)])
    assert refusal(spec(test=1, max_length=8), tokenizer, tmp_path) == (
        "data: train has zero supervised tokens: in each of its 3 rows no scored token is left "
        "within the first 8 tokens"
    )


def test_unmarked_answers_of_a_marked_template(tmp_path, write_rows, make_tokenizer):
    template = (
        "{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    )
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    write_rows("d.jsonl", [{"messages": [*talk, talk[0] | {"content": str(n)}]} for n in range(3)])
    message = refusal(
        spec(format="messages", test=1), make_tokenizer(chat_template=template), tmp_path
    )
    assert "zero supervised tokens" in message


def test_the_length_that_the_tokenizer_allows_is_kept(tmp_path, write_rows, make_tokenizer):
    write_rows("d.jsonl", ROWS)
    data = prepare(spec(), make_tokenizer(model_max_length=8), root=tmp_path)
    assert data.report[0] == (
        "max_length 512 is above the tokenizer's own limit; rows are cut at 8 tokens."
    )
    assert max(len(row.ids) for row in data.train.rows) == 8


def test_a_missing_end_of_text_token_is_said(tmp_path, write_rows, make_tokenizer):
    write_rows("d.jsonl", ROWS)
    data = prepare(spec(), make_tokenizer(eos_token=None), root=tmp_path)
    assert data.report == (
        "The tokenizer has no end-of-text token: none is appended to the answers.",
    )


def test_a_length_that_leaves_nothing_to_predict(tmp_path, tokenizer):
    assert refusal(spec(max_length=1), tokenizer, tmp_path) == (
        "data.max_length: 1 leaves nothing to predict; at least 2 tokens"
    )


@pytest.mark.parametrize("task", ["facts", "format"])
def test_bundled_tasks(tmp_path, task, tokenizer):
    given = DataSpec(source=f"demo:{task}", format="prompt_completion")
    data = prepare(given, tokenizer, root=tmp_path)
    assert data.train.rows
    assert data.validation.rows
    assert data.test.rows


def test_preparing_needs_no_torch():
    code = "import sys, loratlas.data.batches; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
