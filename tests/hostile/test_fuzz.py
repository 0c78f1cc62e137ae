"""Anything at all goes in; what comes out is right, or one line that names what is wrong.

A few examples each, the same ones each time. `FUZZ_SECONDS=60 pytest tests/hostile/test_fuzz.py` looks
for new ones, a minute each.
"""

import io
import os
import tempfile
import time
import warnings
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from lessonkit.comparison import summarize
from lessonkit.images import ImageSet
from lessonkit.photos.photo_cache import DamagedPhoto, read_photo
from lessonkit.subset_selection import select_subset

SECONDS = float(os.environ.get("FUZZ_SECONDS", 0))


def fuzz(*strategies, examples):
    """Try so many examples, or, where a time is set, new ones until it is over."""

    def decorate(body):
        @wraps(body)
        def test():
            options = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None,
                       "print_blob": True, "phases": (Phase.generate,)}
            end = time.monotonic() + SECONDS
            # what fails is told as it was found: making it smaller could take longer than all the rest
            while True:
                number, same = (100, False) if SECONDS else (examples, True)
                settings(max_examples=number, derandomize=same, **options)(given(*strategies)(body))()
                if time.monotonic() >= end:
                    return

        del test.__wrapped__  # or pytest would take the arguments for fixtures
        return test

    return decorate


def one_line(error):
    return str(error).strip() and "\n" not in str(error)


# --- select_subset


@st.composite
def features(draw):
    """Rows of any scale, with copies, near copies, marks for missing values, columns that are all
    alike."""
    n, d = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = (rng.standard_normal((n, d)) * 10.0 ** draw(st.integers(-160, 140)) if draw(st.booleans())
         else rng.integers(-3, 4, (n, d)).astype(float))
    if draw(st.booleans()):  # copies, and some of them differ in the last digit
        x = x[rng.integers(0, n, n)]
        x = np.where(rng.random(x.shape) < draw(st.sampled_from([0, 0.3])), np.nextafter(x, np.inf), x)
    if draw(st.booleans()):
        x[rng.random(x.shape) < 0.1] = draw(
            st.sampled_from([-999.0, -999_999, 1e9, 1e14, 0, 1e-30]) | st.floats(width=32)
        )
    if draw(st.booleans()):
        x[:, rng.integers(d)] += draw(st.sampled_from([1.7e9, 1e15, -1e6]))
    with np.errstate(all="ignore"):
        return x.astype(draw(st.sampled_from(["f8", "f8", "f4", "f2", "i8"])))


@fuzz(features(), st.floats(0, 1),
      st.sampled_from(["facility_location", "k_center", "herding", "random"]), st.integers(1, 4),
      st.sampled_from(["euclidean", "cosine"]), examples=25)
def test_a_subset_is_one_or_the_rows_that_prevent_it_are_named(x, share, method, classes, similarity):
    n, labels = round(share * len(x)), np.arange(len(x)) % classes
    with np.errstate(all="raise", under="ignore"):
        try:
            subset = select_subset(x, n, labels, method, similarity=similarity)
        except ValueError as error:
            assert one_line(error) and "row" in str(error).lower()
            return
    assert (len(set(subset.indices.tolist())) == n == len(subset.indices)
            and subset.weights.sum() == (len(x) if n else 0))
    assert np.isfinite(subset.gains).all() and (subset.weights >= 0).all()
    if method == "facility_location":
        for label in range(classes):
            gains = subset.gains[labels[subset.indices] == label]
            assert (np.diff(gains) <= 0).all() and (gains >= -1e-12 * gains.max(initial=0)).all()
    # the order of rows decides among copies alone; here these are equal
    if method != "random" and similarity == "euclidean":
        back = select_subset(x[::-1], n, labels[::-1], method, similarity=similarity)
        # 5e-324 may count as 0
        np.testing.assert_allclose(x[::-1][back.indices], x[subset.indices], rtol=0, atol=1e-300)


# --- from_csv

NAMES = ["1.png", "2.png", "deep/3.png", "ü 4.png", "a,b.png", "it's \"5\".png"]
CELLS = st.sampled_from([*NAMES, "1.PNG", "./1.png", "../1.png", "no.png", "", " ", "cat", "owl", "0",
                         "1", "true", "train", "valid", "NA", "nan", "1e3"]) | st.text(max_size=6)
HEADS = st.sampled_from(["path", "File", "image", "label", "class", " Label ", "is_valid", "split",
                         "cat", "owl", "id", "", "path", "label"]) | st.text(max_size=5)


@st.composite
def tables(draw):
    """Bytes of a table: as one would write it, or nearly so, or anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=80))
    separator = draw(st.sampled_from([",", ";", "\t", " ", "|"]))
    if draw(st.booleans()):
        heads = draw(st.sampled_from([["path", "label"], ["label", "file"], ["image", "cat", "owl"],
                                      ["path", "class", "split"], ["path", "label", "is_valid"]]))
        rows = [[name,
                 *draw(st.lists(st.sampled_from(["cat", "owl", "0", "1", "valid", "train"]),
                                min_size=len(heads) - 1, max_size=len(heads) - 1))]
                for name in draw(st.permutations(NAMES))]
    else:
        heads = draw(st.lists(HEADS, min_size=1, max_size=4))
        rows = draw(st.lists(st.lists(CELLS, min_size=max(1, len(heads) - 1), max_size=len(heads) + 1),
                             max_size=6))
    quote = draw(st.booleans())

    def cell(value):
        return '"' + value.replace('"',
                                   '""') + '"' if quote or separator in value or '"' in value else value

    end = draw(st.sampled_from(["\n", "\r\n", "\n\n"]))
    text = end.join(separator.join(map(cell, row)) for row in [heads, *rows]) + draw(
        st.sampled_from(["", end])
    )
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"])), "replace")


@fuzz(tables(), st.sampled_from([None, None, None, ";", ","]),
      st.sampled_from(["utf-8-sig", "utf-8-sig", "latin-1"]), examples=25)
def test_a_table_gives_photos_that_are_there_or_says_what_is_wrong(content, sep, encoding):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "deep").mkdir()
        for name in NAMES:
            (root / name).write_bytes(b"")
        (root / "table.csv").write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                images = ImageSet.from_csv(root / "table.csv", sep=sep, encoding=encoding)
        except ValueError as error:
            assert one_line(error)
            return
        assert len(images) and all(path.is_file() and path.resolve().is_relative_to(root.resolve())
                                   for path in images.paths)
        assert len(set(images.paths)) == len(images) == len(images.labels) == len(images.split)
        names = [images.classes[label] for label in images.labels]
        assert (list(images.classes) == sorted(set(images.classes)) and set(names) <= set(images.classes)
                and all(name.strip() for name in names))
        assert set(images.split) <= {"train", "valid", "test"} and "train" in images.split


# --- read_photo


def file_of(kind, mode, size=(7, 5), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert("RGB" if mode == "P" else "RGBA" if mode == "LA" else mode
                                    if mode in ("RGBA", "RGB", "L", "CMYK", "1")
                                    else "RGB").convert(mode).save(content, kind, **options)
    return content.getvalue()


WHOLE = [
    file_of("PNG", "RGBA"), file_of("PNG", "P"), file_of("PNG", "LA"), file_of("PNG", "1"),
    file_of("JPEG", "RGB"), file_of("JPEG", "L", (40, 30), progressive=True),
    file_of("JPEG", "CMYK"), file_of("GIF", "P"), file_of("BMP", "RGB"),
    file_of("TIFF", "RGB", compression="tiff_lzw"), file_of("TIFF", "CMYK"), file_of("PPM", "L"),
    file_of("TGA", "RGBA"), file_of("ICO", "RGBA", (16, 16)), file_of("PCX", "RGB"),
    file_of("SGI", "RGB"), file_of("DDS", "RGBA"), file_of("JPEG2000", "RGB"), file_of("WEBP", "RGBA"),
]
PLACES = st.floats(0, 1)


@fuzz(st.sampled_from(WHOLE), st.sampled_from(WHOLE),
      st.lists(st.tuples(PLACES, st.integers(0, 255)), max_size=5), PLACES, PLACES,
      st.sampled_from(["changed", "cut", "spliced", "doubled", "bytes"]), st.binary(max_size=40),
      st.sampled_from([None, 1, 4, 9]), examples=60)
def test_bytes_are_a_photo_or_a_damaged_one(whole, other, changes, first, second, how, more, shorter):
    here, there = sorted((round(first * len(whole)), round(second * len(whole))))
    content = {"changed": whole, "cut": whole[:here] + whole[there:],
               "spliced": whole[:here] + other[min(there, len(other)):],
               "doubled": whole[:there] + whole[here:], "bytes": whole[:4] + more}[how]
    content = bytearray(content)
    for place, value in changes:
        if content:
            content[min(int(place * len(content)), len(content) - 1)] = value
    largest = Image.MAX_IMAGE_PIXELS
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about strange files
        path = Path(folder) / "photo.jpg"
        path.write_bytes(content)
        Image.MAX_IMAGE_PIXELS = 10**6  # a size that a changed byte tells must not fill the memory
        try:
            photo = read_photo(path, shorter)
        except DamagedPhoto as error:
            assert one_line(error) and "photo.jpg" in str(error) and error.path == path
            return
        finally:
            Image.MAX_IMAGE_PIXELS = largest
    assert (photo.mode == "RGB" and min(photo.size) > 0
            and len(photo.tobytes()) == 3 * photo.width * photo.height)
    if how == "changed" and not changes and shorter is not None:
        assert min(photo.size) >= min(shorter, 5)


# --- summarize

VALUES = st.floats(0, 1) | st.floats() | st.sampled_from([0.5, 0.5, np.nan, np.inf, 1e308, -1e308,
                                                          5e-324])
STRANGE = VALUES | st.none() | st.text(max_size=3) | st.booleans() | st.integers(-(2**70), 2**70)


@st.composite
def trials(draw):
    values = draw(st.sampled_from([st.floats(0, 1), VALUES, VALUES, STRANGE]))
    rows = [
        {"technique": name, "seed": seed, "size": size, "epochs": 5, "accuracy": draw(values),
         "pixels": draw(st.sampled_from([1.0, 2.0]) | values), "id": f"{name}-{seed}-{size}"}
        for name in draw(st.lists(st.sampled_from(["baseline", "mixup", "tta", "a b"]), min_size=1,
                                  max_size=4))
        for seed in range(draw(st.integers(0, 6))) for size in draw(st.sampled_from([[32], [32, 64]]))
    ]
    table = pd.DataFrame(rows,
                         columns=["technique", "seed", "size", "epochs", "accuracy", "pixels", "id"])
    return table.drop(columns=draw(st.sampled_from([[], [], [], ["pixels"], ["seed"], ["accuracy"]])))


WORDS = {"reference", "helps", "hurts", "can't tell", "first look"}


@fuzz(trials(), st.sampled_from([0.95, 0.5, 1.0]) | st.floats(),
      st.sampled_from([0.01, 0.0]) | st.floats(), st.booleans(), st.integers(0, 9), examples=25)
def test_a_table_of_trials_is_summarized_or_refused(table, confidence, margin, photos, seed):
    correct = None
    if (photos and "accuracy" in table
        and pd.to_numeric(table["accuracy"], errors="coerce").between(0, 1).all()):
        rng = np.random.default_rng(seed)
        correct = {i: rng.random(8) < 0.7 for i in table["id"]}
        table = table.assign(
            accuracy=[right.mean() for right in correct.values()] if len(correct) == len(table) else 0.5
        )
    options = {"confidence": confidence, "margin": margin, "correct": correct}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("error")
        try:
            found = summarize(table, **options)
        except (ValueError, TypeError) as error:
            assert one_line(error)
            return
        shuffled = summarize(table.sample(frac=1, random_state=seed), **options)
    for row in found.itertuples():
        assert row.verdict in WORDS or row.verdict.startswith("no difference beyond")
        if row.verdict != "reference":
            assert 0 <= row.level <= 1 and (
                row.low <= row.high or np.isnan(row.low) or np.isnan(row.high)
            )
            assert (not np.isfinite([row.low, row.high]).all()
                    or row.low <= row.difference + 1e-9 * abs(row.difference)
                    and row.high >= row.difference - 1e-9 * abs(row.difference))
            assert row.verdict not in ("helps", "hurts") or (row.low > 0) == (row.verdict == "helps")
    order = ["technique", "size"]
    if len(found):
        one, two = (frame.sort_values(order).reset_index(drop=True) for frame in (found, shuffled))
        pd.testing.assert_frame_equal(one, two, check_exact=False, rtol=1e-6, atol=1e-9)


def test_the_time_that_is_set_is_used(monkeypatch):
    monkeypatch.setitem(globals(), "SECONDS", 1e-9)
    tried = []

    @fuzz(st.integers(), examples=1)
    def body(value):
        tried.append(value)

    body()
    assert len(tried) > 1
