"""How the command line reads photos: it says what it found, and takes what a folder or a table needs to
be understood."""

import numpy as np
import pytest
from PIL import Image

from lessonkit.cli import main

QUICK = ["--no-frozen", "--techniques", "label_smoothing", "--seeds", "1", "--size", "16", "--epochs",
         "1", "--batch-size", "8", "--width", "4", "--jobs", "1"]


@pytest.fixture
def shelves(tmp_path):
    rng = np.random.default_rng(0)
    for place in ("Fruit/Apple", "Fruit/Pear", "Milk/Oat", "Milk/Soy"):
        (tmp_path / "shop" / place).mkdir(parents=True)
        for number in range(6):
            picture = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
            picture.save(tmp_path / "shop" / place / f"{number}.png")
    return tmp_path / "shop"


def ablate(folder, out, capsys, *more):
    code = main(["ablate", str(folder), "--out", str(out), *QUICK, *more])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_it_says_which_classes_it_found_and_how_else_one_could_read_the_folder(
    shelves, tmp_path, capsys
):
    code, said, _ = ablate(shelves, tmp_path / "out", capsys)
    assert code == 0 and "24 photos of 4 classes" in said and "Apple 6, Oat 6, Pear 6, Soy 6" in said
    assert "there would be 2: classes='top', or --classes top" in said
    code, said, _ = ablate(shelves, tmp_path / "top", capsys, "--classes", "top")
    assert code == 0 and "24 photos of 2 classes" in said and "Fruit 12, Milk 12" in said


def test_a_table_with_columns_of_other_names(shelves, tmp_path, capsys):
    rows = [f"{path.relative_to(shelves).as_posix()};{path.parent.name};{path.stem in '01'}"
            for path in shelves.rglob("*.png")]
    table = shelves / "photos.csv"
    table.write_text("where;what;late\n" + "\n".join(rows) + "\n")
    code, _, told = ablate(table, tmp_path / "out", capsys, "--label-col", "what")
    assert code and "no column of paths" in told and "path_col" in told
    code, said, _ = ablate(table, tmp_path / "out", capsys, "--path-col", "where", "--label-col", "what",
                           "--valid-col", "late")
    assert code == 0 and "16 train, 8 valid" in said


def test_the_cache_is_told_and_cleared(shelves, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "cache"))
    assert ablate(shelves, tmp_path / "out", capsys)[0] == 0
    assert main(["cache"]) == 0
    kept = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
    said = capsys.readouterr().out
    assert kept and f"{tmp_path / 'cache'}: {kept / 1e6:,.1f} MB" in said and "--clear" in said
    assert main(["cache", "--clear"]) == 0 and "removed" in capsys.readouterr().out
    assert (not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
            and len(list(shelves.rglob("*.png"))) == 24)


def draw(*files, format="PNG"):
    """A photo of noise for each file, all different."""
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng([number, len(str(file))]).integers(
            0, 255, (20, 20, 3), dtype=np.uint8
        )
        Image.fromarray(noise).save(file, format=format)


def classes(root, *places, n=6):
    draw(*(root / place / f"{number}.png" for place in places for number in range(n)))
    return root


@pytest.mark.parametrize("places, told", [
    (["Training/cat", "Training/dog", "Test/cat", "Test/dog"],
     ["24 photos of 2 classes (12 train, 12 valid)",
      "Test is for validation, since there is no other part for it."]),
    (["TRAIN/cat", "TRAIN/dog", "Dev/cat", "Dev/dog", "testing/cat", "testing/dog"],
     ["(12 train, 12 valid, 12 test)", "Dev is for validation.",
      "testing isn't used: Dev is for validation."]),
    (["train/train/cat", "train/train/dog", "val/val/cat", "val/val/dog"],
     ["train/train is for training.", "(12 train, 12 valid)"]),
    (["archive/data/train/cat", "archive/data/train/dog", "archive/data/test/cat",
      "archive/data/test/dog"],
     ["Read in archive, the only folder.", "(12 train, 12 valid)", "cat 12, dog 12"]),
    (["train/cat", "train/dog", "test/test_folder"],
     ["(10 train, 2 valid)", "Left out, since train hold the classes: test."]),
    (["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"],
     ["fold2 is for validation, the other folds for training."]),
    (["train", "bus", "tram"], ["18 photos of 3 classes", "a fifth of each class is set aside"]),
])
def test_parts_in_many_places(tmp_path, capsys, places, told):
    code, said, _ = ablate(classes(tmp_path / "p", *places), tmp_path / "out", capsys)
    assert code == 0 and all(words in said for words in told), said


def test_folders_that_look_like_parts_may_be_classes(tmp_path, capsys):
    root = classes(tmp_path / "p", "train/a", "test/a")
    code, said, _ = ablate(root, tmp_path / "out", capsys, "--no-split-folders")
    assert code == 0 and "test 6, train 6" in said


def test_what_is_left_out_is_counted_aloud(tmp_path, capsys):
    root = classes(tmp_path / "p", "cat", "dog")
    draw(root / "cat" / "noend", root / "@eaDir" / "x.png", root / "sheet.png", root / "old.png",
         root / ".trash" / "x.png")
    draw(root / "dog" / "name.jpg?w=300", root / "dog" / "3d.mpo", format="JPEG")
    for name in ("cat/a.heic", "dog/b.HEIC", "dog/film.mp4", "dog/notes"):
        (root / name).write_bytes(b"no picture")
    code, said, _ = ablate(root, tmp_path / "out", capsys)
    assert code == 0 and "cat 7, dog 8" in said
    assert "Left out, as no class folder holds them: 2 photos, such as old.png." in said
    assert "Left out, as the system's own: @eaDir." in said
    assert "HEIC photos left out, since nothing here reads them: 2 (pip install pillow-heif)." in said
    assert "Left out, as they are no photos: 1 without an ending, 1 .mp4." in said


def test_photos_in_no_folder_at_all(tmp_path, capsys):
    draw(*(tmp_path / "phone" / f"IMG_{number}.png" for number in range(3)))
    code, _, told = ablate(tmp_path / "phone", tmp_path / "out", capsys)
    assert (code == 2 and "expected class folders" in told and "no class folder holds them: "
            "3 photos, such as IMG_0.png" in told)


@pytest.mark.parametrize("table, told", [
    ("path,lable\n{rows}",
     "no column of classes; its columns are path, lable. Did you mean 'lable'? Name it:"),
    ("path,label,split\n{parts}", "The column 'split' isn't read as parts, since 'maybe' is none."),
    ("file;Class;Set\n{semicolons}", "(10 train, 2 valid)"),
    ("{rows}", "The table has no header: its first column is read as the path, its second as the "
               "class."),
    ("image,cat,dog\n{hot}", "The columns cat, dog are read as one class each."),
    ("image,cat,dog\n{both}", "marks several classes for a photo"),
    ("path,label\n{absolute}", "12 photos of 2 classes"),
    ("path,label\n{outside}", "has a path that leaves"),
])
def test_tables_as_people_have_them(tmp_path, capsys, table, told):
    root = classes(tmp_path / "p", "cat", "dog")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    rows = {
        "rows": "{n},{c}", "parts": "{n},{c},maybe", "absolute": "{r}/{n},{c}",
        "outside": "/elsewhere/{n},{c}", "both": "{n},1,1",
        "semicolons": "{n};{c};{p}", "hot": "{n},{h}",
    }
    lines = {kind: "\n".join(row.format(n=n, c=n[:3], r=root, h="1,0" if "cat" in n else "0,1",
                                        p="Validation" if "0" in n else "Train") for n in names)
             for kind, row in rows.items()}
    (root / "photos.csv").write_text(table.format(**lines) + "\n")
    _, said, wrong = ablate(root / "photos.csv", tmp_path / "out", capsys)
    assert told in said + wrong, said + wrong
