"""A fixture for each family of models: its case, made once."""

import pytest
from packed_cases import case_of


def _case(family):
    @pytest.fixture(scope="session", name=family)
    def case(tmp_path_factory):
        return case_of(family, tmp_path_factory.mktemp(f"packed-{family}"))

    return case


for _family in ("gpt2", "llama", "roberta", "mixtral", "t5"):
    globals()[f"case_of_{_family}"] = _case(_family)
