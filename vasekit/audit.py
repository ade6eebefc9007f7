"""What a filter accepts, by what the records say of the vases: a look for bias. Pure functions, no image is opened.

Photographs of one vase are alike, so the vase is the unit of everything uncertain:

- A rate is accepted / all photographs of a group, and its interval Wilson's at the effective number of photographs:
  that of independent ones which would vary as much as the vases do (Korn and Graubard 1998). It holds for groups of
  few vases, and where all or none are accepted, which a bootstrap calls certain.
- Whether a group differs from the rest is asked by a permutation test: in how many shuffles of the vases do the two
  rates lie as far apart as found? (1 + hits) / (1 + shuffles), two-sided (Phipson and Smyth 2010). It supposes nothing
  of how alike photographs of a vase are. The chances of all groups of all fields are corrected together (Holm 1979):
  where no group differs, the audit flags any at most once in twenty times. Fields overlap: a rate by shape may be one
  by period in disguise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vasekit import dataset, dates, images, metrics, vocabulary
from vasekit.cli import UserError
from vasekit.metrics import Measure
from vasekit.vases import VaseRecord

# Groups of fewer vases are put together; none is tested that has fewer, or a rest of fewer.
FEWEST_VASES = 5
SIGNIFICANT = 0.05
SHUFFLES = 4_999
NOT_RECORDED, NOT_UNDERSTOOD, WIDE = "(not recorded)", "(not understood)", "(longer than a century)"


@dataclass(frozen=True)
class Judged:
    """A photograph, its path below the input folder, the vase it shows, and whether the filter accepted it."""

    filename: str
    vase: str
    accepted: bool


def judged(results: Iterable[Mapping]) -> list[Judged]:
    """The `results` of filtering_report.json."""
    return [Judged(row["filename"], row["vase_id"], bool(row["accepted"])) for row in results]


# ---- vases and their records ----


@dataclass(frozen=True)
class _Vase:
    """Counts of photographs, and the record (normalised), None where there is none."""

    accepted: int
    images: int
    record: VaseRecord | None


def _vases(verdicts: Iterable[Judged], rows: Sequence[dict]) -> tuple[list[_Vase], int]:
    """All vases, sorted by key, and the number of records without a photograph.

    Photographs find their records as they do for the data set, through `dataset.join`; which vase one shows is what
    the verdict says.
    """
    groups: dict[str, list[Judged]] = {}
    for row in sorted(verdicts, key=lambda row: row.filename):
        groups.setdefault(row.vase.casefold(), []).append(row)
    vase_of = {Path(row.filename): row.vase for own in groups.values() for row in own}
    joined = dataset.join(list(vase_of), rows, lambda photo: images.View(vase_of[photo], ""))
    record_of = {entry.key: entry.record for entry in joined.entries}
    found = [
        _Vase(sum(row.accepted for row in own), len(own), record_of.get(key)) for key, own in sorted(groups.items())
    ]
    return found, joined.records_without_photo


# ---- groups ----


def period(date: str) -> str:
    """The half-century in which the middle of a date of at most 50 years lies; of at most 100 years, the century.

    Such as "500-451 BCE" of "525-475 BCE" (a middle on the border goes to the later one) and "500-401 BCE" of "5th
    century BCE". Empty for an empty text.
    """
    years = dates.parse_date(date)
    if not years:
        return NOT_UNDERSTOOD if date else ""
    first, last = years
    length = next((length for length in (50, 100) if last - first <= length), None)
    if length is None:
        return WIDE
    middle = (first + last) // 2 or 1  # there is no year 0
    start = (middle - 1) // length * length + 1 if middle > 0 else middle // length * length
    return dates.write_date((start, start + length - 1))


def museum(collection: str) -> str:
    """ "London, British Museum" of "London, British Museum: B 123 | Oxford, ...": the first, without its number."""
    return collection.split("|")[0].split(":")[0].strip()


# What vases are grouped by.
FIELDS: dict[str, Callable[[VaseRecord], str]] = {
    "fabric": lambda record: record.fabric,
    "technique": lambda record: record.technique,
    "shape": lambda record: record.shape,
    "period": lambda record: period(record.date),
    "collection": lambda record: museum(record.collection),
}


@dataclass(frozen=True)
class _Group:
    """Some vases, by their indices. pooled: the names of the small groups in it."""

    field: str
    name: str
    members: np.ndarray
    pooled: tuple[str, ...] = ()


def _groups(field: str, texts: Sequence[str]) -> list[_Group]:
    """Spellings of the same words are one group under the commonest of them. Empty where no text says anything.

    Sorted by period or by number of vases. Groups of fewer than FEWEST_VASES are put together, unless there is one.
    """
    spellings: dict[tuple[str, ...], Counter[str]] = {}
    members: dict[tuple[str, ...], list[int]] = {}
    for index, text in enumerate(texts):
        key = vocabulary.words_of(text.replace(NOT_RECORDED, ""))
        spellings.setdefault(key, Counter())[text if key else NOT_RECORDED] += 1
        members.setdefault(key, []).append(index)
    if not any(members):
        return []
    named = {min((-n, text) for text, n in spellings[key].items())[1]: own for key, own in members.items()}
    small = sorted(name for name, own in named.items() if len(own) < FEWEST_VASES and name != NOT_RECORDED)
    pool = _Group(field, f"(other, {len(small)} groups)", np.array([], int), tuple(small))
    if len(small) > 1:
        pool = replace(pool, members=np.array(sorted(i for name in small for i in named.pop(name))))

    def place(name: str) -> tuple:
        years = dates.parse_date(name) if field == "period" else None
        return name.startswith("("), years or (-len(named[name]),), name

    groups = [_Group(field, name, np.array(named[name])) for name in sorted(named, key=place)]
    return [*groups, pool] if len(pool.members) else groups


# ---- rates and tests ----


def clustered_rate(accepted: Sequence[int], photographs: Sequence[int]) -> Measure:
    """Share of photographs accepted, with Wilson's interval at the effective number of photographs; n: photographs.

    accepted, photographs: (m,) counts by vase. The variance of the ratio is that between vases (Cochran 1977, 6.3);
    the effective number is what gives a binomial share the same, reduced for the m - 1 degrees of freedom it was
    estimated with (Korn and Graubard 1998). It lies between 1 and all; where all or none are accepted it is the number
    of vases. Raises ValueError for no photographs.
    """
    hits, sizes = np.asarray(accepted, float), np.asarray(photographs, float)
    n, m = sizes.sum(), len(sizes)
    if not n:
        raise ValueError("no photographs to take a share of")
    share = hits.sum() / n
    effective = float(m)
    if 0 < share < 1 and m > 1:
        variance = m / (m - 1) * ((hits - share * sizes) ** 2).sum() / n**2
        free = (_student(n - 1) / _student(m - 1)) ** 2 if n > m else 1.0
        effective = min(max(share * (1 - share) / max(variance, 1e-12) * free, 1.0), float(n))
    successes = effective if share == 1 else share * effective
    return metrics.measure(share, *metrics.wilson(successes, effective), int(n))


def _student(free: float) -> float:
    """97.5 % quantile of Student's t, by its expansion around the normal one (Abramowitz and Stegun 26.7.5)."""
    z = 1.959964
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / free**power for power, term in enumerate(terms))


def permutation_chances(
    accepted: Sequence[int], photographs: Sequence[int], groupings: Sequence[Sequence[Sequence[int]]], seed: int = 0
) -> list[list[float]]:
    """For each group of each grouping: how likely its rate lies so far from that of the other vases by chance.

    accepted, photographs: (m,) counts by vase. groupings: groups, by indices of vases, that make up all of them.
    Raises ValueError for a group without a rest.
    """
    hits, sizes = np.asarray(accepted, np.int64), np.asarray(photographs, np.int64)
    if any(len(grouping) < 2 for grouping in groupings):
        raise ValueError("a single group has no rest to be compared with")
    ends = [np.cumsum([0, *map(len, grouping)])[:-1] for grouping in groupings]
    found = []
    for grouping, starts in zip(groupings, ends, strict=True):
        order = np.concatenate([np.asarray(group, int) for group in grouping])
        found.append(_gaps(hits[order], sizes[order], starts))
    counts = [np.zeros(len(grouping), int) for grouping in groupings]
    # Holm multiplies the smallest chance by the number of groups; it has to get below SIGNIFICANT nevertheless.
    shuffles = max(SHUFFLES, 100 * sum(map(len, groupings))) if groupings else 0
    rng = np.random.default_rng(seed)
    step = max(1, 2_000_000 // len(hits))
    for start in range(0, shuffles, step):
        order = rng.permuted(np.tile(np.arange(len(hits)), (min(step, shuffles - start), 1)), axis=1)
        mixed_hits, mixed_sizes = hits[order], sizes[order]
        for count, starts, gaps in zip(counts, ends, found, strict=True):
            count += (_gaps(mixed_hits, mixed_sizes, starts) >= gaps - 1e-12).sum(axis=0)
    return [((1 + count) / (1 + shuffles)).tolist() for count in counts]


def _gaps(hits: np.ndarray, sizes: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(..., g) distance between the rate of each run of vases (from starts[k] on) and that of the others."""
    own_hits, own_sizes = (np.add.reduceat(counts, starts, axis=-1) for counts in (hits, sizes))
    rest_hits, rest_sizes = (own.sum(axis=-1, keepdims=True) - own for own in (own_hits, own_sizes))
    return np.abs(own_hits / own_sizes - rest_hits / rest_sizes)


def holm(chances: Sequence[float]) -> list[float]:
    """Chances adjusted for their number: max over j <= k of min(1, (m - j + 1) * p_j), ascending (Holm 1979)."""
    adjusted, worst = [0.0] * len(chances), 0.0
    for rank, index in enumerate(sorted(range(len(chances)), key=lambda k: chances[k])):
        worst = max(worst, min(1.0, (len(chances) - rank) * chances[index]))
        adjusted[index] = worst
    return adjusted


# ---- report ----


def audit(verdicts: Sequence[Judged], rows: Sequence[dict], seed: int = 0) -> dict:
    """Acceptance by fabric, technique, shape, period and collection, ready for JSON.

    rows: as `records.read_rows` gives them. Fields that no record speaks of are left out. Photographs without a record
    count in `overall` only; the `rest` of a group is all others that have one. Raises UserError where no photograph
    has a record.
    """
    everything, unused = _vases(verdicts, rows)
    known = [vase for vase in everything if vase.record]
    if not known:
        raise UserError(
            "--records: no photograph has a record; records need a column 'Image GUID' with the vase's part of the file"
            " name, or 'image' with the file name"
        )
    fields = {name: _groups(name, [of(vase.record) for vase in known]) for name, of in FIELDS.items()}
    fields = {name: groups for name, groups in fields.items() if groups}
    results = _compared(known, fields, seed)
    return {
        "photographs": sum(vase.images for vase in everything),
        "vases": len(everything),
        "photographs_without_record": sum(vase.images for vase in everything if not vase.record),
        "vases_without_record": len(everything) - len(known),
        "records_without_photograph": unused,
        "overall": _rate(everything),
        "fields": results,
        "flagged": [sentence(name, group) for name, groups in results.items() for group in groups if group["flagged"]],
        "method": (
            "rates over photographs, Wilson's interval at their effective number given the vases (Korn and Graubard"
            f" 1998); groups against the rest by permutation of vases, Holm's correction over all, {SIGNIFICANT:g};"
            f" groups of fewer than {FEWEST_VASES} vases are put together and not tested"
        ),
    }


def _rate(group: Sequence[_Vase]) -> Measure:
    return clustered_rate([vase.accepted for vase in group], [vase.images for vase in group])


def _compared(known: Sequence[_Vase], fields: Mapping[str, list[_Group]], seed: int) -> dict[str, list[dict]]:
    """One row per group of each field; `p` is None for those that are not tested."""
    hits, sizes = [vase.accepted for vase in known], [vase.images for vase in known]
    several = [groups for groups in fields.values() if len(groups) > 1]
    raw = permutation_chances(hits, sizes, [[group.members for group in groups] for groups in several], seed)
    chance_of = {
        (group.field, group.name): chance
        for groups, chances in zip(several, raw, strict=True)
        for group, chance in zip(groups, chances, strict=True)
        if min(len(group.members), len(known) - len(group.members)) >= FEWEST_VASES and not group.pooled
    }
    adjusted = dict(zip(chance_of, holm(list(chance_of.values())), strict=True))
    return {name: [_row(group, known, chance_of, adjusted) for group in groups] for name, groups in fields.items()}


def _row(group: _Group, known: Sequence[_Vase], chances: Mapping, adjusted: Mapping) -> dict:
    inside = set(group.members.tolist())
    rest = [vase for k, vase in enumerate(known) if k not in inside]
    key = (group.field, group.name)
    return {
        "group": group.name,
        "rate": _rate([known[k] for k in group.members]),
        "vases": len(inside),
        "rest": _rate(rest) if rest else None,
        "p": chances.get(key),
        "p_adjusted": adjusted.get(key),
        "flagged": adjusted.get(key, 1.0) < SIGNIFICANT,
        "too_few": len(inside) < FEWEST_VASES,
        "pooled": list(group.pooled),
    }


def sentence(field: str, group: dict) -> str:
    """What is to be said of a flagged group."""
    share, rest = (100 * group[key]["value"] for key in ("rate", "rest"))
    digits = 0 if round(share) != round(rest) else 1
    size = f"{group['rate']['n']:,} photographs, {group['vases']:,} vases, corrected p = {group['p_adjusted']:.2g}"
    return f"{field} {group['group']}: {share:.{digits}f} % accepted against {rest:.{digits}f} % of the rest ({size})"


TABLE = ("field", "group", "vases", "accepted", "of the rest", "p (Holm)", "note")


def table(found: dict) -> list[list[str | int | float | Measure | None]]:
    """`audit` as rows below TABLE, for a page; the first is of all photographs."""
    rows: list[list] = [["all", "", found["vases"], found["overall"], None, None, ""]]
    for name, groups in found["fields"].items():
        for group in groups:
            note = "differs" if group["flagged"] else "too few vases" if group["too_few"] else ""
            numbers = (group["vases"], group["rate"], group["rest"], group["p_adjusted"])
            rows.append([name, group["group"], *numbers, note])
    return rows
