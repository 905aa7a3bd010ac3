"""Everything in a run folder lies in it: nothing is read or written through a link out of it."""

from contextlib import closing

import pytest

from loratlas.cli.main import main
from loratlas.errors import RunFolderError
from loratlas.study.audit_run import Asked, audit_run
from loratlas.study.folder import open_run
from loratlas.study.inside import adapter_fault, refuse_links_out
from loratlas.study.lock import only_controller

from .conftest import ADAPTER, Said, fill

NAMES = [
    "study.yaml",
    "study.yaml.partial",
    "run.sqlite",
    "run.sqlite.new",
    "run.log",
    "run.lock",
    "audit.json",
    "adapters",
    "adapters/another",
    f"{ADAPTER}/adapter_model.safetensors",
    "checkpoints",
    "checkpoints/pack-0001/step-00001",
    "prefix",
    "tracking",
    "tracking/wandb",
    "report",
]


@pytest.fixture
def outside(tmp_path):
    """A file and a folder of a person that have nothing to do with the run."""
    folder = tmp_path / "of-a-person"
    folder.mkdir()
    (folder / "file").write_text("precious")
    return folder


def put_link(run, name, to):
    place = run / name
    if place.is_dir():
        place.rename(run.parent / "moved")
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to)


def refused(run, name):
    return (
        f"{run}: {name} is a link that leads out of the run folder; nothing is read or written "
        "through it (the run folder itself may be a link)"
    )


@pytest.mark.parametrize("to", ["file", ".", "missing"])
@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_not_held_through_a_link(tmp_path, outside, name, to):
    run = fill(tmp_path / "run")
    put_link(run, name, outside / to)
    with pytest.raises(RunFolderError) as caught, only_controller(run):
        pass
    assert str(caught.value) == refused(run, name)
    assert [(file.name, file.read_text()) for file in outside.iterdir()] == [("file", "precious")]


def test_links_inside_are_followed(run_folder, tmp_path):
    (run_folder / "latest").symlink_to(ADAPTER)
    (run_folder / "tracking" / "wandb" / "wandb").mkdir(parents=True)
    (run_folder / "tracking" / "wandb" / "wandb" / "debug.log").symlink_to("/nowhere/of/wandb")
    (tmp_path / "link").symlink_to(run_folder)
    refuse_links_out(run_folder)
    with only_controller(tmp_path / "link"):
        pass


@pytest.mark.parametrize("name", ["study.yaml", "audit.json"])
def test_a_report_shows_nothing_from_elsewhere(run_folder, outside, capsys, name):
    put_link(run_folder, name, outside / "file")
    with pytest.raises(SystemExit) as end:
        main(["report", str(run_folder)])
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"loratlas: {refused(run_folder, name)}\n")
    assert not (run_folder / "report").exists()


@pytest.mark.parametrize("verb", ["status", "results", "recommend", "audit"])
@pytest.mark.parametrize("name", ["run.sqlite", "adapters", ADAPTER])
def test_no_verb_reads_through_a_link(run_folder, outside, capsys, verb, name):
    put_link(run_folder, name, outside / "file")
    with pytest.raises(SystemExit) as end:
        main([verb, str(run_folder)])
    assert end.value.code == 2
    assert capsys.readouterr() == ("", f"loratlas: {refused(run_folder, name)}\n")


@pytest.mark.parametrize("adapter", ["../run-of-another", "/tmp", "adapters/../../x", ".."])
def test_the_store_may_not_name_an_adapter_elsewhere(make, tmp_path, adapter):
    run = make(adapter=adapter)
    (run / adapter).mkdir(parents=True, exist_ok=True)
    if adapter != "/tmp":
        (run / adapter / "adapter_config.json").write_text("{}")
        (run / adapter / "adapter_model.safetensors").touch()
    said = f"its adapter is not in the run folder ({adapter})"
    assert adapter_fault(run, adapter) == said
    with closing(open_run(run)) as store, pytest.raises(RunFolderError) as caught:
        audit_run(run, store, Asked(), Said())
    assert str(caught.value).endswith(said)
