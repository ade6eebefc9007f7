"""The reward: truth wins, tricks do not pay."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasekit import cli, encoders, questions, rewards, vases
from vasekit.cli import UserError
from vasekit.synth import world
from vasekit.vases import VaseRecord

RECORD = VaseRecord(
    fabric="Athenian",
    technique="black-figure",
    shape="neck-amphora",
    date="525-500 BCE",
    decoration="A: HERAKLES AND THE LION",
    attribution="ANTIMENES P by BEAZLEY",
).normalised()
TRUTH = "Athenian black-figure neck-amphora, 525-500 BCE, Herakles and the lion, Antimenes Painter."
BASE = "Athenian black-figure neck-amphora, 525-500 BCE, Herakles and the lion."


def test_the_truth_earns_all_in_any_spelling_and_order() -> None:
    assert rewards.total(TRUTH, RECORD) == pytest.approx(1)
    for other in (
        TRUTH.replace("Athenian black-figure", "Black figure Attic"),
        TRUTH.replace("525-500 BCE", "c. 525\u2013500 BC"),
        TRUTH.replace("Herakles and the lion", "the lion and Herakles"),
    ):
        assert rewards.total(other, RECORD) == pytest.approx(1)


@pytest.mark.parametrize(
    "trick",
    [
        "",
        "What is the overall description of the vase?",
        "The fabric of the vase is. The technique of the vase is. The date of the vase is.",
        "Athenian black-figure red-figure white-ground amphora krater lekythos kylix hydria, -1000 to 0, "
        "Herakles lion warrior horse owl ship youth satyr maenad",
        " ".join([BASE] * 10),
        "Athenian red-figure lekythos, 425-400 BCE, a woman with a mirror.",
        "\u0391\u03b8\u03b7\u03bd\u03b1\u03ca\u03ba\u03cc\u03c2 \u03b1\u03bc\u03c6\u03bf\u03c1\u03ad\u03b1\u03c2",
    ],
    ids=["empty", "question", "template", "keywords", "repeated", "wrong", "greek"],
)
def test_tricks_earn_clearly_less_than_an_honest_caption(trick: str) -> None:
    assert rewards.total(trick, RECORD) < rewards.total(BASE, RECORD) - 0.1


def test_wrong_technique_earns_nothing_although_most_letters_agree() -> None:
    # A keyword Jaccard pays BLACK-FIGURE 0.23 for RED-FIGURE.
    assert rewards.score_fields("Athenian red-figure neck-amphora.", RECORD)["technique"] == 0


def test_two_claims_at_once_are_no_answer() -> None:
    scores = rewards.score_fields("Athenian black-figure red-figure neck-amphora krater.", RECORD)
    assert scores["technique"] == scores["shape"] == 0


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        ("525-500 BCE", 1, 1),
        ("-1000 to 0", 0, 0.03),  # 1.0 where only the true span is covered
        ("550-500 BCE", 0.5, 0.55),
        ("510 BCE", 0.03, 0.05),
        ("450-425 BCE", 0, 0),
        ("no date", 0, 0),
    ],
)
def test_dates_pay_neither_wide_nor_narrow_spans(said: str, low: float, high: float) -> None:
    assert low <= rewards.date_score(said, "525-500 BCE") <= high


def test_single_years_are_well_defined() -> None:
    assert rewards.date_score("480 BCE", "480 BCE") == 1  # not 0 by division of a zero span
    assert rewards.date_score("481 BCE", "480 BCE") == 0


def test_a_near_shape_earns_part() -> None:
    shapes = ("neck-amphora", "amphora", "belly-amphora", "pelike", "krater")
    near = [rewards.shape_score(shape, "neck-amphora") for shape in shapes]
    assert near == sorted(near, reverse=True)
    assert near[0] == 1
    assert near[-1] == 0
    assert len(set(near)) == len(near)


def test_fields_that_the_record_lacks_do_not_count() -> None:
    lean = VaseRecord(technique="red-figure", shape="kylix")
    assert rewards.total("red-figure kylix.", lean) == pytest.approx(1)
    assert rewards.score_fields("red-figure kylix.", lean)["date"] is None
    assert rewards.total("anything", VaseRecord()) == 0


@given(st.text(max_size=300))
def test_any_text_scores_between_nothing_and_the_truth(text: str) -> None:
    assert 0 <= rewards.total(text, RECORD) <= rewards.total(TRUTH, RECORD)


@given(st.permutations(["herakles", "lion", "athena", "boar"]))
def test_order_of_figures_does_not_matter(figures: list[str]) -> None:
    assert rewards.figures_score(", ".join(figures), "Herakles, lion, Athena, boar") == 1


# ---- the known traps: what the published behaviour pays, and what this one does ----


def test_a_wrong_technique_is_not_paid_for_its_letters() -> None:
    # A keyword Jaccard gives BLACK-FIGURE .23 for RED-FIGURE.
    assert rewards.term_score("technique", "BLACK-FIGURE", "RED-FIGURE") == 0


@pytest.mark.parametrize("spelling", ["c. 525-475 BCE", "525\u2013475 BC", "-525 to -475", "525-475 B.C."])
def test_a_right_date_in_another_spelling_is_right(spelling: str) -> None:
    # Published: .7 of 4.5; with an en dash it parses to [-475, 525].
    assert rewards.date_score(spelling, "-525 to -475") == 1


def test_a_span_that_covers_everything_is_no_date() -> None:
    # Published: 1.0, the overlap over the true span alone.
    assert rewards.date_score("-1000 to 0", "-525 to -475") == pytest.approx(51 / 1001)
    # Published: 0, by division of a span of zero years.
    assert rewards.date_score("480 BCE", "-480") == 1


def test_below_the_threshold_better_still_earns_more() -> None:
    # A hard gate makes such a group equal: no advantage, nothing learnt.
    said = [f"vase, {first}-500 BCE." for first in (1000, 800, 700, 600)]
    hard = dataclasses.replace(rewards.STRICT, gate="hard")
    target = VaseRecord(date="525-500 BCE")
    assert {hard.score(text, target).total for text in said} == {0}
    soft = [rewards.STRICT.score(text, target).total for text in said]
    assert soft == sorted(set(soft))


def test_a_penalty_shows_below_the_ceiling() -> None:
    # With the bonus for form added before the clip at 1, a repeated truth earns as much as the truth.
    twice = f"{BASE} {BASE} {BASE}"
    published = dataclasses.replace(rewards.STRICT, structure_weight=0.3)
    assert published.score(twice, RECORD).bonus > 0
    assert rewards.total(twice, RECORD) < rewards.total(BASE, RECORD) - 0.05


def test_template_words_earn_nothing() -> None:
    # A whole-sentence ANLS pays the words of the template.
    said = " ".join(questions.ANSWERS[field][1].format("") for field in questions.FIELDS)
    scored = rewards.STRICT.score(said, RECORD)
    assert scored.total == 0
    assert not any(scored.parts.values())


def test_figures_and_names_count_not_characters() -> None:
    assert rewards.figures_score("two horses and a youth", "A: YOUTH | B: TWO HORSE") == 1
    assert rewards.figures_score("houses and a south", "A: YOUTH | B: HORSE") == 0
    assert rewards.name_score("the Berlin Painter", "BERLIN P by BEAZLEY") == 1
    assert rewards.name_score("Manner of BERLIN P", "BERLIN P") == rewards.OTHER_QUALIFIER
    assert rewards.name_score("the Dublin Painter", "BERLIN P") == 0


def test_all_painters_at_once_are_no_attribution() -> None:
    record = VaseRecord(technique="red-figure", attribution="BERLIN P")
    every = "red-figure vase, by the Berlin Painter, by Douris, by the Pan Painter."
    assert rewards.score_fields(every, record)["attribution"] == 0


def test_a_target_without_words_is_no_target() -> None:
    record = VaseRecord(fabric="-", shape="?", decoration="SCENE", attribution="?", technique="red-figure")
    assert [name for name, value in rewards.score_fields("", record).items() if value is not None] == ["technique"]
    assert rewards.total("", record) == 0


def test_unknown_words_stuffed_together_earn_little() -> None:
    stuffed = "Athenian red-figure epinetron kothon thymiaterion phormiskos bowl lid fragment."
    assert rewards.score_fields(stuffed, VaseRecord(shape="thymiaterion"))["shape"] < 0.3


def test_a_group_is_not_its_painter() -> None:
    assert rewards.name_score("the Haimon Painter", "HAIMON GROUP") == rewards.OTHER_QUALIFIER


def test_a_word_that_the_vocabulary_lacks_can_be_right() -> None:
    record = VaseRecord(fabric="Athenian", technique="black-figure", shape="thymiaterion")
    assert rewards.total("Athenian black-figure thymiaterion.", record) == 1
    assert rewards.score_fields("Athenian black-figure kylix.", record)["shape"] == 0


# ---- properties ----

VALUES = {
    "technique": ("black-figure", "red-figure", "white-ground"),
    "shape": ("neck-amphora", "kylix", "bell-krater"),
    "fabric": ("Athenian", "Corinthian"),
}
TAILS = ("525-500 BCE", "450 BCE", "Herakles and the lion", "a ship", "by the Antimenes Painter", "by Douris")
FALSE = (
    ", red-figure",
    ", kylix",
    ", a satyr and two maenads",
    ", Corinthian",
    ", 450-400 BCE",
    ", by Exekias",
    ", attributed to the Berlin Painter",
    " with a satyr",
    "; found at Gela",
    "; red-figure hydria, 400 BCE, by Exekias",
    ". The technique of the vase is white-ground.",
    ". It shows a chimaera.",
    " by Lydos",
    " 450 BCE",
    " | a goat",
    ", near Exekias",
    ". The date of the vase is 400 BCE.",
    ". The attribution of the vase is Douris.",
    ". The shape name of the vase is kylix.",
)


@st.composite
def answers(draw: st.DrawFn) -> str:
    """A caption of some right and some wrong values, in any order of its parts."""
    words = [draw(st.sampled_from(("", *values))) for values in VALUES.values()]
    tails = draw(st.lists(st.sampled_from(TAILS), max_size=4, unique=True))
    return ", ".join([" ".join(filter(None, words)) or "vase", *tails])


@st.composite
def targets(draw: st.DrawFn) -> VaseRecord:
    """A record that is silent about some fields."""
    kept = draw(st.sets(st.sampled_from(list(rewards.WEIGHTS)), min_size=1))
    return VaseRecord(**{name: getattr(RECORD, name) for name in kept})


@settings(max_examples=500, deadline=None)
@given(answers(), targets(), st.lists(st.sampled_from(FALSE), min_size=1, max_size=3))
def test_adding_a_false_claim_never_pays(answer: str, target: VaseRecord, false: list[str]) -> None:
    assert rewards.total(answer + "".join(false), target) <= rewards.total(answer, target) + 1e-12


@settings(max_examples=300, deadline=None)
@given(answers(), targets(), st.sampled_from(FALSE), st.sampled_from((", ", " ", ". ", "; ")))
def test_saying_a_false_claim_first_never_pays(answer: str, target: VaseRecord, false: str, mark: str) -> None:
    assert rewards.total(false.strip(" ,;.|") + mark + answer, target) <= rewards.total(answer, target) + 1e-12


@given(answers(), targets())
def test_the_truth_earns_most(answer: str, target: VaseRecord) -> None:
    assert rewards.total(vases.caption(target), target) == pytest.approx(1)
    assert 0 <= rewards.total(answer, target) <= 1


@given(st.text(max_size=200), targets())
def test_every_part_of_any_text_is_bounded(text: str, target: VaseRecord) -> None:
    scored = rewards.STRICT.score(text, target)
    assert all(0 <= value <= 1 for value in scored.parts.values() if value is not None)
    assert all((value is None) == (not getattr(target, name)) for name, value in scored.parts.items())
    assert 0 <= scored.penalty <= 0.35


def test_the_truth_of_300_records_earns_all() -> None:
    for k in range(300):
        record = vases.parse_record(world.record(world.vase_seed(13, k))).normalised()
        if any(getattr(record, name) for name in rewards.WEIGHTS):
            assert rewards.total(vases.caption(record), record) == 1, vases.caption(record)


# ---- presets ----


def letters(texts: list[str]) -> np.ndarray:
    """A sentence encoder for tests: counts of letters, unit length."""
    counts = np.array([[text.lower().count(chr(code)) + 1e-6 for code in range(97, 123)] for text in texts], float)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_the_paper_to_the_letter() -> None:
    reward = rewards.paper(letters)
    scored = reward.score(BASE, RECORD)
    mean = sum(rewards.WEIGHTS[name] * (value if value >= 0.7 else 0) for name, value in scored.parts.items())
    assert scored.gated["attribution"] == 0  # nothing said
    assert scored.bonus == pytest.approx(0.1 * rewards.structure(BASE, vases.caption(RECORD)))
    assert scored.total == pytest.approx(min(1, mean - scored.penalty + scored.bonus))
    lean = VaseRecord(technique="red-figure")
    assert reward.score("red-figure vase.", lean).total == pytest.approx(0.2 + 0.1)  # weights are not spread


def test_presets_by_name() -> None:
    assert rewards.preset("strict") is rewards.STRICT
    with pytest.raises(UserError, match="there are strict and paper"):
        rewards.preset("lenient")
    with pytest.raises(UserError, match=r"no config\.json"):
        rewards.preset("paper", "/no/such/folder")


@pytest.mark.slow
def test_the_built_in_encoder_gives_unit_vectors_and_repeats_itself() -> None:
    encoder = encoders.load("builtin")
    rows = encoder(["a complete vase", "fragments of a vase", "a complete vase"])
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    assert rows[0] == pytest.approx(rows[2])
    assert encoder(["a complete vase"])[0] == pytest.approx(rows[0], abs=1e-6)
    assert rewards.preset("paper", "builtin").score(BASE, RECORD).total > 0.5


@pytest.mark.slow
def test_a_sentence_transformers_folder_is_pooled_over_its_tokens(tmp_path: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "a", "red", "figure", "vase"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=len(words), **shape)).eval()
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[words[word] for word in ("a", "red", "vase")]])
    with torch.inference_mode():
        mean = model(ids).last_hidden_state[0].mean(0).numpy()
    encoder = encoders.SentenceEncoder(str(tmp_path))
    rows = encoder(["a red vase", "a", "figure"])  # padding does not count
    assert rows[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert encoder(["a red vase"])[0] == pytest.approx(rows[0], abs=1e-5)


# ---- as ms-swift calls it ----


@pytest.mark.slow
def test_ms_swift_finds_the_reward_and_its_parts() -> None:
    code = """
import json, sys
sys.path.insert(0, "plugin")
import plugin
from swift.rewards import orms
record = {"technique": "red-figure", "shape": "pelike"}
said, solution = ["red-figure pelike.", "black-figure amphora."], [json.dumps(record)] * 2
parts = ("fabric", "technique", "shape", "date", "decoration", "attribution")
names = ["external_vase_acc"] + [f"vase_{part}" for part in parts]
print(json.dumps({name: orms[name](args=None)(said, solution=solution, images=[]) for name in names}))
print(json.dumps([type(orms[name](args=None)).__name__ for name in names]))
for wrong in (None, [], ["", ""]):
    try:
        orms["external_vase_acc"](args=None)(said, solution=wrong)
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=cli.ROOT, capture_output=True, text=True, check=True)
    scores, names, *errors = done.stdout.splitlines()[-5:]
    found = json.loads(scores)
    assert found["external_vase_acc"][0] == 1
    assert found["vase_technique"] == [1, 0]
    assert found["vase_shape"] == [1, 0.5]
    assert found["vase_fabric"] == [None, None]
    assert json.loads(names)[:3] == ["VaseReward", "VaseFabric", "VaseTechnique"]
    assert "lacks the column 'solution'" in errors[0]
    assert "2 completions but 0 values" in errors[1]
    assert "needs a JSON object" in errors[2]


# ---- the dry run ----


def dry_run(*flags: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vasekit.rewards", *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cli.ROOT, check=False)


def test_the_dry_run_reads_what_ms_swift_logs(tmp_path: Path) -> None:
    record, other = (json.dumps({"technique": "red-figure", "shape": shape}) for shape in ("pelike", "kylix"))
    table = {
        "step": ["1"] * 4,
        "prompt": ["Describe."] * 4,
        "completion": ["red-figure pelike.", "red-figure amphora.", "kylix.", "kylix."],
        "VaseReward": [1.0, 0.8, 0.4, 0.4],
        "solution": [record, record, other, other],
    }
    path = tmp_path / "completions.jsonl"
    path.write_text(json.dumps(table) + "\n")
    done = dry_run("--completions", path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["completions"] == 4
    assert found["groups"] == {"groups": 2, "equal": 1, "equal_share": 0.5}
    assert found["parts"]["technique"]["counts"] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found["parts"]["date"]["n"] == 0
    shown = dry_run("--completions", path).stdout
    assert "1 of 2 groups (50.0 %) have equal rewards" in shown
    assert "every keyword at once" in shown


def test_the_dry_run_reads_one_answer_a_line(tmp_path: Path) -> None:
    said = [("a", "red-figure pelike."), ("a", "red-figure amphora."), ("b", "kylix."), ("b", "kylix.")]
    rows = [{"completion": text, "solution": "red-figure pelike.", "group": group} for group, text in said]
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    found = json.loads(dry_run("--completions", tmp_path / "c.jsonl", "--json").stdout)
    assert found["groups"] == {"groups": 2, "equal": 1, "equal_share": 0.5}
    single = [{"completion": "kylix.", "solution": "red-figure pelike."}] * 3
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps(row) for row in single))
    assert json.loads(dry_run("--completions", tmp_path / "c.jsonl", "--json").stdout)["groups"]["groups"] == 0


def test_no_adversarial_answer_comes_near_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    records = [vases.parse_record(world.record(world.vase_seed(14, k))).normalised() for k in range(40)]
    path.write_text(json.dumps([{"solution": json.dumps(record.stated())} for record in records if record.date]))
    found = json.loads(dry_run("--completions", path, "--json").stdout)["adversarial"]
    assert found.pop("the truth") == {"mean": 1, "max": 1}
    assert all(row["max"] < 0.9 for row in found.values())
    for name in ("empty", "the question again", "template words alone", "another language"):
        assert found[name]["max"] == 0
    assert found["every keyword at once"]["max"] < 0.1
    assert found["right form, wrong values"]["max"] < 0.1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file"),
        ("", "holds no row"),
        ("{", "line 1: not valid JSON"),
        ("[]", "line 1: needs an object"),
        ('{"completion": "x"}', "line 1: lacks 'solution'"),
        ('{"completion": 5, "solution": "kylix"}', "line 1: completion 5 is no text"),
        ('{"completion": "x", "solution": ""}', "line 1: solution '': needs"),
        ('{"completion": ["x"], "solution": ["kylix", "krater"]}', "differ in length"),
    ],
)
def test_the_dry_run_refuses_what_it_cannot_read(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "c.jsonl").write_text(text)
    done = dry_run("--completions", tmp_path / "c.jsonl")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_documented_function_reads_captions_json_and_mappings() -> None:
    fields = RECORD.stated()
    for reference in (fields, json.dumps(fields), vases.caption(RECORD)):
        assert rewards.external_vase_acc([BASE], [reference])[0] > 0.85
    with pytest.raises(ValueError, match="needs a JSON object of fields or a caption"):
        rewards.external_vase_acc([BASE], [None])
