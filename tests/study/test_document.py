from pathlib import Path

import pytest

from loratlas.errors import StudyError
from loratlas.study.document import MAX_BYTES, dotted, parse_document, read_document

PATH = Path("study.yaml")


def refused(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_document(text, PATH)
    return str(caught.value)


def test_yaml_1_2_values():
    text = "a: 1e-4\nb: no\nc: 010\nd: 2024-01-01\ne: '8'\nf: ~\ng: [true, 0x1F, x]\n16: on\n"
    assert parse_document(text, PATH).data == {
        "a": 1e-4,
        "b": "no",
        "c": 10,
        "d": "2024-01-01",
        "e": "8",
        "f": None,
        "g": [True, 31, "x"],
        "16": "on",
    }


def test_lines_and_spelling_of_values():
    document = parse_document('a:\n  b: 0.50\n  c: "8"\nd:\n  - 1\n  - {e: x}\n', PATH)
    assert document.line(("a", "b")) == 2
    assert document.shown(("a", "b")) == "0.50"
    assert document.shown(("a", "c")) == '"8"'
    assert document.line(("d",)) == 4
    assert document.line(("d", 1, "e")) == 6
    assert document.shown(("d", 1)) == "a mapping"
    assert document.line(("a", "missing", 3)) == 1
    assert document.line(()) == 1


def test_dotted_locations():
    assert dotted(("training", "learning_rate", 1)) == "training.learning_rate[1]"
    assert dotted(("placements", "a\x1b[31m")) == "placements.a\\x1b[31m"


def test_a_key_given_twice_is_a_problem_and_the_first_stays():
    document = parse_document("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", PATH)
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert [str(problem) for problem in document.problems] == [
        "4: b.c: this key is given twice (first on line 3)",
        "5: a: this key is given twice (first on line 1)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml:1: the file is empty; a study file begins with `name: ...`"),
        ("# only a comment\n", "study.yaml:1: the file is empty; a study file begins with"),
        ("- a\n", "study.yaml:1: the file holds a list; a study file is a mapping"),
        ("\n\nword\n", "study.yaml:3: the file holds word; a study file is a mapping"),
        ("a:\n\t- 1\n", "study.yaml:2: cannot be read as YAML: a tab stands where spaces"),
        ("a: 1\nb: c: d\n", "study.yaml:2: cannot be read as YAML: a second `: ` stands in one"),
        ("x: 1\na: [1,\nb: 2\n", "study.yaml:2: cannot be read as YAML: a bracket or a quotation"),
        ('x: 1\na: "1\nb: 2\n', "study.yaml:2: cannot be read as YAML: a bracket or a quotation"),
        ("a: 1\n---\nb: 2\n", "study.yaml:2: cannot be read as YAML: a second document begins"),
        ("a: 1\nb: @x\n", "study.yaml:2: cannot be read as YAML: found character '@' that cannot"),
        ("a: 1\nb: \x00\n", "study.yaml:2: holds a control character, which YAML refuses"),
        ("%YAML 1.1\n---\na: no\n", "study.yaml:2: directives (%) are not read"),
        ("a: 1\nb: !!python/object:os.system x\n", "study.yaml:2: tags (!) are not read"),
        ("a: &x [1]\nb: *x\n", "study.yaml:1: anchors (&) and aliases (*) are not read"),
        ("a: 1\nb: *x\n", "study.yaml:2: anchors (&) and aliases (*) are not read"),
        ("a: 1\nb: " + "[" * 5000, "study.yaml:2: nested deeper than any study"),
    ],
)
def test_what_is_no_study_file_at_all(text: str, message: str):
    assert refused(text).startswith(message)


def test_an_alias_bomb_is_refused_before_it_grows():
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    assert refused("\n".join(lines)).startswith("study.yaml:1: anchors")


@pytest.mark.parametrize("text", ["? [a]\n: b\n", ": 3\n", "? {a: 1}\n: b\n"])
def test_a_key_is_one_word(text: str):
    (problem,) = parse_document(text, PATH).problems
    assert problem.text.endswith("stands where a key is needed")


def test_a_number_of_thousands_of_digits_is_a_problem():
    (problem,) = parse_document(f"a: {'9' * 5000}\n", PATH).problems
    assert (problem.key, problem.line) == ("a", 1)
    assert problem.text.endswith("... cannot be read as a number")
    assert len(problem.text) < 100


def test_byte_order_marks(tmp_path: Path):
    file = tmp_path / "study.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    assert read_document(file).data == {"a": 1, "b": 2}
    for encoding in ("utf-16", "utf-16-be"):
        file.write_bytes("\ufeffa: 1\n".encode(encoding))
        with pytest.raises(StudyError, match=r"study\.yaml:1: the file is UTF-16; save it as"):
            read_document(file)


def test_latin_1_is_refused_with_its_line(tmp_path: Path):
    file = tmp_path / "study.yaml"
    file.write_bytes("a: 1\nb: é\n".encode("latin-1"))
    with pytest.raises(StudyError, match=r"study\.yaml:2: the file is not UTF-8; save it as"):
        read_document(file)


def test_a_missing_file_names_the_nearest(tmp_path: Path):
    (tmp_path / "facts.yaml").touch()
    with pytest.raises(StudyError, match=r"fact\.yaml: there is no such file \(did you mean facts"):
        read_document(tmp_path / "fact.yaml")
    with pytest.raises(StudyError, match=r"no such file; in that folder: facts\.yaml"):
        read_document(tmp_path / "zzzzzzzzzzzz")
    with pytest.raises(StudyError, match="nowhere does not exist"):
        read_document(tmp_path / "nowhere" / "study.yaml")


def test_what_is_no_file(tmp_path: Path):
    (tmp_path / "one.yml").touch()
    with pytest.raises(StudyError, match=r"is a folder; give the study file itself; in that fold"):
        read_document(tmp_path)
    with pytest.raises(StudyError, match=r"no such file|cannot be read"):
        read_document(tmp_path / "a\x00b")
    with pytest.raises(StudyError, match=r"no such file|cannot be read"):
        read_document(tmp_path / ("x" * 300))
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(StudyError, match="is larger than 1000000 bytes"):
        read_document(large)
