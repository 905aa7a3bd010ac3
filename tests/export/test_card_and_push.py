"""What a model card states, and how an export comes onto the hub."""

import shutil
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from loratlas.errors import ExportError, WorkError
from loratlas.export.card import plain
from loratlas.export.write import export
from loratlas.study.folder import FILE_NAME, open_run
from loratlas.study.store import Store
from made_runs import make_run


class Hub:
    """What `HfApi` would be asked, kept; a repository is a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.made: list[dict] = []

    def create_repo(self, repo_id, **options):
        self.made.append({"repo_id": repo_id, **options})
        return SimpleNamespace(repo_id=f"ada/{repo_id}", __str__=lambda: "")

    def upload_folder(self, *, repo_id, folder_path, commit_message, repo_type):
        assert repo_type == "model"
        self.message = commit_message
        shutil.copytree(folder_path, self.place / repo_id)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_folder):
    return make_run(
        tmp_path_factory.mktemp("made") / "run",
        str(tiny_folder),
        "attention:2 + feed_forward.up:4",
        seeds=(0, 1, 2),
    )


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def exported(run, target, **options):
    with closing(open_run(run)) as store:
        return export(run, store, "placed:1", target, **options)


def test_the_card_states_placement_evidence_and_digest(run, tmp_path):
    found = exported(run, "uniform", out=tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    store = Store(run / FILE_NAME)
    placement = store.placements()[0]
    for said in (
        "# placed, seed 1",
        f"{placement.trainable_parameters:,} trainable parameters at {len(placement.adapters)}",
        "| attention.qkv | 3 | 2 |",
        "| feed_forward.up | 3 | 4 |",
        "padded with zeros to rank 4",
        "Loss 1.99",
        "95% interval",
        "the mean of 3 seeds; these weights are one of them",
        "This is the baseline",
        "Learning rate 0.003, seed 1, data rows.jsonl",
        f"`{placement.digest}`",
        f"`{found['trial']}`",
        f"`{store.meta('identity')['base']}`",
        "The licences of both apply; none is\ngranted here",
    ):
        assert said in text, text
    head = yaml.safe_load(text.split("---")[1])
    # A folder on this machine is no model of the hub, and its path is nobody's business.
    assert head == {"library_name": "peft", "tags": ["lora", "loratlas"]}
    assert str(tmp_path) not in text


def test_a_base_of_the_hub_is_named_so_that_the_hub_links_it(run, tmp_path):
    with closing(Store(run / FILE_NAME, writable=True)) as store:
        study = store.meta("study")
        model = {**study["model"], "name": "ada/tiny", "revision": "abc"}
        store.set_meta("study", study | {"model": model})
    exported(run, "peft", out=tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "ada/tiny"
    assert "Its base is ada/tiny, revision abc." in text


def test_free_text_cannot_write_markdown_or_html():
    assert plain("a\nb | <script> [x](y) `c` {{ d }}") == (
        r"a b \| \<script\> \[x\](y) \`c\` \{\{ d \}\}"
    )


def test_a_push_makes_a_private_repository_and_uploads_what_was_written(run, tmp_path):
    hub = Hub(tmp_path)
    found = exported(run, "peft", out=tmp_path / "out", repository="tiny-lora", api=hub)
    assert hub.made == [
        {"repo_id": "tiny-lora", "private": True, "exist_ok": True, "repo_type": "model"}
    ]
    assert found["pushed_to"]
    names = sorted(path.name for path in (tmp_path / "ada/tiny-lora").iterdir())
    assert names == found["files"]
    assert hub.message == "placed, seed 1, exported by loratlas"


def test_of_a_served_export_the_adapter_is_pushed(run, tmp_path):
    exported(run, "vllm", out=tmp_path / "out", repository="x", api=Hub(tmp_path))
    names = sorted(path.name for path in (tmp_path / "ada/x").iterdir())
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


def test_a_hub_that_refuses_is_one_sentence_without_the_token(run, tmp_path):
    class Refusing(Hub):
        def create_repo(self, *_given, **_options):
            raise RuntimeError("401: Invalid token hf_abcdefghijklmnop\nmore")

    with pytest.raises(WorkError) as caught:
        exported(run, "peft", out=tmp_path / "out", repository="a/b", api=Refusing(tmp_path))
    assert str(caught.value) == (
        f"a/b: not uploaded: 401: Invalid token ***; what was exported is in {tmp_path / 'out'}"
    )
    assert (tmp_path / "out/adapter_config.json").is_file()


def test_a_name_that_no_repository_has_is_refused_first(run, tmp_path):
    for name in ("", "a/b/c", "../x", "a b", "-x", "a--b", "x" * 99):
        with pytest.raises(ExportError, match="a repository is NAME or OWNER/NAME"):
            exported(run, "peft", out=tmp_path / "out", repository=name)
    assert not (tmp_path / "out").exists()


def test_a_configuration_is_not_pushed(run, tmp_path):
    with pytest.raises(ExportError, match="--push: trl is a configuration, without weights; use"):
        exported(run, "trl", out=tmp_path / "out", repository="a/b")


def test_the_call_is_one_that_huggingface_hub_has():
    import inspect

    from huggingface_hub import HfApi

    asked = {
        HfApi.create_repo: {"repo_id", "private", "exist_ok", "repo_type"},
        HfApi.upload_folder: {"repo_id", "folder_path", "commit_message", "repo_type"},
    }
    for call, names in asked.items():
        assert names <= inspect.signature(call).parameters.keys()
