"""The demo's bookkeeping: done once, redone when something changed, and a failure that shows its log."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from filter_entry import picture

from vasekit.cli import UserError
from vasekit.demo import page, report, steps
from vasekit.demo.__main__ import steps as chain
from vasekit.demo.steps import Runner, Step


@pytest.fixture(autouse=True)
def same_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "source_digest", lambda: "sources")


def step(folder: Path, name: str, code: str) -> Step:
    return Step(name, name, [sys.executable, "-c", code], [folder / name])


def write(path: Path, text: str) -> str:
    return f"open({str(path)!r}, 'a').write({text!r}); print('{text} written')"


def test_steps_run_once_and_again_when_an_earlier_one_changes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = (step(tmp_path, name, write(tmp_path / name, name)) for name in ("one", "two"))
    Runner(tmp_path).run([first, second])
    assert "one written" in capsys.readouterr().out
    Runner(tmp_path).run([first, second])
    assert capsys.readouterr().out.count("done before") == 2
    changed = step(tmp_path, "one", write(tmp_path / "one", "uno"))
    Runner(tmp_path).run([changed, second])
    assert (tmp_path / "one").read_text() == "uno"
    assert (tmp_path / "two").read_text() == "two"  # removed, then written once more


def test_an_interrupted_step_keeps_its_output_to_go_on_from(tmp_path: Path) -> None:
    code = f"p={str(tmp_path / 'one')!r}; open(p, 'a').write('x'); import sys; sys.exit(len(open(p).read()) < 2)"
    with pytest.raises(UserError, match="ended with status 1"):
        Runner(tmp_path).run([step(tmp_path, "one", code)])
    Runner(tmp_path).run([step(tmp_path, "one", code)])
    assert (tmp_path / "one").read_text() == "xx"


def test_a_failure_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the reason") as caught:
        Runner(tmp_path).run([step(tmp_path, "one", "import sys; sys.exit('the reason')")])
    assert "one.log" in str(caught.value)


def test_every_step_of_the_chain_has_a_name_of_its_own_and_uses_existing_scripts(tmp_path: Path) -> None:
    made = chain(tmp_path)
    assert len({s.name for s in made}) == len(made)
    for s in made:
        for word in s.command:
            if str(word).endswith((".py", ".sh")):
                assert Path(word).is_file()


def test_the_page_is_one_file_without_addresses(tmp_path: Path) -> None:
    photo = picture(tmp_path / "p.jpg")
    sections = [
        ("Table", page.table(("measure", "value"), [("a <b>", "0.5")])),
        ("Pictures", page.gallery([page.Picture(photo, (page.mark_up("right & good", True),), "good")])),
        ("Curve", page.curve("loss", [(1, 2.0), (2, 1.0)]) + page.curve("empty", [])),
    ]
    page.write(tmp_path / "index.html", "Title", sections)
    text = (tmp_path / "index.html").read_text()
    assert "a &lt;b&gt;" in text
    assert "right &amp; good" in text
    assert "data:image/jpeg;base64," in text
    assert "polyline" in text
    assert "http" not in text


def test_the_table_names_every_measure() -> None:
    assert {"classifier.balanced_accuracy", "filter.auc_damage", "view.top1", "sft.shape"} <= report.MEASURES.keys()
    wanted = ("reward_before", "reward_after", "exact_before", "exact_after", "exact_gain")
    assert {f"grpo.{name}" for name in wanted} <= report.MEASURES.keys()
