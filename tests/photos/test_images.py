"""Photos in: the faults that users of other libraries met, each as a test of what must come out
instead."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import fastai.callback.schedule  # noqa: F401  adds fit_one_cycle to Learner
import numpy as np
import processes
import pytest
from decoding import decode_and_wait, decode_with_little_room
from noise import save_noise
from PIL import Image

from lessonkit.foundation.files import cache_dir
from lessonkit.images import ImageSet, decode, load_images
from lessonkit.photos.photo_cache import DamagedPhoto, cached_photos, read_photo


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


# Lists of files


def test_order_and_split_do_not_depend_on_the_operating_system(folder, monkeypatch):
    usual = ImageSet.from_folder(folder)
    scandir = os.scandir

    class Reversed:
        def __init__(self, path="."):
            with scandir(path) as entries:
                self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

        def __iter__(self):
            return self

        def __next__(self):
            return next(self.entries)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def close(self):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert [path.name for path in os.scandir(folder)] == ["dog", "cat"]
    other = ImageSet.from_folder(folder)
    assert (other.paths == usual.paths and (other.split == usual.split).all()
            and other.classes == usual.classes)


def test_a_new_photo_leaves_the_split_of_the_other_classes_alone(folder):
    usual = ImageSet.from_folder(folder)
    before = dict(zip(usual.paths, usual.split))
    save_noise(folder / "cat" / "new.png", seed=99)
    after = ImageSet.from_folder(folder)
    assert all(before[path] == part
               for path, part in zip(after.paths, after.split) if path.parent.name == "dog")


def test_every_class_is_split_and_a_class_of_one_stays_in_training(tmp_path):
    for label, n in {"one": 1, "two": 2, "many": 50}.items():
        for number in range(n):
            save_noise(tmp_path / label / f"{number}.png", size=(4, 4))
    counts = ImageSet.from_folder(tmp_path, valid_fraction=0.2).counts()
    assert counts["valid"].to_dict() == {"many": 10, "one": 0, "two": 1}


@pytest.mark.parametrize("part", ["val", "valid", "test"])
def test_imagenette_layout(tmp_path, part):
    for place, label in (("train", "a"), ("train", "b"), (part, "b")):
        save_noise(tmp_path / place / label / "1.png", size=(4, 4))
    found = ImageSet.from_folder(tmp_path)
    assert sorted(found.split) == ["train", "train", "valid"]
    assert found.paths[found.indices("valid")[0]].parts[-3:] == (part, "b", "1.png")


def test_listing_opens_no_file(folder, monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened a photo"))
    assert len(ImageSet.from_folder(folder)) == 20


STRANGE = ["it's \"fine\"", "<script>alert(1)<", "ünï 😀", "new\nline", " spaces ", "%s {x}", "n" * 255]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids these names")
def test_strange_names_are_names_like_any_other(tmp_path):
    for label in STRANGE:
        for number in range(2):
            save_noise(tmp_path / label / f"{number}.png", size=(6, 6), seed=number)
    found = ImageSet.from_folder(tmp_path)
    assert sorted(found.classes) == sorted(STRANGE)
    assert decode(found, 4).shape == (len(STRANGE) * 2, 3, 4, 4)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_hidden_files_other_files_and_links_in_circles(folder):
    (folder / "cat" / "notes.txt").write_text("not a picture")
    (folder / "cat" / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / "cat" / "again").symlink_to(folder, target_is_directory=True)
    assert len(ImageSet.from_folder(folder)) == 20


def test_a_class_without_pictures_is_told_and_is_none(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "read me.txt").write_text("no picture")
    with pytest.warns(UserWarning, match="No pictures in notes of .*: not counted as classes"):
        found = ImageSet.from_folder(folder)
    assert "notes" not in found.classes


def test_folders_that_cannot_be_used_say_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        ImageSet.from_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected class folders"):
        ImageSet.from_folder(tmp_path)
    save_noise(tmp_path / "a" / "1.png")
    with pytest.raises(ValueError, match="at least two"):
        ImageSet.from_folder(tmp_path)
    save_noise(tmp_path / "b" / "1.png")
    with pytest.raises(ValueError, match="single photo"):
        ImageSet.from_folder(tmp_path)
    file = save_noise(tmp_path / "b" / "2.png")
    with pytest.raises(ValueError, match="not a folder"):
        ImageSet.from_folder(file)


def test_a_class_with_nothing_to_train_on_is_named(tmp_path):
    for place in ("train/a/1", "train/b/1", "val/a/1", "val/strange/1"):
        save_noise(tmp_path / f"{place}.png", size=(4, 4))
    with pytest.raises(ValueError, match="strange"):
        ImageSet.from_folder(tmp_path)


# Tables


def write_table(folder: Path, *lines: str, encoding="utf-8") -> Path:
    table = folder / "table.csv"
    table.write_text("\n".join(lines), encoding=encoding)
    return table


def test_a_table_in_the_manner_of_noisy_imagenette(folder):
    rows = [f"{p.parent.name}/{p.name},{p.parent.name},{p.name in ('0.png', '10.png')}"
            for p in ImageSet.from_folder(folder).paths]
    random.Random(0).shuffle(rows)
    found = ImageSet.from_csv(write_table(folder, "path,noisy_labels_0,is_valid", *rows),
                              label_col="noisy_labels_0")
    assert [f"{p.parent.name}/{p.name}" for p in found.paths] == [row.split(",")[0] for row in rows]
    assert [found.classes[label] for label in found.labels] == [row.split(",")[1] for row in rows]
    assert {found.paths[i].name for i in found.indices("valid")} == {"0.png", "10.png"}


@pytest.mark.parametrize(
    "row, message",
    [
        ("../../etc/passwd,cat", r"leaves .* line 4"),
        ("cat/../../other.png,cat", "leaves"),
        ("/etc/hostname,cat", "leaves"),
        ("..\\x.png,cat", "leaves"),
        ("C:/x.png,cat", "leaves"),
        ("cat/0.png,cat", "earlier row"),
        ("cat/./0.png,cat", "earlier row"),
        ("cat/none.png,cat", "isn't in"),
        ("cat/1.png,", "nothing in column 'label'"),
        (",cat", "nothing in column 'path'"),
    ],
)
def test_rows_that_cannot_be_used_are_named(folder, row, message):
    table = write_table(folder, "path,label", "cat/0.png,cat", "dog/10.png,dog", row)
    with pytest.raises(ValueError, match=message):
        ImageSet.from_csv(table)


def test_tables_that_cannot_be_read(folder):
    with pytest.raises(ValueError,
                       match="no column of classes; its columns are path, kind. Name it: label_col="):
        ImageSet.from_csv(write_table(folder, "path,kind", "cat/0.png,cat"))
    with pytest.raises(ValueError, match="no rows"):
        ImageSet.from_csv(write_table(folder, "path,label"))
    with pytest.raises(ValueError, match="can't be read"):
        ImageSet.from_csv(write_table(folder, ""))
    with pytest.raises(ValueError, match="encoding='latin-1'"):
        ImageSet.from_csv(write_table(folder, "path,label", "cat/0.png,Kätzchen", encoding="latin-1"))
    with pytest.raises(ValueError, match="can't be read"):
        ImageSet.from_csv(folder / "none.csv")


# One photo


MODES = ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [0, 255])
def test_black_is_black_and_white_is_white_in_every_mode(tmp_path, mode, level):
    if mode == "I;16":
        picture = Image.fromarray(np.full((9, 9), level * 257, dtype=np.uint16))
    else:
        picture = Image.new("RGB", (9, 9), (level,) * 3).convert(mode)
    path = tmp_path / ("photo.tif" if mode == "CMYK" else "photo.png")
    picture.save(path)
    assert np.asarray(read_photo(path)).tolist() == np.full((9, 9, 3), level).tolist()


def test_a_sixteen_bit_ramp_keeps_its_brightness(tmp_path):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
    Image.fromarray(np.tile(ramp, (2, 1))).save(tmp_path / "ramp.png")
    assert np.abs(np.asarray(read_photo(tmp_path / "ramp.png"))[0, :, 0].astype(int)
                  - np.arange(256)).max() <= 1


def test_palette_with_transparency_lies_on_white(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((0, 0), 1)
    picture.save(tmp_path / "p.png", transparency=0)
    pixels = np.asarray(read_photo(tmp_path / "p.png"))
    assert pixels[0, 0].tolist() == [0, 0, 255] and pixels[1, 1].tolist() == [255, 255, 255]


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK").save(tmp_path / "c.jpg", quality=95)
    assert np.abs(np.asarray(read_photo(tmp_path / "c.jpg")).astype(int) - [200, 30, 30]).max() < 12


@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_large_jpegs_stay_upright_when_decoded_at_a_fraction(tmp_path, tag):
    picture = Image.new("RGB", (1600, 1200), "blue")
    picture.paste("red", (0, 0, 800, 1200))  # red on the left
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270}.get(tag)
    exif = Image.Exif()
    exif[0x0112] = tag
    (picture.transpose(turn) if turn is not None else picture).save(tmp_path / "x.jpg", exif=exif)
    small = read_photo(tmp_path / "x.jpg", shorter=64)
    assert small.width > small.height >= 128 and small.width < 1600
    assert small.getpixel((5, 5))[0] > 200 and small.getpixel((small.width - 5, 5))[2] > 200


def test_reading_at_a_fraction_gives_nearly_the_same_picture(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    smooth.save(tmp_path / "x.jpg", quality=95)
    reduced = cached_photos([tmp_path / "x.jpg"], 96)[0][0]
    full = np.asarray(Image.open(tmp_path / "x.jpg").crop((200, 0, 1400, 1200)).resize(
        (96, 96), Image.Resampling.BILINEAR
    ))
    assert np.abs(reduced.astype(int) - full).mean() < 1.5


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_half_written_photo_is_named_when_it_is_read_not_hours_later(folder, share, kind):
    whole = save_noise(folder / "cat" / f"whole.{kind}", size=(80, 80)).read_bytes()
    (folder / "cat" / f"half.{kind}").write_bytes(whole[: int(len(whole) * share)])
    found = ImageSet.from_folder(folder)
    with pytest.raises(DamagedPhoto, match=f"half.{kind}"):
        decode(found, 16)
    report = found.check(progress=False)
    assert ([path.name for path in report.path] == [f"half.{kind}"]
            and report.problem.tolist() == ["damaged"])
    assert decode(found.without_bad(report), 16).shape == (21, 3, 16, 16)


def test_other_damage(folder):
    (folder / "cat" / "zero.jpg").write_bytes(b"")
    (folder / "cat" / "text.jpg").write_text("I am a text")
    (folder / "cat" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    Image.fromarray(np.zeros((3, 3), dtype=np.float32)).save(folder / "cat" / "float.tif")
    report = ImageSet.from_folder(folder).check(progress=False)
    assert {path.name: problem for path, problem in zip(report.path, report.problem)} == {
        "zero.jpg": "empty", "text.jpg": "damaged", "gone.jpg": "damaged", "float.tif": "damaged"}
    assert "floating-point" in report.detail[report.path.map(lambda path: path.name)
                                             == "float.tif"].item()


def test_a_decompression_bomb_is_refused_by_name(folder, monkeypatch):
    save_noise(folder / "cat" / "bomb.png", size=(64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DamagedPhoto, match="bomb.png.*pixels"):
        read_photo(folder / "cat" / "bomb.png")


def test_a_photo_that_vanishes_between_listing_and_reading(folder):
    found = ImageSet.from_folder(folder)
    found.paths[3].unlink()
    with pytest.raises(DamagedPhoto,
                       match=f"cat/{found.paths[3].name} can't be decoded: there is no such file"):
        decode(found, 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("fit", ["crop", "squish", "pad"])
def test_extreme_shapes_decode(tmp_path, size, fit):
    path = save_noise(tmp_path / "x.png", size=size)
    assert cached_photos([path], 8, fit)[0].shape == (1, 8, 8, 3)


def test_a_photo_on_both_sides_of_the_split_is_reported_first(tmp_path):
    seeds = iter(range(100))
    for place in ("train/a", "train/b", "val/a", "val/b"):
        for number in range(3):
            save_noise(tmp_path / place / f"{number}.png", seed=next(seeds))
    # the same pixels in another format
    Image.open(tmp_path / "train/a/0.png").save(tmp_path / "val/b/copy.bmp")
    Image.open(tmp_path / "train/a/1.png").save(tmp_path / "train/a/copy.png")
    (tmp_path / "train/a/2.png").write_bytes(b"broken")
    report = ImageSet.from_folder(tmp_path).check(progress=False)
    assert report.problem.tolist() == ["on both sides of the split", "damaged", "duplicate"]
    assert "which is called 'a'" in report.detail[0]


def test_removing_bad_photos_says_how_many_and_which(folder, capsys):
    (folder / "cat" / "3.png").write_bytes(b"broken")
    found = ImageSet.from_folder(folder)
    left = found.without_bad()
    assert "Left out 1 of 20 photos" in (said := capsys.readouterr().out) and "3.png" in said
    assert [path for path in found.paths if path.name != "3.png"] == left.paths
    assert (left.labels == [found.labels[found.paths.index(path)] for path in left.paths]).all()


# The cache


def test_another_content_under_the_same_name_is_decoded_anew(folder):
    found = ImageSet.from_folder(folder)
    before = decode(found, 8).copy()
    save_noise(found.paths[0], seed=1234, size=(25, 18))
    after = decode(found, 8)
    assert (before[0] != after[0]).any() and (before[1:] == after[1:]).all()


@pytest.fixture
def large_folder(tmp_path) -> Path:
    for label in ("a", "b"):
        photo = save_noise(tmp_path / label / "0.jpg", size=(400, 400), seed=ord(label))
        for number in range(1, 20):
            os.link(photo, tmp_path / label / f"{number}.jpg")
    return tmp_path


def begin(found: ImageSet, size: int, stop: str, at: int = 0):
    """Start a process that decodes photos, and wait until it has come to where it stops; the process,
    and what lets it go on."""
    there, go_on = processes.event(), processes.event()
    child = processes.start(decode_and_wait, found.paths, size, stop, at, there, go_on,
                            folder=cache_dir())
    there.wait()
    return child, go_on


@pytest.mark.usefixtures("warm")
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of other systems")
def test_a_kill_in_the_middle_never_leaves_a_bad_cache(large_folder):
    photos, found = cache_dir() / "photos", ImageSet.from_folder(large_folder)
    for stop, at in (("fit_photo", 0), ("fit_photo", 20), ("fit_photo", 39), ("os.rename", 0)):
        child, _ = begin(found, 128, stop, at)
        child.kill()
        child.join()
        assert list(photos.iterdir()) and all(".making-" in made.name for made in photos.iterdir())
    expected = np.stack([np.asarray(read_photo(path).resize((128, 128), Image.Resampling.BILINEAR))
                         for path in found.paths[:2]])
    made = decode(found, 128)
    assert made.shape == (40, 3, 128, 128) and (made[:2].transpose(0, 2, 3, 1) == expected).all()


@pytest.mark.usefixtures("warm")
def test_two_processes_at_once_get_the_same(large_folder):
    children = [begin(ImageSet.from_folder(large_folder), 96, "os.rename") for _ in range(2)]
    for child, go_on in children:  # both have decoded all, and neither has its folder in place
        go_on.set()
        child.join()
    assert [child.exitcode for child, _ in children] == [0, 0]
    assert [".making-" in made.name for made in (cache_dir() / "photos").iterdir()] == [False]


@pytest.mark.usefixtures("warm")
@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are of other systems")
def test_a_write_that_fails_is_an_error_and_leaves_nothing(large_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("said")
    child = processes.start(decode_with_little_room, ImageSet.from_folder(large_folder).paths, 128,
                            folder=folder)
    child.join()
    said = (folder / "said.txt").read_text(encoding="utf-8").strip().splitlines()
    assert child.exitcode == 1 and "LESSONKIT_CACHE" in said[-1]
    assert list((cache_dir() / "photos").iterdir()) == []
    assert decode(ImageSet.from_folder(large_folder), 128).shape == (40, 3, 128, 128)


def test_too_little_space_is_said_before_the_work(folder, monkeypatch):
    from lessonkit.photos import photo_cache

    monkeypatch.setattr(photo_cache.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="LESSONKIT_CACHE"):
        decode(ImageSet.from_folder(folder), 64)


@pytest.mark.skipif(sys.platform == "win32", reason="no maximum memory is told there")
def test_memory_stays_flat(large_folder):
    """In a process that did nothing else before, which decodes a few photos first."""
    code = """
import json, resource, sys
from lessonkit.photos.photo_cache import cached_photos
paths = json.loads(sys.argv[1])
cached_photos(paths, 8, progress=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made, _ = cached_photos((paths * 4)[:150], 640, progress=False)
unit = 1 if sys.platform == "darwin" else 1024
print(made.nbytes, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)
"""
    paths = json.dumps([str(path) for path in ImageSet.from_folder(large_folder).paths])
    run = subprocess.run([sys.executable, "-c", code, paths], capture_output=True, text=True, check=True)
    array, grown = map(int, run.stdout.split())
    assert array > 180e6 and grown < 0.4 * array


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a user's folders private by itself")
def test_the_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "new"))
    assert cache_dir().stat().st_mode & 0o077 == 0


# Batches


def test_a_mask_takes_the_masked_rows(folder):
    found = ImageSet.from_folder(folder)
    assert found.take(found.labels == 1).paths == [
        path for path, label in zip(found.paths, found.labels) if label == 1
    ]
    for rows in ([0.5], [True, False], ["a"]):
        with pytest.raises(ValueError):
            found.take(rows)


def test_parts_that_would_be_changed_in_silence_are_refused():
    with pytest.raises(ValueError, match="whole numbers"):
        ImageSet(["a.png", "b.png"], [0.7, 1.2], ["a", "b"], ["train", "valid"])
    with pytest.raises(ValueError, match="trainer"):
        ImageSet(["a.png", "b.png"], [0, 1], ["a", "b"], ["trainer", "valid"])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_class_that_links_to_its_own_folder_is_refused(folder):
    (folder / "self").symlink_to(folder, target_is_directory=True)
    with pytest.raises(ValueError, match="self is a link"):
        ImageSet.from_folder(folder)


def test_a_class_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    scandir = os.scandir

    def refuse(path="."):
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="dog can't be read"):
        ImageSet.from_folder(folder)


def test_rows_longer_than_the_header_are_refused(folder):
    with pytest.raises(ValueError, match="more values than the header"):
        ImageSet.from_csv(write_table(folder, "label,path", "cat,cat/0.png,x", "dog,dog/10.png,x"))
    with pytest.raises(ValueError, match="line 5"):
        ImageSet.from_csv(write_table(folder, "path,label", "cat/0.png,cat", "dog/10.png,dog",
                                      "cat/1.png,cat", "no.png,dog"))


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00\x04\x00{'a'" + b"x" * 2000, b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["pictures.npy", "sizes.npy"])
def test_a_damaged_cache_heals(folder, damage, name):
    found = ImageSet.from_folder(folder)
    before = decode(found, 8).copy()
    made = next((cache_dir() / "photos").iterdir())
    (made / name).unlink()
    (made / name).write_bytes(damage)
    assert (decode(found, 8) == before).all()


def test_a_cache_that_cannot_be_used_says_what_to_set(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set LESSONKIT_CACHE"):
        decode(ImageSet.from_folder(folder), 8)


# Named sets


def test_without_a_network_a_named_set_says_what_to_do(tmp_path, monkeypatch):
    from fastai.data import external

    def refuse(url):
        raise OSError("no route to host")

    monkeypatch.setenv("FASTAI_HOME", str(tmp_path))
    monkeypatch.setattr(external, "untar_data", refuse)
    with pytest.raises(ConnectionError,
                       match="no route to host.*by hand.*imagenette2-160.*load_images\\('bundled'\\)"):
        load_images("imagenette2-160")


def test_the_environment_chooses_the_set(folder, monkeypatch):
    monkeypatch.setenv("LESSONKIT_IMAGES", str(folder))
    assert load_images().classes == ["cat", "dog"]
    with pytest.raises(ValueError, match="imagewoof2-160"):
        load_images("no such set")


CLOTHING = Path(__file__).resolve().parent.parent.parent.parent / "shared/data/clothing-160"


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="clothing-160, real photos, is not here")
def test_real_photos():
    found = ImageSet.from_folder(CLOTHING)
    assert (len(found), len(found.indices("train")), len(found.classes)) == (3781, 3068, 10)
    assert set(found.check(progress=False).problem) <= {"duplicate", "on both sides of the split",
                                                        "extreme"}
