from dataclasses import fields as fields_of
from typing import Any

import pytest

from loratlas.data.spec import DataSpec
from loratlas.placement.placement import LoraSpec
from loratlas.study.fields import (
    VERSION,
    DataFields,
    LoraFields,
    StudyFields,
    TrainingFields,
    schema,
)
from loratlas.train.trial import TrainingSpec


@pytest.mark.parametrize(
    ("model", "spec"),
    [(TrainingFields, TrainingSpec), (LoraFields, LoraSpec)],
)
def test_sections_have_the_keys_and_defaults_of_their_specs(model: type, spec: type):
    assert set(model.model_fields) == {field.name for field in fields_of(spec)}
    written = model().model_dump()
    for field in fields_of(spec):
        value = written[field.name]
        assert (tuple(value) if isinstance(value, list) else value) == getattr(spec(), field.name)


def test_data_has_the_keys_and_defaults_of_its_spec():
    assert {*DataFields.model_fields, "files"} == {field.name for field in fields_of(DataSpec)}
    read = DataFields(source="a", format="text").model_dump()
    spec = DataSpec(source="a", format="text")
    assert all(getattr(spec, key) == value for key, value in read.items())


def sections() -> list[dict[str, Any]]:
    described = schema()
    return [described, *described["$defs"].values()]


def test_every_field_of_the_schema_is_described():
    for section in sections():
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            assert field.get("description") or "$ref" in field, name


def test_the_schema_says_what_is_needed_and_what_is_assumed():
    described = schema()
    assert described["required"] == ["name", "model", "data", "placements"]
    properties = described["properties"]
    assert properties["seeds"]["default"] == 6
    assert properties["match"]["enum"] == ["parameters", "none"]
    assert properties["version"]["const"] == VERSION == StudyFields.model_fields["version"].default
    assert described["$defs"]["LoraFields"]["properties"]["rank"]["minimum"] == 1
    assert described["$defs"]["DataFields"]["required"] == ["source", "format"]


def test_a_key_without_a_default_has_none_in_the_schema():
    assert "default" not in schema()["properties"]["baseline"]
    assert "default" not in schema()["$defs"]["RuleFields"]["properties"]["rank"]
