"""In which forms a configuration and its model may come, and what is told of anything else."""

import json

import pytest

import anatomies
import tiny_models
from loratlas.errors import ModelError, NotYetError, PlacementError
from loratlas.placement.explain import explain, lint, read_peft

GPT2 = anatomies.gpt2(width=32, layers=4, vocabulary=64)
LLAMA = anatomies.llama(layers=4)
MIXTRAL = anatomies.mixtral()

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llama"}, "this is no LoRA configuration: it has none of target_modules"),
        ({"target_modules": 3}, "target_modules is a list of names, not 3"),
        ({"target_modules": [3]}, "target_modules is a list of names; 3 is none"),
        ({"target_parameters": "a.b"}, "target_parameters is a list of names, not 'a.b'"),
        ({"r": "8"}, "r is an integer, not '8'"),
        ({"r": True}, "r is an integer, not True"),
        ({"lora_alpha": None, "r": 8}, "lora_alpha is a number, not None"),
        ({"r": 8, "rank_pattern": [1]}, "rank_pattern gives each name a number, such as"),
        ({"r": 8, "rank_pattern": {"q": 1.5}}, "rank_pattern.q is an integer, not 1.5"),
        ({"r": 8, "layers_to_transform": ["0"]}, "layers_to_transform is an integer, not '0'"),
        ({"target_modules": "q_proj["}, "'q_proj[' is not a valid regular expression"),
    ],
)
def test_a_configuration_that_is_none_is_told(config, message):
    with pytest.raises(PlacementError) as caught:
        explain(config, LLAMA)
    assert message in str(caught.value)


def test_a_file_that_is_none_is_told(tmp_path):
    file = tmp_path / "adapter_config.json"
    with pytest.raises(PlacementError, match="there is no LoRA configuration"):
        explain(tmp_path, LLAMA)
    for content, message in (
        ("[1]", "holds a list"),
        ("{", "cannot be read as a LoRA"),
        ("[" * 9999, "cannot be read"),
    ):
        file.write_text(content)
        with pytest.raises(PlacementError, match=message):
            explain(file, LLAMA)
    with pytest.raises(PlacementError, match=r"is a LoraConfig, its plain data, or the path"):
        explain(3, LLAMA)


def test_an_instance_of_a_model_says_more_than_its_name():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj"], layers_to_transform=[2])
    model = tiny_models.fresh("llama")
    assert lint(config, model) == []
    model.activation_checkpointing_enable()
    assert [each.code for each in lint(config, model)] == ["frozen-prefix-lost"]
    wrapped = get_peft_model(tiny_models.fresh("llama"), LoraConfig(target_modules=["v_proj"]))
    for instance in (wrapped, wrapped.get_base_model()):
        (found,) = lint(config, instance)
        assert found.code == "stacked-adapters"
        assert found.message.startswith("3 modules of this model hold adapters already")


def test_what_is_no_model_or_another_one_is_told():
    import torch

    with pytest.raises(ModelError, match="a model is a name, a folder, an anatomy, or an instant"):
        lint({"r": 8}, torch.nn.Linear(2, 2))
    model = tiny_models.fresh("llama")
    model.model.layers = model.model.layers[:1]
    with pytest.raises(ModelError, match=r"it has no model\.layers\.1\.self_attn\.q_proj"):
        lint({"r": 8}, model)
    with pytest.raises(NotYetError, match="a configuration with ensure_weight_tying"):
        lint({"r": 8, "ensure_weight_tying": True}, LLAMA)


def test_a_configuration_reads_from_every_form(tmp_path):
    from peft import LoraConfig

    config = LoraConfig(target_modules=["q_proj", "v_proj"], r=4)
    config.save_pretrained(tmp_path)
    data = json.loads((tmp_path / "adapter_config.json").read_text())
    forms = (config, data, tmp_path, tmp_path / "adapter_config.json", str(tmp_path))
    assert len({read_peft(form, LLAMA).digest for form in forms}) == 1
