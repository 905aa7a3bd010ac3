"""What the GPU's benchmark says where there is no GPU, and how its figures are put together."""

from dataclasses import replace

import pytest
import torch


@pytest.fixture(scope="module")
def gpu(benchmarks):
    return benchmarks.gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(gpu, capsys):
    with pytest.raises(SystemExit) as end:
        gpu.main(["--quick"])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.err == "gpu.py needs a CUDA device, and this machine has none\n"
    assert said.out == ""


@pytest.fixture
def pair(benchmarks, gpu):
    """Makes a pair of sides that took so many seconds on a device."""
    trained = benchmarks.sides.Trained(
        steps=2, trainable_parameters=8, sites=("a",), num_scored=5, test_loss=5.7
    )

    def side(seconds):
        return benchmarks.sides.Side(
            seconds=seconds,
            peak_bytes=2**30,
            device_bytes=3 * 2**30,
            training_seconds=seconds / 2,
            trials=dict.fromkeys(gpu.NINE.trials, trained),
            engines=("packed",),
        )

    def make(ours, peer):
        return benchmarks.side_by_side.Pair(
            first="peer", load=0.0, ours=side(ours), peer=side(peer)
        )

    return make


def test_the_ratio_is_that_against_the_fastest_peer(gpu, pair):
    pairs = {"as it is": [pair(10, 30)], "compiled": [pair(10, 12)], "autocast": [pair(10, 20)]}
    part = gpu.Part(name="llama", work=gpu.LLAMA, pairs=pairs)
    assert part.fastest == "compiled"
    assert part.ratios == [1.2]


def test_a_page_holds_ratio_memory_and_share(gpu, pair):
    many = gpu.Many(work=replace(gpu.NINE, seeds=16), side=pair(8, 1).ours, flops=1.2e15, peak=6e14)
    part = gpu.Part(name="bf16", work=gpu.NINE, pairs={"as it is": [pair(10, 30)]}, many=many)
    assert many.share == 0.5  # 1.2 PFLOP in 4 s of training, at 600 TFLOP/s
    text = "\n".join(gpu.part_page(part, drawn=True))
    assert "**ratio 3.00 (3.00 to 3.00 over 1 pairs)**" in text
    assert "wanted: at least 20." in text
    assert "48 trials of one epoch" in text
    assert "50% of the 600 TFLOP/s" in text
    assert "wanted: at least 35%; 3.00 GiB" in text


def test_works_are_of_nine_and_of_one(gpu):
    assert len(gpu.NINE.trials) == 9
    assert len(gpu.LLAMA.trials) == 1
    assert len(replace(gpu.NINE, seeds=gpu._SEEDS_OF_48).trials) == 48
    assert gpu.smaller(gpu.LLAMA).shape["num_hidden_layers"] == 4
    assert gpu.smaller(gpu.NINE).shape["n_layer"] == 4
