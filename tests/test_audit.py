"""The audit by field: groups, rates with intervals that respect vases, and which groups differ."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from vasekit import audit, metrics
from vasekit.audit import Judged
from vasekit.cli import UserError
from vasekit.synth import world


def judged(vase: str, accepted: int, rejected: int = 0) -> list[Judged]:
    verdicts = [True] * accepted + [False] * rejected
    return [Judged(f"x/{vase}_{k}_ac001001.jpg", vase, verdict) for k, verdict in enumerate(verdicts)]


def group(found: dict, field: str, name: str) -> dict:
    return next(row for row in found["fields"][field] if row["group"] == name)


# ---- groups ----


@pytest.mark.parametrize(
    ("date", "name"),
    [
        ("", ""),
        ("no idea", "(not understood)"),
        ("-525 to -475", "500-451 BCE"),  # the middle is on the border
        ("-550 to -500", "550-501 BCE"),
        ("c. 500-450 BCE", "500-451 BCE"),
        ("480 BCE", "500-451 BCE"),
        ("500 BCE", "500-451 BCE"),
        ("501 BCE", "550-501 BCE"),
        ("1 BCE", "50-1 BCE"),
        ("1-1 CE", "1-50 CE"),
        ("50 CE", "1-50 CE"),
        ("51 CE", "51-100 CE"),
        ("10 BCE to 10 CE", "1-50 CE"),  # there is no year 0
        ("10 BCE to 20 CE", "1-50 CE"),
        ("5th century BCE", "500-401 BCE"),
        ("late 6th century BCE", "550-501 BCE"),
        ("550-450 BC", "500-401 BCE"),
        ("2nd century CE", "101-200 CE"),
        ("600-400 BCE", "(longer than a century)"),
    ],
)
def test_periods(date: str, name: str) -> None:
    assert audit.period(date) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", ""),
        ("London, British Museum: B 123", "London, British Museum"),
        ("London, British Museum: B 123 | Oxford, Ashmolean: 1", "London, British Museum"),
        ("private", "private"),
    ],
)
def test_collections_without_inventory_numbers(text: str, name: str) -> None:
    assert audit.museum(text) == name


def test_spellings_of_a_record_make_one_group_and_small_groups_one() -> None:
    shapes = ["CUP", "KYLIX", "Cup (kylix)", "kylix", "cup", "", "", "PLATE", "pinax", "THYMIATERION"]
    homes = ["London, BM: 1", "LONDON BM: 2", "London, BM", "London, BM: 4", "london, bm: 5", *[""] * 5]
    rows = [
        {"Image GUID": f"V{k}", "Shape Name": shape, "Collection Record": home}
        for k, (shape, home) in enumerate(zip(shapes, homes, strict=True))
    ]
    found = audit.audit([v for k in range(10) for v in judged(f"v{k}", 1, k % 2)], rows)
    assert list(found["fields"]) == ["shape", "collection"], "fields of which nothing is recorded are left out"
    assert [(g["group"], g["vases"], g["too_few"]) for g in found["fields"]["shape"]] == [
        ("kylix", 5, False),
        ("(not recorded)", 2, True),
        ("(other, 3 groups)", 3, True),
    ]
    assert found["fields"]["shape"][2]["pooled"] == ["pinax", "plate", "thymiaterion"]
    assert [g["group"] for g in found["fields"]["collection"]] == ["London, BM", "(not recorded)"]
    for groups in found["fields"].values():
        assert sum(g["vases"] for g in groups) == 10
        assert sum(g["rate"]["n"] for g in groups) == 15


def test_periods_are_in_order_and_a_lone_small_group_keeps_its_name() -> None:
    dates = ["5th century BCE"] * 5 + ["480 BCE"] * 5 + ["540 BCE"] * 6 + ["20 CE"] + [""] * 7
    rows = [{"Image GUID": f"v{k}", "Date": date} for k, date in enumerate(dates)]
    found = audit.audit([v for k in range(len(dates)) for v in judged(f"v{k}", 1)], rows)
    assert [g["group"] for g in found["fields"]["period"]] == [
        "550-501 BCE",
        "500-451 BCE",
        "500-401 BCE",
        "1-50 CE",
        "(not recorded)",
    ]
    assert group(found, "period", "1-50 CE")["too_few"]
    assert group(found, "period", "1-50 CE")["p"] is None


# ---- photographs and records ----


def test_records_join_as_for_the_data_set_and_what_finds_none_is_counted() -> None:
    rows = [
        {"Image GUID": "ABC", "Fabric": ""},  # an empty field, which a later record of the vase does not fill
        {"image": "698_1.jpg", "fabric": "<b>ATTIC</b>", "technique": None},
        {"image": "698_2.jpg", "fabric": "Corinthian"},
        {"Image GUID": "gone", "Fabric": "ATHENIAN"},
        {"note": "belongs to nothing"},
    ]
    verdicts = [
        Judged("a/abc_1_ac001001.jpg", "abc", True),
        Judged("b/ABC_2_bc001001.jpe", "ABC", False),
        Judged("698_1.jpg", "698", True),
        Judged("698_2.jpg", "698", True),
        Judged("698_front.jpg", "698", False),
        Judged("stranger_1.jpg", "stranger", True),
    ]
    found = audit.audit(verdicts, rows)
    assert (found["photographs"], found["vases"]) == (6, 3)
    assert (found["photographs_without_record"], found["vases_without_record"]) == (1, 1)
    assert found["records_without_photograph"] == 2
    assert found["overall"]["value"] == pytest.approx(4 / 6)
    fabric = {g["group"]: (g["rate"]["value"], g["rate"]["n"], g["vases"]) for g in found["fields"]["fabric"]}
    assert fabric == {"Athenian": (pytest.approx(2 / 3), 3, 1), "(not recorded)": (0.5, 2, 1)}


def test_the_verdicts_vase_counts_where_names_say_another() -> None:
    """Of a folder per vase the file names are all alike; of a table of views they say nothing."""
    rows = [
        {"Image GUID": "698", "Fabric": "ATHENIAN"},
        {"Image GUID": "1", "Fabric": "CORINTHIAN"},  # what 1.jpg seems to be named after
        {"image": "IMG_002.jpg", "Fabric": "BOEOTIAN"},
        {"image": "IMG_003.jpg", "Fabric": "LACONIAN"},
        {"Image GUID": "gone"},
    ]
    verdicts = [
        Judged("deep/698/1.jpg", "deep/698", True),
        Judged("deep/699/1.jpg", "deep/699", True),
        Judged("IMG_002.jpg", "second", True),
        Judged("IMG_003.jpg", "third", False),
    ]
    known, unused = audit._vases(verdicts, rows)
    assert [vase.record and vase.record.fabric for vase in known] == ["Athenian", None, "Boeotian", "Laconian"]
    assert unused == 2, "vase 1 and the one that is gone: a file called 1.jpg is not vase 1 here"


def test_records_of_other_photographs_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="no photograph has a record") as caught:
        audit.audit(judged("a", 1), [{"Image GUID": "b", "Fabric": "ATHENIAN"}])
    assert "\n" not in str(caught.value)


def test_verdicts_of_the_filters_report() -> None:
    rows = [{"filename": "a/V_1.jpg", "vase_id": "V", "accepted": True, "quality_score": 0.1}]
    assert audit.judged(rows) == [Judged("a/V_1.jpg", "V", True)]


# ---- rates ----


def test_photographs_of_one_each_have_about_wilsons_interval() -> None:
    found = audit.clustered_rate([1] * 60 + [0] * 140, [1] * 200)
    assert (found["low"], found["high"]) == pytest.approx(metrics.wilson(60, 200), abs=1e-3)
    assert (found["value"], found["n"]) == (0.3, 200)


def test_a_vase_whose_photographs_all_agree_counts_once() -> None:
    accepted, sizes = [10] * 12 + [0] * 8, [10] * 20
    found = audit.clustered_rate(accepted, sizes)
    free = (stats.t.ppf(0.975, 199) / stats.t.ppf(0.975, 19)) ** 2
    effective = 19 * free  # variance p (1 - p) / (m - 1)
    assert (found["low"], found["high"]) == pytest.approx(metrics.wilson(0.6 * effective, effective), abs=1e-4)
    assert found["n"] == 200


@pytest.mark.parametrize(
    ("accepted", "sizes", "interval"),
    [
        ([4, 4, 4], [4, 4, 4], metrics.wilson(3, 3)),  # all accepted: as many as vases
        ([0, 0, 0], [4, 4, 4], metrics.wilson(0, 3)),
        ([5], [5], metrics.wilson(1, 1)),
        ([2], [4], metrics.wilson(0.5, 1)),  # one vase
        ([1, 1, 1, 1], [2, 2, 2, 2], metrics.wilson(4, 8)),  # vases that vary less than chance: no more than all
    ],
)
def test_rates_at_the_edges(accepted: list[int], sizes: list[int], interval: tuple[float, float]) -> None:
    found = audit.clustered_rate(accepted, sizes)
    assert (found["low"], found["high"]) == pytest.approx(interval)
    assert found["low"] <= found["value"] <= found["high"]


def test_no_photographs_have_no_rate() -> None:
    with pytest.raises(ValueError, match="no photographs"):
        audit.clustered_rate([], [])


@pytest.mark.parametrize(("vases", "rate"), [(5, 0.5), (10, 0.9), (40, 0.7)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(vases: int, rate: float) -> None:
    rng = np.random.default_rng(vases)
    hits = 0
    for _ in range(500):
        sizes = rng.integers(1, 9, vases)
        found = audit.clustered_rate(rng.binomial(sizes, rng.beta(2 * rate, 2 * (1 - rate), vases)), sizes)
        hits += found["low"] <= rate <= found["high"]
    assert 0.92 <= hits / 500 <= 0.99


@pytest.mark.parametrize("free", [4, 9, 30, 1000])
def test_students_quantile(free: int) -> None:
    assert audit._student(free) == pytest.approx(stats.t.ppf(0.975, free), rel=3e-3)


# ---- tests ----


def test_chances_equal_those_of_all_arrangements() -> None:
    accepted, sizes, inside = [2, 3, 0, 1, 0, 1, 2, 0], [2, 4, 1, 3, 2, 3, 2, 5], {0, 1, 6}

    def gap(own: set[int]) -> float:
        rest = set(range(8)) - own
        rates = [sum(accepted[k] for k in part) / sum(sizes[k] for k in part) for part in (own, rest)]
        return abs(rates[0] - rates[1])

    arrangements = [gap(set(own)) for own in itertools.combinations(range(8), 3)]
    exact = np.mean([value >= gap(inside) - 1e-12 for value in arrangements])
    split = [sorted(inside), [2, 3, 4, 5, 7]]
    ((one, other), (same, *_)) = audit.permutation_chances(accepted, sizes, [split, [*split[:1], [2, 3], [4, 5, 7]]])
    assert one == other == pytest.approx(exact, abs=0.015)
    assert same == one
    assert audit.permutation_chances(accepted, sizes, [split], seed=0)[0] == [one, other]
    assert audit.permutation_chances(accepted, sizes, []) == []


def test_groups_that_do_not_differ_look_so_as_often_as_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SHUFFLES", 399)
    rng = np.random.default_rng(5)
    low = 0
    for seed in range(500):
        sizes = rng.integers(1, 9, 40)
        accepted = rng.binomial(sizes, rng.beta(0.6, 0.3, 40))
        ((chance, _),) = audit.permutation_chances(accepted, sizes, [[range(8), range(8, 40)]], seed)
        low += chance < 0.1
    assert 0.06 < low / 500 < 0.14


def test_all_accepted_is_no_difference() -> None:
    assert audit.permutation_chances([3] * 10, [3] * 10, [[range(5), range(5, 10)]]) == [[1.0, 1.0]]


def test_a_group_without_a_rest_is_refused() -> None:
    with pytest.raises(ValueError, match="no rest"):
        audit.permutation_chances([1, 1], [1, 1], [[[0, 1]]])


@pytest.mark.parametrize(
    ("chances", "adjusted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9, 0.2], [1.0, 1.0, 0.6]),
    ],
)
def test_holms_correction(chances: list[float], adjusted: list[float]) -> None:
    assert audit.holm(chances) == pytest.approx(adjusted)


# ---- the whole ----


def test_a_disadvantaged_shape_is_named() -> None:
    rows = [world.record(world.vase_seed(3, k)) for k in range(300)]
    verdicts = []
    for row in rows:
        accepted = 1 if "KRATER" in row["Shape Name"].upper() else 3
        verdicts += judged(row["Image GUID"], accepted, 4 - accepted)
    verdicts += judged("stranger", 2)
    found, turned = audit.audit(verdicts, rows), audit.audit(verdicts[::-1], rows)
    assert json.loads(json.dumps(found, allow_nan=False)) == turned
    assert list(found["fields"]) == list(audit.FIELDS)
    krater = group(found, "shape", "bell-krater")
    assert krater["flagged"]
    assert krater["rate"]["high"] < krater["rest"]["low"]
    (sentence,) = found["flagged"]
    assert sentence.startswith(
        f"shape bell-krater: {100 * krater['rate']['value']:.0f} % accepted against"
        f" {100 * krater['rest']['value']:.0f} % of the rest ("
    )
    for groups in found["fields"].values():
        assert sum(g["vases"] for g in groups) == 300
        assert sum(g["rate"]["n"] for g in groups) == 1200
        for g in groups:
            assert g["rate"]["low"] <= g["rate"]["value"] <= g["rate"]["high"]
            accepted = sum(part["value"] * part["n"] for part in (g["rate"], g["rest"]))
            assert accepted == pytest.approx(found["overall"]["value"] * 1202 - 2)
    rows_shown = audit.table(found)
    assert {len(row) for row in rows_shown} == {len(audit.TABLE)}
    assert rows_shown[0][:3] == ["all", "", 301]
    assert [row[1] for row in rows_shown if row[-1] == "differs"] == ["bell-krater"]
    assert found["photographs_without_record"] == 2


def test_one_vase_is_shown_and_not_tested() -> None:
    found = audit.audit(judged("a", 2, 1), [{"Image GUID": "a", "Fabric": "ATHENIAN"}])
    (only,) = found["fields"]["fabric"]
    assert (only["group"], only["rest"], only["p"], only["flagged"]) == ("Athenian", None, None, False)
    assert found["flagged"] == []


def test_shares_that_round_to_the_same_are_told_apart() -> None:
    row = {"group": "kylix", "vases": 900, "p_adjusted": 0.0123}
    row |= {"rate": metrics.measure(0.741, 0.7, 0.8, 5000), "rest": metrics.measure(0.744, 0.7, 0.8, 5000)}
    assert audit.sentence("shape", row) == (
        "shape kylix: 74.1 % accepted against 74.4 % of the rest (5,000 photographs, 900 vases, corrected p = 0.012)"
    )
