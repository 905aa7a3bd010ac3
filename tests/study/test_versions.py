import pytest

from loratlas.errors import RunFolderError
from loratlas.study.options import RunOptions
from loratlas.study.progress import Silent
from loratlas.study.run import run_study
from loratlas.study.spec import load_study

BESIDE = RunOptions(probe=False, new_version=True)


@pytest.fixture
def run(study_folder):
    """Runs the study with a rank of its own into one folder."""
    original = (study_folder / "study.yaml").read_text()

    def call(rank, options):
        file = study_folder / "study.yaml"
        file.write_text(original.replace("rank: 2", f"rank: {rank}"))
        return run_study(load_study(file), study_folder / "run", Silent(), options)

    return call


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_changed_study_begins_beside_the_old_one(run, study_folder):
    first = run(2, RunOptions(probe=False))
    assert first == study_folder / "run"
    before = contents(first)
    with pytest.raises(RunFolderError, match=r"lora.rank was 2, now 3.*--new-version"):
        run(3, RunOptions(probe=False))
    assert run(3, BESIDE) == study_folder / "run-v2"
    assert contents(first) == before
    assert run(1, BESIDE) == study_folder / "run-v3"


def test_a_version_that_is_there_goes_on(run, study_folder):
    """Told to begin a new version where none is needed, the one that fits is taken."""
    run(2, RunOptions(probe=False))
    run(3, BESIDE)
    assert run(3, BESIDE) == study_folder / "run-v2"
    assert run(2, BESIDE) == study_folder / "run"
    assert not (study_folder / "run-v3").exists()


def test_a_folder_that_holds_no_run_is_no_version(run, study_folder):
    run(2, RunOptions(probe=False))
    (study_folder / "run-v2").mkdir()
    (study_folder / "run-v2" / "letter.txt").write_text("dear")
    with pytest.raises(RunFolderError, match="run-v2: holds files that are no run"):
        run(3, BESIDE)
