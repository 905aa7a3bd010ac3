"""States of a training: what is written is what is read, to the last bit."""

import json
import resource
from contextlib import contextmanager

import pytest
import torch

from loratlas.errors import VerificationError
from loratlas.train.checkpoint import Checkpoints
from loratlas.train.state import State


def tensors():
    chance = torch.Generator().manual_seed(0)
    return {
        "model.layers.0.q": torch.randn(3, 5, generator=chance),
        "transposed": torch.randn(4, 2, generator=chance).t(),
        "none": torch.zeros(0),
        "one": torch.tensor(7.0),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    }


def bits(tensor):
    return tensor.contiguous().view(torch.int32).tolist()


def test_tensors_and_floats_are_read_as_they_were(tmp_path):
    floats = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    State(plain={"floats": floats, "none": None}, tensors=tensors()).write(tmp_path)
    found = State.read(tmp_path)
    assert found.plain == {"floats": floats, "none": None}
    assert [each.hex() for each in found.plain["floats"]] == [each.hex() for each in floats]
    assert found.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found.tensors[name].shape == tensor.shape
        assert bits(found.tensors[name]) == bits(tensor)


def test_what_was_read_does_not_need_its_files(tmp_path):
    State(tensors=tensors()).write(tmp_path)
    found = State.read(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)
    assert bits(found.tensors["model.layers.0.q"]) == bits(tensors()["model.layers.0.q"])


def test_parts_come_back_under_their_names(tmp_path):
    first = State(plain={"columns": [1]}, tensors={"total": torch.zeros(1)})
    second = State(plain={"columns": [0, 2]}, tensors={"total": torch.ones(2)})
    slots = State.joined({"0": first, "10": State(), "1": second}, {"step": 3})
    State.joined({"slots": slots, "nothing": State()}).write(tmp_path)
    found = State.read(tmp_path)
    assert found.names == ["slots", "nothing"]
    assert found.part("slots").own == {"step": 3}
    assert found.part("slots").names == ["0", "10", "1"]
    again = found.part("slots").part("1")
    assert again.plain == {"columns": [0, 2]}
    assert torch.equal(again.tensors["total"], torch.ones(2))
    assert found.part("slots").part("10").tensors == {}
    assert found.part("nothing").plain == {}


def test_a_tensor_takes_the_values_that_it_had():
    values = torch.nn.Parameter(torch.zeros(3))
    view = values.detach()[1:]
    State(tensors={"values": torch.arange(3.0)}).copy_to(values, "values")
    assert view.tolist() == [1.0, 2.0]


def test_a_tensor_of_another_shape_is_refused():
    """Copying would stretch one number over all."""
    with pytest.raises(VerificationError) as error:
        State(tensors={"values": torch.ones(1)}).copy_to(torch.zeros(3), "values")
    assert str(error.value) == (
        "the state that was kept does not fit what is trained: values has the shape (1,) in place "
        "of (3,)"
    )


def test_a_state_on_a_device_shares_no_memory():
    state = State(tensors={"values": torch.ones(2)})
    state.on(torch.device("cpu")).tensors["values"].zero_()
    assert state.tensors["values"].tolist() == [1.0, 1.0]


def test_numbers_that_json_has_no_word_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        State(plain={"loss": float("nan")}).write(tmp_path)


def test_json_alone_is_what_readers_of_json_expect(tmp_path):
    State(plain={"a": [1, 2.5]}).write(tmp_path)
    assert json.loads((tmp_path / "state.json").read_text()) == {"a": [1, 2.5]}


@contextmanager
def small_files():
    """Let no file grow above 1000 bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "state",
    [State(tensors={"values": torch.ones(1000)}), State(plain={"losses": [0.1] * 1000})],
    ids=["tensors", "plain"],
)
def test_a_disk_that_takes_no_more_says_so(tmp_path, state, caplog):
    with small_files(), pytest.raises(OSError, match="File too large"):
        state.write(tmp_path)
    checkpoints = Checkpoints(tmp_path / "pack", {})
    with small_files():
        kept = checkpoints.save(1, state.write)
    assert not kept
    assert "no checkpoint after step 1" in caplog.text
    assert list((tmp_path / "pack").iterdir()) == []
