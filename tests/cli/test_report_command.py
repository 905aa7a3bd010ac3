"""``loratlas report`` from the command line, on a run of the tiny study."""

import json


def test_a_run_its_audit_and_its_report(cli, refused, study_folder):
    run = study_folder / "run"
    assert cli("run", study_folder / "study.yaml", "--out", run).code == 0
    (run / "audit.json").write_text(json.dumps(cli("audit", run, "--json").json))

    said = cli("report", run, "--json")
    assert said.code == 0
    assert set(said.json) == {"study", "headline", "complete", "folder", "files"}
    assert said.json["folder"] == str(run / "report")
    assert said.json["complete"] is True
    there = [str(path.relative_to(run / "report")) for path in (run / "report").rglob("*.*")]
    assert sorted(there) == said.json["files"]
    assert {"index.html", "report.md", "tables.tex", "figures/audit.svg"} <= set(there)
    assert not [path for path in run.iterdir() if path.name.startswith(".report")]
    assert "labels_not_shifted" in (run / "report" / "report.md").read_text(encoding="utf-8")

    (run / "report" / "notes.txt").write_text("mine")
    assert refused("report", run) == (
        f"{run / 'report'}: holds notes.txt, which is of no report; "
        "give an empty or a new folder with --out"
    )
    out = study_folder / "elsewhere"
    assert cli("report", run, "--out", out).out.splitlines()[-1] == str(out / "index.html")


def test_a_folder_that_is_no_run_is_refused(refused, tmp_path):
    assert refused("report", tmp_path).endswith("no run here (run.sqlite is missing)")
