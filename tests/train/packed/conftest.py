import pytest
from packed_cases import case_of


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    return case_of("gpt2", tmp_path_factory.mktemp("packed-gpt2"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    return case_of("llama", tmp_path_factory.mktemp("packed-llama"))


@pytest.fixture(scope="session")
def roberta(tmp_path_factory):
    return case_of("roberta", tmp_path_factory.mktemp("packed-roberta"))


@pytest.fixture(scope="session")
def mixtral(tmp_path_factory):
    return case_of("mixtral", tmp_path_factory.mktemp("packed-mixtral"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    return case_of("t5", tmp_path_factory.mktemp("packed-t5"))
