import pytest

from loratlas.data.files import Row
from loratlas.data.formats import read_examples
from loratlas.errors import DataError


def row(values, line=17):
    return Row(values=values, where=f"data.jsonl:{line}", index=line - 1)


def segments(values, data_format, loss_on="response"):
    (example,) = read_examples([row(values)], data_format=data_format, loss_on=loss_on).examples
    return [(segment.text, segment.scored) for segment in example.segments]


def refusal(values, data_format, loss_on="response"):
    with pytest.raises(DataError) as caught:
        read_examples([row(values)], data_format=data_format, loss_on=loss_on)
    return str(caught.value)


def test_alpaca_with_input():
    prompt = (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n{1} and {2}\n\n### Response:\n"
    )
    given = {"instruction": "Add.", "input": "{1} and {2}", "output": "3", "text": 5}
    assert segments(given, "alpaca") == [(prompt, False), ("3", True)]


@pytest.mark.parametrize("rest", [{}, {"input": ""}, {"input": None}, {"input": " \n"}])
def test_alpaca_without_input(rest):
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nGreet.\n\n### Response:\n"
    )
    given = {"instruction": "Greet.", "output": "Hello"} | rest
    assert segments(given, "alpaca") == [(prompt, False), ("Hello", True)]


def test_gsm8k_keeps_the_final_line():
    given = {"question": "1 + 1?", "answer": "1 + 1 = <<1+1=2>>2\n#### 2"}
    assert segments(given, "gsm8k") == [
        ("Question: 1 + 1?\nAnswer:", False),
        (" 1 + 1 = <<1+1=2>>2\n#### 2", True),
    ]


def test_messages_score_the_assistant_alone():
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    given = {"messages": turns}
    assert segments(given, "messages") == [("", False), ("Hi", False), ("Hello", True)]


@pytest.mark.parametrize("loss_on", ["response", "completion", "assistant"])
def test_the_three_names_of_the_answer_mean_the_same(loss_on):
    given = {"prompt": "p", "completion": "c"}
    assert segments(given, "prompt_completion", loss_on) == [("p", False), ("c", True)]


def test_everything_scores_all():
    given = {"prompt": "p", "completion": "c"}
    assert segments(given, "prompt_completion", "everything") == [("p", True), ("c", True)]
    assert segments({"text": "t"}, "text", "everything") == [("t", True)]


def test_text_has_no_answer():
    assert refusal({"text": "t"}, "text", "response") == (
        "data.loss_on: format text has no response to tell from a prompt; use loss_on: everything"
    )


def test_missing_key_names_the_nearest():
    assert refusal({"instruction": "i", "input": "", "outputs": "o"}, "alpaca") == (
        'data.jsonl:17: no key "output"; the row holds instruction, input, outputs '
        "(did you mean outputs?)"
    )
    assert refusal({}, "text", "everything") == (
        'data.jsonl:17: no key "text"; the row holds no key'
    )


def test_a_misspelt_optional_key_is_not_passed_over():
    given = {"instruction": "i", "imput": "x", "output": "o"}
    assert "(did you mean imput?)" in refusal(given, "alpaca")


@pytest.mark.parametrize(
    ("value", "found"),
    [(None, "null"), (12, "a number (12)"), (["a"], "a list of 1"), (True, "true")],
)
def test_mixed_types(value, found):
    given = {"prompt": "p", "completion": value}
    assert refusal(given, "prompt_completion") == (
        f'data.jsonl:17: "completion" must be a text, found {found}'
    )
    assert '"input" must be a text' in refusal(
        {"instruction": "i", "input": 3, "output": "o"}, "alpaca"
    )


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_a_prompt_needs_text(empty):
    assert refusal({"question": empty, "answer": "a"}, "gsm8k") == (
        'data.jsonl:17: "question" must hold some text, found an empty text'
    )


def test_rows_with_an_empty_answer_are_left_out_and_counted():
    rows = [row({"prompt": "p", "completion": text}, line) for line, text in ((1, ""), (2, "c"))]
    for loss_on in ("response", "everything"):
        found = read_examples(rows, data_format="prompt_completion", loss_on=loss_on)
        assert (found.num_rows, found.num_unanswered) == (2, 1)
        assert found.examples[0].where == "data.jsonl:2"
        assert found.examples[0].row == 1
    empty = [row({"text": "\n"})]
    assert read_examples(empty, data_format="text", loss_on="everything").num_unanswered == 1
    unanswered = [row({"messages": [{"role": "user", "content": "Hi"}]})]
    assert read_examples(unanswered, data_format="messages", loss_on="assistant").examples == ()


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hi", "\"messages\" must be a list of {role, content}, found the text 'hi'"),
        ([], '"messages" must be a list of {role, content}, found an empty list'),
        (["hi"], "message 1: must be {role, content}, found the text 'hi'"),
        (
            [{"from": "human", "value": "x"}],
            'message 1: no key "role"; the row holds from, value',
        ),
        (
            [{"role": "asistant", "content": "x"}],
            'message 1: role "asistant" is none of system, developer, user, assistant, tool '
            "(did you mean assistant?)",
        ),
        (
            [{"role": "user", "content": ["x"]}],
            'message 1: "content" must be a text, found a list of 1',
        ),
        (
            [{"role": "user", "content": ""}],
            'message 1: "content" must hold some text, found an empty text',
        ),
    ],
)
def test_faults_in_conversations(messages, message):
    assert refusal({"messages": messages}, "messages") == f"data.jsonl:17: {message}"


def test_unknown_choices():
    assert refusal({}, "alpacca") == (
        "data.format: alpacca is not a format (did you mean alpaca?); formats: "
        "alpaca, prompt_completion, text, messages, gsm8k, classification"
    )
    assert refusal({}, "alpaca", "respone") == (
        "data.loss_on: respone is none of response, completion, assistant, everything "
        "(did you mean response?)"
    )
