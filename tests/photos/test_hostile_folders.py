"""Folders and tables that nobody would make on purpose: the right set, or one line that says what
to do."""

import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lessonkit.images import ImageSet, decode, image_dataloaders, load_images
from lessonkit.photos.photo_cache import DamagedPhoto

linux = pytest.mark.skipif(sys.platform == "win32", reason="links and such names are of other systems")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


def photo(path: Path, seed=0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(8):
        photo(tmp_path / "photos" / ("cat" if number < 4 else "dog") / f"{number}.png", number)
    return tmp_path / "photos"


def one_line_error(call, words=""):
    with pytest.raises((ValueError, TypeError, OSError, IndexError), match=words) as caught:
        call()
    assert str(caught.value) and "\n" not in str(caught.value)


# --- folders


@pytest.mark.parametrize("path, words",
                         [("x" * 5000, "There is no folder"), ("a\0b", "There is no folder"),
                          ("~nobody-of-that-name/x", "There is no folder"), (None, "PathLike"),
                          (5, "PathLike")])
def test_paths_that_no_folder_has(path, words):
    one_line_error(lambda: ImageSet.from_folder(path), words)
    if path:
        one_line_error(lambda: load_images(path), "neither a folder")


@linux
def test_links_to_each_other_are_no_classes(folder):
    (folder / "circle").symlink_to("circle")
    (folder / "nowhere").symlink_to("is not there")
    (folder / "cat" / "a.png").symlink_to("b.png"), (folder / "cat" / "b.png").symlink_to("a.png")
    found = ImageSet.from_folder(folder)
    assert found.classes == ["cat", "dog"] and len(found) == 10
    assert sorted(found.check(progress=False).path.map(lambda path: path.name)) == ["a.png", "b.png"]


@linux
def test_a_class_may_be_a_link_out_of_the_tree_but_is_not_looked_into_twice(folder, tmp_path):
    photo(tmp_path / "elsewhere" / "1.png", 50), photo(tmp_path / "elsewhere" / "2.png", 51)
    (folder / "fox").symlink_to(tmp_path / "elsewhere")
    (folder / "cat" / "more").symlink_to(tmp_path / "elsewhere")  # below a class no link is followed
    assert ImageSet.from_folder(folder).counts().sum(axis=1).to_dict() == {"cat": 4, "dog": 4, "fox": 2}


@linux
def test_names_that_are_no_text_are_read_and_printed(folder, capsys):
    for place in (b"cat", b"bird\xff"):
        os.makedirs(os.fsencode(folder) + b"/" + place, exist_ok=True)
        for number in range(2):
            with open(os.fsencode(folder) + b"/%s/\xfe%d.png" % (place, number), "wb") as file:
                file.write(
                    (folder / "dog" / f"{number + 4}.png").read_bytes() if number else b"no photo"
                )
    found = ImageSet.from_folder(folder)
    assert len(found) == 12 and found.classes[0] == "bird\udcff"
    assert decode(found.without_bad(), 4).shape == (10, 3, 4, 4)
    assert "bird\\udcff/\\udcfe0.png" in capsys.readouterr().out


def test_a_folder_called_by_number_and_one_called_by_word_stay_two_classes(tmp_path):
    for label in ("n01440764", "tench"):
        for number in range(2):
            photo(tmp_path / label / f"{number}.png", number)
    found = ImageSet.from_folder(tmp_path)
    assert (found.classes == ["n01440764", "tench"]
            and image_dataloaders(found, 4, 2).vocab == found.classes)
    one_line_error(lambda: ImageSet(["a.png"], [0], ["tench", "tench"], ["train"]), "same name")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the administrator may write "
                    "everywhere")
def test_a_folder_that_cannot_be_written_is_read(folder):
    for path in [*folder.rglob("*"), folder]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        assert decode(ImageSet.from_folder(folder), 4).shape == (8, 3, 4, 4)
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_reading_leaves_the_folder_as_it_was(folder):
    def everything():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size)
                for path in sorted(folder.rglob("*"))}

    before = everything()
    found = ImageSet.from_folder(folder)
    found.check(progress=False), found.without_bad(), decode(found, 4), image_dataloaders(found, 4,
                                                                                          2).one_batch()
    assert everything() == before


def test_a_photo_that_vanishes_while_training_is_named(folder):
    found = ImageSet.from_folder(folder)
    loaders = image_dataloaders(found, 4, 2)
    loaders.one_batch()  # decoded: it isn't needed any more
    found.paths[0].unlink()
    assert loaders.train.one_batch()[0].shape == (2, 3, 4, 4)
    for loader in loaders:
        loader.size = 40  # needs a larger array
    with pytest.raises(DamagedPhoto, match="0.png .*no such file"):
        [list(loader) for loader in loaders]


@pytest.mark.parametrize("call, words", [
    (lambda s: s.take([8]), "0 to 7"), (lambda s: s.take([-1]), "0 to 7"),
    (lambda s: s.take([[0]]), "shape"),
    (lambda s: s.take([float("nan")]), "whole numbers"), (lambda s: s.indices("all"), "not known"),
    (lambda s: s.without_bad(problems="damaged"), "list of some of"),
    (lambda s: s.without_bad(problems=["damged"]), "list of some of"),
    (lambda s: decode(s, 0), "size=0"), (lambda s: decode(s, True), "size=True"),
    (lambda s: decode(s, 4, "zoom"), "zoom"),
    (lambda s: decode(s.paths, 4), "ImageSet"), (lambda s: decode(s.take([]), 4), "no photos"),
    (lambda s: decode(s, 10**7), "smaller size"),
    (lambda s: image_dataloaders(s.paths), "ImageSet"),
    (lambda s: image_dataloaders(s.take([])), "no photos"),
    (lambda s: image_dataloaders(s, 4, augment="much"), "augment"),
    (lambda s: image_dataloaders(s, 4, normalize=3), "normalize"),
    (lambda s: ImageSet(s.paths, s.labels[:, None], s.classes, s.split), "shape"),
    (lambda s: ImageSet(s.paths, s.labels - 1, s.classes, s.split), "between 0 and 1"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_settings_that_make_no_sense(folder, call, words):
    one_line_error(lambda: call(ImageSet.from_folder(folder)), words)


@pytest.mark.parametrize("fraction", [0, 1, -1, float("nan"), float("inf"), "0.2", None])
def test_shares_that_are_none(folder, fraction):
    one_line_error(lambda: ImageSet.from_folder(folder, valid_fraction=fraction), "valid_fraction")


# --- tables

TABLE = "path,label\n" + "".join(f"{label}/{number}.png,{label}\n"
                                 for number, label in enumerate(["cat"] * 4 + ["dog"] * 4))


def read(folder, content, **options):
    file = folder / "table.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ImageSet.from_csv(file, **options)


@pytest.mark.parametrize("content, options", [
    (TABLE, {}), (b"\xef\xbb\xbf" + TABLE.encode(), {}), (TABLE.replace("\n", "\r\n"), {}),
    (TABLE.replace("\n", "\r"), {}),
    (TABLE.encode("utf-16"), {"encoding": "utf-16"}), (TABLE.replace("cat/", "cat\\"), {}),
    (TABLE.rstrip("\n"), {}),
    (TABLE.replace(",cat", ',"cat"'), {}), (TABLE.replace(",", ";"), {}), (TABLE.replace(",", "\t"), {}),
    ("more," + TABLE.replace("\n", "\nx,")[:-2], {}),
], ids=["plain", "mark", "crlf", "cr", "utf-16", "backslashes", "no end", "quotes", "semicolons", "tabs",
        "more columns"])
def test_tables_in_other_forms(folder, content, options):
    found = read(folder, content, **options)
    assert ([path.name for path in found.paths] == [f"{number}.png" for number in range(8)]
            and found.classes == ["cat", "dog"])


@pytest.mark.parametrize("content, options, words", [
    (TABLE.encode("utf-16"), {}, "pass its encoding"), (TABLE, {"encoding": "none"}, "encoding='none'"),
    (TABLE + "cat/0.png,cat,more\n", {}, "can't be read"),
    (TABLE + '"cat/0.png,cat\n', {}, "can't be read"),
    (TABLE + "cat/0.png\n", {}, "nothing in column 'label'"), (TABLE + "\n", {}, "line 10"),
    (TABLE + "a\0b,cat\n", {}, "line 10"),
    (TABLE + "x" * 5000 + ",cat\n", {}, "line 10"), (TABLE + "cat,cat\n", {}, "line 10"),
    (TABLE.replace("dog\n", "cat\n"), {}, "Only one class"),
    (TABLE, {"label_col": 0}, "no column 0"), (TABLE, {"valid_col": "v"}, "no column 'v'"),
    (bytes(range(256)) * 9, {}, "pass its encoding|can't be read"), (b"   \n \n", {}, "no column"),
    ('"pa\nth",label\nx,y\n', {}, "pa.+nth"),
])
def test_tables_that_say_nothing_usable(folder, content, options, words):
    one_line_error(lambda: read(folder, content, **options), words)


def calls_in(work) -> int:
    """How many functions are called: work that can be compared, on whatever machine."""
    count = 0

    def seen(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def test_ten_times_the_rows_are_ten_times_the_work(folder, monkeypatch):
    """Hundred thousands of rows are read in seconds, then: the work doesn't grow with the square of
    their number."""
    def table(n):
        return "path,label\n" + "\n".join(f"{'ab'[number % 2]}/{number}.png,{'ab'[number % 2]}"
                                          for number in range(n))

    one_line_error(lambda: read(folder, table(10_000)), "10000 row.*line 2, 3, 4, 5, 6 and 9995 more")
    asked = []
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path) or True)
    found = read(folder, table(10_000))
    assert (found.counts().values.tolist() == [[4_000, 1_000]] * 2
            and found.paths[9_999].name == "9999.png" and len(asked) == 10_000)
    few, many = (calls_in(lambda: read(folder, table(n))) for n in (400, 4_000))
    assert many < 11 * few


LETTERS = st.sampled_from(list('cat/dog0.png,;"\n\r\t\0 ..\\~é😀$=')) | st.characters(codec="utf-8")


@settings(deadline=None, derandomize=True, max_examples=250,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.one_of(
    st.text(LETTERS, max_size=60), st.binary(max_size=60),
    st.tuples(st.integers(0, len(TABLE)),
              st.text(LETTERS, max_size=8)).map(lambda change: TABLE[: change[0]] + change[1]
                                                + TABLE[change[0] :]),
))
def test_any_table_is_a_set_of_files_in_the_folder_or_one_line(folder, content):
    try:
        found = read(folder, content)
    except ValueError as error:
        assert str(error) and "\n" not in str(error)
    else:
        assert all(folder.resolve() in path.resolve().parents and path.is_file() for path in found.paths)
        assert (len({path.resolve() for path in found.paths}) == len(found)
                and {"train", "valid"} == set(found.split))
