"""What a museum would deliver: photographs, records with the usual gaps, and (apart from both) the truth.

A world is a function of its seed. Worlds never share a vase: vase `i` of world `s` has seed `s * WORLD_SIZE + i`.
"""

from __future__ import annotations

import csv
import io
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vasekit import files
from vasekit.synth import flaws, render
from vasekit.synth.render import VIEWS, Camera, Vase

WORLD_SIZE = 100_000
# Worlds from here on belong to the built-in models: what they were trained on is never delivered by make_world.
RESERVED = 9_000

# Technique and style decide the date, as finer things do in the real record. BCE.
DATES = {
    ("black-figure", "plain"): (575, 550),
    ("black-figure", "ornate"): (525, 500),
    ("red-figure", "plain"): (500, 475),
    ("red-figure", "ornate"): (450, 425),
    ("white-ground", "plain"): (475, 450),
    ("white-ground", "ornate"): (425, 400),
}
BROKEN = ("sherds", "missing", "cracked")
FLAWS = ("blur", "low_resolution", "drawing")
CONDITIONS = ("whole", *BROKEN, *FLAWS, "not_a_vase")
_VASE_CONDITIONS = ("whole", *BROKEN)
_VASE_SHARES = (0.72, 0.12, 0.08, 0.08)
_FLAWED_SHARE, _STRAY_SHARE = 0.15, 0.03


@dataclass(frozen=True)
class Photo:
    """One photograph to take, and its row of truth.json. `photo` seeds its light, backdrop and damage."""

    image: str
    vase: str
    seed: int
    photo: int
    view: str
    condition: str

    def take(self, size: int) -> Image.Image:
        """The picture, (size, size) RGB."""
        rng = np.random.default_rng([self.seed, 3, self.photo])
        if self.condition == "not_a_vase":
            return flaws.not_a_vase(size, rng)
        vase = _vase(self.seed)
        if self.condition in FLAWS:
            return getattr(flaws, self.condition)(render.photograph(vase, self.view, "whole", size, rng), rng)
        return render.photograph(vase, self.view, self.condition, size, rng)

    def truth(self) -> dict[str, str | int]:
        """What the evaluation may know."""
        row = {"image": self.image, "vase": self.vase, "view": self.view, "condition": self.condition}
        if self.condition == "not_a_vase":
            return row
        vase = Vase(self.seed)
        traits = {name: getattr(vase, name) for name in ("shape", "technique", "style", "motif")}
        return row | traits | {"fabric": "Athenian", "date": date_of(vase)}


_last: list[Vase] = []


def _vase(seed: int) -> Vase:
    """The vase of `seed`; the last one is kept, since photographs of one vase follow each other."""
    if not _last or _last[0].seed != seed:
        _last[:] = [Vase(seed)]
    return _last[0]


def date_of(vase: Vase) -> str:
    """The date of a vase, e.g. "525-500 BCE"."""
    return "{}-{} BCE".format(*DATES[vase.technique, vase.style])


def vase_seed(world: int, index: int) -> int:
    """Seed of vase `index` of world `world`."""
    return world * WORLD_SIZE + index


def guid(seed: int) -> str:
    """The stable identifier of the vase with this seed, in upper case as museums print it."""
    return str(uuid.UUID(bytes=np.random.default_rng([seed, 4]).bytes(16), version=4)).upper()


def plan(world: int, vases: int, views: int) -> Iterator[Photo]:
    """All photographs of a world: whole vases from `views` sides, broken ones twice, some flawed, some strays."""
    for index in range(vases):
        seed = vase_seed(world, index)
        rng = np.random.default_rng([seed, 5])
        name = guid(seed)
        condition = str(rng.choice(_VASE_CONDITIONS, p=_VASE_SHARES))
        if condition == "whole":
            others = rng.permutation(VIEWS[1:])[: views - 1]
            shots = [(str(view), condition) for view in rng.permutation(["front", *others])]
            if rng.random() < _FLAWED_SHARE:
                shots.insert(int(rng.integers(len(shots) + 1)), ("front", str(rng.choice(FLAWS))))
        else:
            shots = [(str(view), condition) for view in rng.choice(VIEWS[:5], min(2, views), replace=False)]
        if rng.random() < _STRAY_SHARE:
            shots.append(("front", "not_a_vase"))
        for number, (view, shown) in enumerate(shots, 1):
            yield Photo(f"{name}_{number}_ac001001.jpg", name, seed, number, view, shown)


def plan_labelled(world: int, count: int) -> Iterator[tuple[int, Photo]]:
    """(label, photograph) of a hand-sorted sample: half whole vases (1), half of all that is wrong (0), mostly broken.

    Its vases are the world's last ones, counted from the end, so that they are not among the first `vases`.
    """
    wrong = (*BROKEN, "blur", *BROKEN, "low_resolution", "missing", "cracked", "drawing", "not_a_vase")
    for k in range(count):
        seed = vase_seed(world, WORLD_SIZE - 1 - k)
        rng = np.random.default_rng([seed, 5])
        condition = "whole" if k % 2 else wrong[k // 2 % len(wrong)]
        photo = Photo(f"{guid(seed)}_1_ac001001.jpg", guid(seed), seed, 1, str(rng.choice(VIEWS)), condition)
        yield int(condition == "whole"), photo


# ---- records ----

COLUMNS = (
    "URI",
    "Vase Number",
    "Image GUID",
    "Fabric",
    "Technique",
    "Sub Technique",
    "Shape Name",
    "Provenance",
    "Date",
    "Inscriptions",
    "Attributed To",
    "Decoration",
    "Collection Record",
    "Publication Record",
    "Licence",
    "Credit Line",
)
# Share of records whose field is empty. Provenance and attribution: about 60 % in the Beazley data.
_MISSING = {
    "Fabric": 0.05,
    "Technique": 0.15,
    "Shape Name": 0.03,
    "Provenance": 0.6,
    "Date": 0.65,
    "Attributed To": 0.6,
    "Decoration": 0.85,
    "Collection Record": 0.3,
    "Licence": 0.1,
}
_SHAPE_NAMES = {
    "bell-krater": ("KRATER, BELL", "BELL KRATER", "Bell-krater"),
    "kylix": ("CUP", "KYLIX", "Cup (kylix)"),
    "amphora": ("AMPHORA", "Amphora"),
}
_TECHNIQUES = {
    "black-figure": ("BLACK-FIGURE", "black figured", "Black-Figure"),
    "red-figure": ("RED-FIGURE", "red figured", "Red-Figure"),
    "white-ground": ("WHITE GROUND", "white-ground", "White-Ground"),
}
_DATES = ("-{0} to -{1}", "-{0} to -{1}", "c. {0}-{1} BCE", "{0}\u2013{1} BC", "{0}-{1} B.C.")
_PAINTERS = {
    ("black-figure", "plain"): ("LYDOS", "SOPHILOS", "KLEITIAS"),
    ("black-figure", "ornate"): ("ANTIMENES P", "LEAGROS GROUP", "PSIAX"),
    ("red-figure", "plain"): ("BERLIN P", "KLEOPHRADES P", "DOURIS"),
    ("red-figure", "ornate"): ("POLYGNOTOS", "ERETRIA P", "KLEOPHON P"),
    ("white-ground", "plain"): ("PISTOXENOS P", "SOTADES P"),
    ("white-ground", "ornate"): ("ACHILLES P", "REED P"),
}
_PLACES = ("ETRURIA, VULCI", "ATHENS, KERAMEIKOS", "SICILY, GELA", "CERVETERI", "BOEOTIA", "NOLA")
_SCENES = {
    "warrior": ("WARRIOR", "WARRIOR WITH SHIELD AND SPEAR"),
    "horse": ("HORSE",),
    "owl": ("OWL",),
    "ship": ("SHIP", "SHIP WITH SAIL"),
    "dolphin": ("DOLPHIN", "DOLPHIN OVER WAVES"),
    "lyre": ("LYRE",),
}
_LICENCES = ("CC0 1.0", "CC BY 4.0", "CC BY-NC 4.0", "All rights reserved")


def record(seed: int) -> dict[str, str]:
    """The museum's record of a vase: right where it speaks, but with gaps and in many hands' spelling."""
    vase, rng = Vase(seed), np.random.default_rng([seed, 6])
    early, late = DATES[vase.technique, vase.style]
    painter = str(rng.choice(_PAINTERS[vase.technique, vase.style]))
    if rng.random() < 0.3:
        painter = f"<em>{rng.choice(['Manner of', 'Near', 'Follower of'])}</em> {painter}"
    if rng.random() < 0.3:
        painter += f" by {rng.choice(['BEAZLEY', 'HASPELS', 'OAKLEY'])}"
    number = 300_000 + seed % 1_000_000
    row = dict.fromkeys(COLUMNS, "") | {
        "URI": f"https://example.org/vases/{number}",
        "Vase Number": str(number),
        "Image GUID": guid(seed),
        "Fabric": str(rng.choice(["ATHENIAN", "Attic", "Athenian"])),
        "Technique": str(rng.choice(_TECHNIQUES[vase.technique])),
        "Shape Name": str(rng.choice(_SHAPE_NAMES.get(vase.shape, (vase.shape.upper(), vase.shape.title())))),
        "Provenance": str(rng.choice(_PLACES)),
        "Date": str(rng.choice(_DATES)).format(early, late),
        "Attributed To": painter,
        "Decoration": "A: " + str(rng.choice(_SCENES[vase.motif])),
        "Collection Record": f"Museum of the Built-in World: {number % 1000}.{seed % 97}",
        "Licence": str(rng.choice(_LICENCES)),
        "Credit Line": f"Photograph: Museum of the Built-in World, {number}",
    }
    for column, share in _MISSING.items():
        if rng.random() < share:
            row[column] = ""
    return row


# ---- delivery ----


def deliver(world: int, vases: int, views: int, labelled: int, turntable: int, size: int, folder: Path) -> Counter[str]:
    """Write photos/, records.csv, truth.json, labelled/{0,1} and turntable/ into `folder`; counts by condition."""
    photos = list(plan(world, vases, views))
    sample = list(plan_labelled(world, labelled))
    jobs = [(p, size, folder / "photos" / p.image) for p in photos]
    jobs += [(p, size, folder / "labelled" / str(label) / p.image) for label, p in sample]
    spins = sorted({p.seed for p in photos if p.condition == "whole"}) if turntable else []
    for parent in {path.parent for *_, path in jobs}:
        parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        # Chunks keep the photographs of one vase in one process, which then paints its wall once.
        list(pool.map(_save, jobs, chunksize=16))
        list(pool.map(_spin, [(seed, turntable, size, folder / "turntable" / guid(seed)) for seed in spins]))
    files.write_text(folder / "records.csv", _records_csv(dict.fromkeys(p.seed for p in photos)))
    files.write_json(folder / "truth.json", [p.truth() for p in photos])
    return Counter(p.condition for p in photos)


def _save(job: tuple[Photo, int, Path]) -> None:
    photo, size, path = job
    photo.take(size).save(path, quality=90)


def _spin(job: tuple[int, int, int, Path]) -> None:
    """Frames of one turn: the same light and backdrop, the vase turned a little further each time."""
    seed, frames, size, folder = job
    folder.mkdir(parents=True, exist_ok=True)
    vase = _vase(seed)
    for k in range(frames):
        camera = Camera(2 * np.pi * k / frames, np.deg2rad(8))
        picture = render.shoot(vase, camera, "whole", size, np.random.default_rng([seed, 7]))
        picture.save(folder / f"frame_{k:02d}.jpg", quality=90)


def _records_csv(seeds: dict[int, None]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator=os.linesep)
    writer.writeheader()
    writer.writerows(record(seed) for seed in seeds)
    return buffer.getvalue()
