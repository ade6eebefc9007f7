"""Files of records: the shapes met in the wild, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vasekit import records, vases
from vasekit.cli import UserError
from vasekit.synth import world

ASKED = {"from": "human", "value": "<image>\n What is the fabric of the vase?"}
SAID = {"from": "gpt", "value": "The fabric of the vase is ATHENIAN."}
STRING = (
    "The Vase Number is 8375;The Fabric is ATHENIAN;The Technique is BLACK-FIGURE;"
    "The Shape Name is CUP LITTLE MASTER LIP;The Provenance is ;The Date is -550 to -500;"
    "The Attributed To is <em>Manner of</em> PHRYNOS P by GORBUNOVA;"
    "The Decoration is A: HERAKLES | B: YOUTH (?)"
)


def write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "names", "said"),
    [
        (  # the documented training form
            {"images": ["a/p.jpg"], "caption": "Attic bf cup.", "conversations": [ASKED, SAID]},
            ["a/p.jpg", "p"],
            {"fabric": "ATHENIAN", "technique": "black-figure", "shape": "kylix"},
        ),
        (  # its sibling: images is a text
            {"id": 0, "images": "images/X.jpg", "conversations": [ASKED, SAID]},
            ["images/x.jpg", "x"],
            {"fabric": "ATHENIAN"},
        ),
        (
            {"images": ["X.jpg"], "caption": "Attic cup; Vulci."},
            ["x.jpg", "x"],
            {"shape": "kylix", "provenance": "Vulci"},
        ),
        ({"images": ["X.jpg"], "caption": "Attic cup.", "data_by": "model"}, ["x.jpg", "x"], {"shape": "kylix"}),
        (
            {
                "response": "red-figure kylix.",
                "images": [{"path": "X.jpg", "bytes": None}],
                "messages": [{"role": "user", "content": "Describe this vase in one line."}],
            },
            ["x.jpg", "x"],
            {"technique": "red-figure", "shape": "kylix"},
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "<image>When was the vase made?"},
                    {"role": "assistant", "content": "It is dated to 500-475 BCE."},
                ]
            },
            [],
            {"date": "500-475 BCE"},
        ),
        (
            {"record": STRING, "image": "8375_1.jpg"},
            ["8375", "8375_1.jpg", "8375"],
            {
                "date": "-550 to -500",
                "attribution": "Manner of PHRYNOS P by GORBUNOVA",
                "decoration": "A: HERAKLES | B: YOUTH (?)",
            },
        ),
        ({"Image GUID": "A-1", "Shape Name": "CUP", "Licence": "CC0"}, ["a-1"], {"shape": "CUP", "licence": "CC0"}),
        ({"image": "x.jpg", "note": "no record"}, ["x.jpg", "x"], {}),
        ({"image": "x.jpg", "date": -500, "technique": None}, ["x.jpg", "x"], {"date": "-500"}),
    ],
)
def test_each_shape_is_read(row: dict, names: list[str], said: dict[str, str]) -> None:
    assert records.problem_in(row) is None
    assert records.names_in(row) == names
    stated = records.parse(row).stated()
    assert said.items() <= stated.items()
    assert bool(said) == bool(stated)


def test_a_field_of_its_own_counts_more_than_an_answer_and_an_answer_more_than_the_caption() -> None:
    row = {"fabric": "BOEOTIAN", "conversations": [ASKED, SAID], "caption": "Corinthian red-figure cup."}
    assert (records.parse(row).fabric, records.parse(row).technique) == ("BOEOTIAN", "red-figure")
    del row["fabric"]
    assert records.parse(row).fabric == "ATHENIAN"


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_an_export_of_the_built_in_world_is_read_whole(tmp_path: Path, suffix: str) -> None:
    rows = [world.record(world.vase_seed(5, k)) for k in range(20)]
    mark = "\t" if suffix == ".tsv" else ","
    lines = [mark.join(f'"{value}"' for value in row.values()) for row in rows]
    path = tmp_path / f"records{suffix}"
    path.write_text(
        "\ufeff" + "\r\n".join([mark.join(world.COLUMNS), *lines]), encoding="utf-8"
    )  # as a spreadsheet does
    assert records.read_rows(path) == rows


def test_record_strings_one_a_line(tmp_path: Path) -> None:
    (row, _) = records.read_rows(write(tmp_path / "records.txt", f"{STRING}\n\n{STRING}\n"))
    assert records.parse(row).normalised().shape == "little master cup"
    assert vases.record_string(STRING)["Vase Number"] == "8375"


JSONL = [
    # row, what is said of it
    ("[1]", "is a list, needs an object"),
    ('"text"', "is a text, needs an object"),
    ("7", "is a number, needs an object"),
    ("null", "is null, needs an object"),
    ("true", "is true or false, needs an object"),
    ("{", "not valid JSON"),
    ('{"a": }', "not valid JSON"),
    ('{"a": 1,}', "not valid JSON"),
    ("{'a': 1}", "not valid JSON"),
    ('{"a": 1} {"a": 2}', "not valid JSON"),
    ('{"image": "a.jpg', "not valid JSON"),
    ('{"date": NaN}', "NaN is no JSON value"),
    ('{"date": Infinity}', "Infinity is no JSON value"),
    ('{"fabric": "A", "fabric": "B"}', "the key 'fabric' is given twice"),
    ('{"fabric": ["A"]}', "fabric is a list, needs a text"),
    ('{"Shape Name": {"a": 1}}', "Shape Name is an object, needs a text"),
    ('{"technique": true}', "technique is true or false, needs a text"),
    ('{"Image GUID": ["a"]}', "Image GUID is a list, needs a text"),
    ('{"vase": {}}', "vase is an object, needs a text"),
    ('{"date": -525.5}', "date is -525.5, needs a text such as"),
    ('{"licence": ["CC0"]}', "licence is a list, needs a text"),
    ('{"images": 3}', "images holds a number, needs a file name"),
    ('{"images": [3]}', "images holds a number, needs a file name"),
    ('{"images": [null]}', "images holds null, needs a file name"),
    ('{"images": [["a.jpg"]]}', "images holds a list, needs a file name"),
    ('{"images": [""]}', "images holds an empty file name"),
    ('{"images": [{"bytes": "x"}]}', "images holds an object, needs a file name"),
    ('{"filename": true}', "filename holds true or false, needs a file name"),
    ('{"conversations": "text"}', "conversations is a text, needs a list of turns"),
    ('{"conversations": []}', "conversations is empty, needs a list of turns"),
    ('{"conversations": ["text"]}', "conversations, turn 1 is a text, needs {'from'"),
    ('{"conversations": [{"value": "x"}]}', "conversations, turn 1 lacks 'from'"),
    ('{"conversations": [{"from": "human"}]}', "conversations, turn 1 lacks 'value'"),
    ('{"conversations": [{"from": "me", "value": "x"}]}', "'from' is 'me', needs human or gpt"),
    ('{"conversations": [{"from": "human", "value": 1}]}', "'value' is a number, needs a text"),
    ('{"conversations": [{"from": "gpt", "value": "x"}]}', "conversations begins with an answer"),
    ('{"messages": {}}', "messages is an object, needs a list of turns"),
    ('{"messages": [{"role": "user"}]}', "messages, turn 1 lacks 'content'"),
    ('{"messages": [{"role": "me", "content": "x"}]}', "'role' is 'me', needs user or assistant"),
    ('{"messages": [{"role": "user", "content": null}]}', "'content' is null, needs a text"),
    ('{"messages": [{"role": "user", "content": "x"}, 5]}', "messages, turn 2 is a number"),
    ('{"caption": ["x"]}', "caption is a list, needs a text"),
    ('{"response": 5}', "response is a number, needs a text"),
    ('{"record": "Fabric: Attic"}', "record is no record string"),
    ('{"record": 5}', "record is no record string"),
]
TABLES = [
    ("csv", "Fabric,Date\nATHENIAN,-500,CUP\n", "line 2: 3 cells, the header has 2"),
    ("csv", 'Fabric,Date\nATHENIAN,-500\n"ATHENIAN,-500\n', "line 3: not valid CSV"),
    ("csv", "Fabric,fabric\nA,B\n", "line 1: two columns are called 'fabric'"),
    ("csv", "colour,size\nred,2\n", "line 1: no known column"),
    ("csv", "Fabric;Date\nATHENIAN;-500\n", "is it separated by tabs or semicolons?"),
    ("tsv", "Fabric,Date\nATHENIAN,-500\n", "is it separated by tabs or semicolons?"),
    ("csv", "Fabric\nATHE\0NIAN\n", "line 2: a NUL character"),
    ("txt", f"{STRING}\nThe fabric: Athenian\n", "line 2: record is no record string"),
    ("json", "{}", "needs a list of records, found an object"),
    ("json", '[\n{"a": 1},\n{"a": }]', "line 3, column 7: not valid JSON"),
    ("json", "[]", "holds no record"),
    ("csv", "", "holds no record"),
]


@pytest.mark.parametrize(("line", "said"), JSONL)
def test_a_malformed_row_is_named_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = write(tmp_path / "records.jsonl", f'{{"image": "a.jpg"}}\n\n{line}\n')
    with pytest.raises(UserError) as caught:
        records.read_rows(path)
    assert said in str(caught.value)
    assert "line 3" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "text", "said"), TABLES)
def test_a_malformed_table_is_named_with_its_line(tmp_path: Path, suffix: str, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        records.read_rows(write(tmp_path / f"records.{suffix}", text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_bytes("Fabric,Date\nATHENIAN,-500\nB\u00f6otisch,-500\n".encode("latin-1"))
    with pytest.raises(UserError, match="line 3: not UTF-8"):
        records.read_rows(tmp_path / "records.csv")


def test_several_malformed_rows_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "records.json", [{"fabric": []}, {"fabric": "A"}, {"images": 1}, 5])
    with pytest.raises(UserError, match=r"row 1: fabric is a list, needs a text \(and 2 more: row 3, row 4\)"):
        records.read_rows(path)
