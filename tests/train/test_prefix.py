import errno
import os
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch

from loratlas.train.base import weights_digest
from loratlas.train.prefix import PrefixCache
from loratlas.train.prefix_file import StateFile
from tiny_models import fresh

BASE = "0" * 64
DTYPES = [torch.float32, torch.bfloat16]
PLENTY = 2**20


def cache_of(**changes):
    arguments = {"base_digest": BASE, "dtype": torch.float32, "memory_limit": PLENTY, **changes}
    return PrefixCache(**arguments)


def tokens_of(index, num_tokens=5):
    return np.arange(index, index + num_tokens, dtype=np.int32)


def states_of(index, *, num_tokens=5, dtype=torch.float32):
    """Return random states of width 8; 160 bytes in fp32."""
    generator = torch.Generator().manual_seed(index)
    return torch.randn(num_tokens, 8, generator=generator).to(dtype)


def fill(cache, count):
    for index in range(count):
        cache.put(1, tokens_of(index), states_of(index))


def found(cache, count):
    """Whether each example's states are kept; those that are must be the right ones."""
    there = [cache.get(1, tokens_of(index)) for index in range(count)]
    for index, states in enumerate(there):
        assert states is None or torch.equal(states, states_of(index))
    return [states is not None for states in there]


def bits(states):
    return states.dtype, states.shape, states.view(torch.uint8).tolist()


@pytest.fixture(params=["memory", "file", "file of a killed run"])
def kept_in(request, tmp_path):
    """Return what makes a cache that holds given examples in one of the places."""

    def make(entries, **changes):
        limits = {"memory_limit": PLENTY} if request.param == "memory" else {"memory_limit": 0}
        changes = {**limits, "file_limit": PLENTY, "folder": tmp_path / "prefix", **changes}
        cache = cache_of(**changes)
        for layer, tokens, states in entries:
            cache.put(layer, tokens, states)
        if request.param == "file of a killed run":
            cache.close(keep=True)
            cache = cache_of(**changes)
        assert (cache.memory_bytes > 0) == (request.param == "memory")
        return cache

    return make


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_come_back_bit_for_bit(kept_in, dtype):
    strange = states_of(0, dtype=dtype)
    strange[0, :4] = torch.tensor([float("nan"), float("inf"), -0.0, 1e-40])
    entries = [
        (1, tokens_of(0), strange),
        (1, tokens_of(9, 3), states_of(9, num_tokens=3, dtype=dtype)),
    ]
    cache = kept_in(entries, dtype=dtype)
    for layer, tokens, states in entries:
        for _ in range(2):
            assert bits(cache.get(layer, tokens)) == bits(states)
    assert cache.get(1, tokens_of(0, 4)) is None
    assert (cache.num_hits, cache.num_misses, cache.notes) == (4, 1, [])
    cache.close()


def test_another_token_layer_or_length_is_a_miss(kept_in):
    cache = kept_in([(1, tokens_of(0), states_of(0))])
    changed = tokens_of(0)
    changed[2] += 1
    assert cache.get(1, changed) is None
    assert cache.get(2, tokens_of(0)) is None
    assert cache.get(1, tokens_of(0)[:-1]) is None
    assert cache.get(1, tokens_of(0)[::-1]) is None
    assert cache.get(1, tokens_of(0)) is not None
    assert cache.get(1, tokens_of(0).astype(np.int64)) is not None
    cache.close()


def test_another_weight_is_a_miss_and_its_file_is_replaced(tmp_path):
    model = fresh("gpt2")
    changed = deepcopy(model)
    with torch.no_grad():
        changed.transformer.h[0].mlp.c_fc.weight[3, 5] += 1e-6
    first, other = (
        {
            "base_digest": weights_digest(each),
            "memory_limit": 0,
            "file_limit": PLENTY,
            "folder": tmp_path,
        }
        for each in (model, changed)
    )
    for run, is_there in [(first, False), (first, True), (other, False), (first, False)]:
        cache = cache_of(**run)
        assert found(cache, 1) == [is_there]
        fill(cache, 1)
        assert found(cache, 1) == [True]
        cache.close(keep=True)


@pytest.mark.parametrize(
    "change",
    [{"dtype": torch.float32}, {"dtype": torch.float16}, {"numerics": "cuda, TF32"}],
    ids=["wider numbers", "other numbers", "numerics"],
)
def test_another_dtype_or_setting_is_a_miss(tmp_path, change):
    place = {"dtype": torch.bfloat16, "memory_limit": 0, "file_limit": PLENTY, "folder": tmp_path}
    cache = cache_of(**place)
    cache.put(1, tokens_of(0), states_of(0, dtype=torch.bfloat16))
    cache.close(keep=True)
    cache = cache_of(**{**place, **change})
    assert cache.get(1, tokens_of(0)) is None
    cache.close()


def test_a_file_of_another_torch_is_replaced(tmp_path, monkeypatch):
    place = {"memory_limit": 0, "file_limit": PLENTY, "folder": tmp_path}
    cache = cache_of(**place)
    fill(cache, 1)
    cache.close(keep=True)
    monkeypatch.setattr(torch, "__version__", "1.0")
    cache = cache_of(**place)
    assert found(cache, 1) == [False]
    cache.close()


def test_a_prefix_that_was_kept_continues_to_the_same_logits(kept_in):
    model = fresh("gpt2").eval()
    tokens = np.array([3, 1, 4, 1, 5, 9], dtype=np.int32)
    with torch.inference_mode():
        output = model(torch.from_numpy(tokens)[None].long(), output_hidden_states=True)
        cache = kept_in([(2, tokens, output.hidden_states[2][0])])
    states = cache.get(2, tokens)
    # The last block, with a weight that trains: what came out of inference mode may enter a graph.
    weight = model.transformer.h[2].attn.c_attn.weight.requires_grad_()
    end = model.lm_head(model.transformer.ln_f(model.transformer.h[2](states[None])))
    assert torch.equal(end, output.logits)
    end.sum().backward()
    assert weight.grad is not None
    cache.close()


def test_nobody_can_change_what_is_kept(kept_in):
    states = states_of(0)
    cache = kept_in([(1, tokens_of(0), states)])
    states.zero_()
    cache.get(1, tokens_of(0)).zero_()
    cache.put(1, tokens_of(0), states_of(1))
    assert found(cache, 1) == [True]
    cache.close()


def test_rows_of_a_larger_batch_are_kept_alone():
    cache = cache_of()
    batch = torch.stack([states_of(0), states_of(1)], dim=1)
    cache.put(1, tokens_of(0), batch[:, 0])
    assert cache.memory_bytes == 160
    assert found(cache, 1) == [True]


def test_what_came_first_stays_within_the_limit_of_memory_to_the_byte():
    for limit, count in [(3 * 160, 3), (3 * 160 - 1, 2), (159, 0), (0, 0)]:
        cache = cache_of(memory_limit=limit)
        fill(cache, 5)
        assert found(cache, 5) == [index < count for index in range(5)]
        assert cache.memory_bytes == count * 160
        assert cache.file_bytes == 0


def test_the_file_takes_what_memory_does_not_within_its_limit_to_the_byte(tmp_path):
    cache = cache_of(memory_limit=160, file_limit=PLENTY, folder=tmp_path)
    fill(cache, 4)
    assert cache.memory_bytes == 160
    needed = cache.file_bytes
    assert needed >= 3 * 160
    cache.close()
    for limit, count in [(needed, 4), (needed - 1, 3), (1, 1)]:
        cache = cache_of(memory_limit=160, file_limit=limit, folder=tmp_path)
        fill(cache, 6)
        assert found(cache, 6) == [index < count for index in range(6)]
        assert (tmp_path / "frozen_prefix.states").stat().st_size == cache.file_bytes <= limit
        assert cache.notes == [
            "the hidden states of the frozen prefix do not all fit in 160 bytes of memory and "
            f"{limit} bytes of file; the rest is computed whenever it is needed"
        ]
        cache.close()


def test_closing_deletes_the_file_unless_it_is_to_be_kept(tmp_path):
    path = tmp_path / "deep" / "down" / "frozen_prefix.states"
    place = {"memory_limit": 160, "file_limit": PLENTY, "folder": path.parent}
    cache = cache_of(**place)
    fill(cache, 2)
    cache.close(keep=True)
    assert path.exists()
    assert (cache.memory_bytes, cache.file_bytes, found(cache, 2)) == (0, 0, [False, False])
    cache = cache_of(**place)
    assert found(cache, 2) == [False, True]
    cache.close()
    cache.close()
    assert not path.exists()
    assert cache.notes == []


def test_a_limit_of_zero_takes_an_earlier_file_off_the_disk(tmp_path):
    cache = cache_of(memory_limit=0, file_limit=PLENTY, folder=tmp_path)
    fill(cache, 2)
    cache.close(keep=True)
    cache = cache_of(memory_limit=0, file_limit=0, folder=tmp_path)
    assert (tmp_path / "frozen_prefix.states").stat().st_size == cache.file_bytes == 0
    assert found(cache, 2) == [False, False]
    cache.close()
    assert not (tmp_path / "frozen_prefix.states").exists()
    cache_of(file_limit=0, folder=tmp_path / "new").close()
    assert not (tmp_path / "new").exists()


def test_a_damaged_record_is_computed_anew(tmp_path):
    place = {"memory_limit": 0, "file_limit": PLENTY, "folder": tmp_path}
    cache = cache_of(**place)
    fill(cache, 3)
    cache.close(keep=True)
    path = tmp_path / "frozen_prefix.states"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    cache = cache_of(**place)
    assert found(cache, 3) == [True, False, True]
    assert cache.notes == [
        "the file of the frozen prefix is damaged; what was lost is computed anew"
    ]
    fill(cache, 3)
    assert found(cache, 3) == [True, True, True]
    cache.close(keep=True)
    cache = cache_of(**place)
    assert found(cache, 3) == [True, True, True]
    cache.close()


def test_a_folder_that_cannot_be_made_leaves_the_memory(tmp_path):
    (tmp_path / "taken").write_text("")
    cache = cache_of(memory_limit=160, file_limit=PLENTY, folder=tmp_path / "taken" / "prefix")
    assert cache.notes == [
        f"the frozen prefix has no file: {tmp_path}/taken/prefix/frozen_prefix.states: "
        "Not a directory"
    ]
    fill(cache, 2)
    assert found(cache, 2) == [True, False]
    cache.close()


def test_a_second_run_leaves_the_file_to_the_first(tmp_path):
    place = {"memory_limit": 0, "file_limit": PLENTY, "folder": tmp_path}
    first, second = cache_of(**place), cache_of(**place)
    fill(first, 2)
    fill(second, 2)
    assert found(first, 2) == [True, True]
    assert found(second, 2) == [False, False]
    assert second.notes[0].endswith("frozen_prefix.states: another process uses it")
    second.close()
    assert found(first, 2) == [True, True]
    first.close()


def test_a_full_disk_is_said_once_and_keeps_what_was_whole(tmp_path, monkeypatch):
    cache = cache_of(memory_limit=160, file_limit=PLENTY, folder=tmp_path)
    fill(cache, 3)
    size = cache.file_bytes
    # There is room for the data of one more record, not for its head.
    real, writes = StateFile._write, []

    def write(file, offset, data):
        writes.append(offset)
        if len(writes) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, offset, data)

    monkeypatch.setattr(StateFile, "_write", write)
    fill(cache, 6)
    assert cache.notes == [
        "the file of the frozen prefix takes no more: No space left on device",
        "the hidden states of the frozen prefix do not all fit in 160 bytes of memory and "
        f"{size} bytes of file; the rest is computed whenever it is needed",
    ]
    assert len(writes) == 2
    assert found(cache, 6) == [True, True, True, False, False, False]
    assert (tmp_path / "frozen_prefix.states").stat().st_size == cache.file_bytes == size
    cache.close()


def test_a_disk_without_free_space_keeps_nothing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    cache = cache_of(memory_limit=0, file_limit=PLENTY, folder=tmp_path)
    fill(cache, 2)
    assert found(cache, 2) == [False, False]
    assert cache.notes[0] == (
        "the file of the frozen prefix takes no more: less than 256 MiB would be left on the disk"
    )
    cache.close()


def test_what_cannot_be_kept_truly_is_refused():
    cache = cache_of()
    with pytest.raises(TypeError, match="Cannot cast"):
        cache.get(1, tokens_of(0) + 0.5)
    with pytest.raises(
        ValueError, match=r"the cache is for torch\.float32, the states are torch\.bfloat16"
    ):
        cache.put(1, tokens_of(0), states_of(0, dtype=torch.bfloat16))
    with pytest.raises(
        ValueError, match=r"states of shape \(4, 8\) do not have one row for each of the tokens"
    ):
        cache.put(1, tokens_of(0), states_of(0, num_tokens=4))
    assert cache.memory_bytes == 0
