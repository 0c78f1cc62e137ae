"""The cache of decoded photos under attack: cut off anywhere, of another version, a disk that fills at
any byte, two at once. And what is safe: nothing is unpickled, nothing is written outside the cache."""

import ast
import io
import os
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessonkit.foundation.files import cache_dir
from lessonkit.photos import photo_cache
from lessonkit.photos.photo_cache import cached_photos, clear_cache, digests, cache_key

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LESSONKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (11, 13, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{number}.png")
    return sorted((tmp_path / "photos").iterdir())


def decoded(paths):
    pictures, sizes = cached_photos(paths, 8, progress=False)
    return pictures.copy(), sizes.copy()


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other))


def made():
    return list((cache_dir() / "photos").iterdir())


@pytest.mark.parametrize("name", ["pictures.npy", "sizes.npy"])
def test_a_cache_cut_off_at_any_byte_is_made_again(paths, name):
    first = decoded(paths)
    whole = (made()[0] / name).read_bytes()
    for length in sorted({0, 1, 6, 8, 10, 60, 127, 128, 129, len(whole) // 2, len(whole) - 1}):
        file = made()[0] / name
        file.unlink()  # the mapped one is another file
        file.write_bytes(whole[:length])
        assert same(decoded(paths), first) and (made()[0] / name).read_bytes() == whole


@pytest.mark.parametrize("content", ["objects", "floats", "other shape", "other order", "zeros"])
@pytest.mark.parametrize("name", ["pictures.npy", "sizes.npy"])
def test_arrays_of_another_kind_are_made_again(paths, name, content):
    first = decoded(paths)
    right = np.load(made()[0] / name)
    wrong = {
        "objects": np.array([print] * 5, dtype=object), "floats": right.astype(float),
        "other shape": right[:-1],
        "other order": np.asfortranarray(right.reshape(5, -1)), "zeros": np.zeros_like(right),
    }[content]
    (made()[0] / name).unlink()
    np.save(made()[0] / name, wrong)
    if (name, content) == ("pictures.npy", "zeros"):
        return  # black photos are photos
    assert same(decoded(paths), first)


def test_a_pickle_in_the_cache_is_not_opened(paths, tmp_path):
    """What is in the cache may come from elsewhere; a pickle would be a program."""

    class Program:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it ran",))

    first = decoded(paths)
    file = io.BytesIO()
    np.save(file, np.array([Program()] * 5, dtype=object), allow_pickle=True)
    for name in ("pictures.npy", "sizes.npy"):
        for content in (pickle.dumps(Program()), file.getvalue()):
            (made()[0] / name).unlink()
            (made()[0] / name).write_bytes(content)
            assert same(decoded(paths), first)
    assert not (tmp_path / "it ran").exists()


def test_another_version_decodes_anew(paths, monkeypatch):
    decoded(paths)
    before = cache_key(paths, size=8)
    monkeypatch.setattr(photo_cache, "CACHE_VERSION", photo_cache.CACHE_VERSION + 1)
    assert cache_key(paths, size=8) != before
    decoded(paths)
    assert len(made()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are of other systems")
@pytest.mark.parametrize("full_at", [0, 1, 100, 127, 128, 129, 600, 1087])
def test_a_disk_that_is_full_at_any_byte_costs_nothing_but_an_error(paths, full_at):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (full_at, hard))
        with pytest.raises(OSError) as caught:
            cached_photos(paths, 8, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "LESSONKIT_CACHE" in str(caught.value) and "\n" not in str(caught.value)
    assert made() == []
    pictures, sizes = decoded(paths)
    assert pictures.shape == (5, 8, 8, 3) and sizes.tolist() == [[13, 11]] * 5


@pytest.mark.parametrize("step", ["np.save", "os.rename"])
@pytest.mark.parametrize("error",
                         [OSError(28, "No space left on device"), KeyboardInterrupt(), MemoryError()])
def test_an_error_at_any_step_leaves_no_half_cache(paths, monkeypatch, step, error):
    def fails(*args, **kwargs):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(*((np, "save") if step == "np.save" else (os, "rename")), fails)
        with pytest.raises(type(error)):
            cached_photos(paths, 8, progress=False)
    assert made() == []
    assert decoded(paths)[0].shape == (5, 8, 8, 3)


def test_many_at_once_get_the_same(paths):
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: decoded(paths), range(12)))
    assert all(same(result, results[0]) for result in results) and len(made()) == 1


def test_what_is_in_the_caches_place_is_named(paths, tmp_path):
    cache_dir().mkdir(exist_ok=True)
    (cache_dir() / "photos").write_text("a file", encoding="utf-8")
    with pytest.raises(OSError, match="photos can't hold the decoded photos.*LESSONKIT_CACHE") as caught:
        decoded(paths)
    assert "\n" not in str(caught.value)
    (cache_dir() / "photos").unlink()
    target = cache_dir() / "photos" / cache_key(paths, size=8, fit="crop")
    target.parent.mkdir()
    target.write_text("a file where the folder should be", encoding="utf-8")
    assert decoded(paths)[0].shape == (5, 8, 8, 3)  # what can be made again makes room


def test_only_the_cache_is_written_and_only_its_owner_reads_it(paths, tmp_path):
    before = {path for path in tmp_path.rglob("*")}
    decoded(paths)
    new = {path for path in tmp_path.rglob("*")} - before
    assert new and all(path == tmp_path / "cache" or tmp_path / "cache" in path.parents for path in new)
    if os.name == "posix":
        assert all(place.stat().st_mode & 0o077 == 0
                   for place in (tmp_path / "cache", tmp_path / "cache/photos"))
    clear_cache()
    assert not (tmp_path / "cache/photos").exists() and len(list((tmp_path / "photos").iterdir())) == 5


def test_clearing_follows_no_link_out_of_the_cache(paths, tmp_path):
    decoded(paths)
    try:
        (cache_dir() / "photos" / "out").symlink_to(tmp_path / "photos", target_is_directory=True)
    except OSError:
        pytest.skip("links need rights here")
    clear_cache()
    assert len(list((tmp_path / "photos").iterdir())) == 5


# --- what would run somebody else's program

MODULES = sorted((ROOT / "lessonkit").glob("*.py"))
RUNS = {"eval", "exec", "load_learner", "os.system", "os.popen", "yaml.load", "joblib.load",
        "pickle.load", "pickle.loads", "pickle.Unpickler"}


def dotted(node) -> str:
    return (f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute)
            else getattr(node, "id", ""))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_unpickles_evaluates_or_uses_a_shell(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("pickle", "joblib.numpy_pickle"), f"line {node.lineno}"
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"dill", "cloudpickle", "marshal",
                                                               "shelve"}, f"line {node.lineno}"
        if isinstance(node, ast.Call):
            name, words = dotted(node.func), {word.arg: word.value for word in node.keywords}
            assert name not in RUNS, f"line {node.lineno}"
            for word, safe in (("allow_pickle", False), ("shell", False), ("weights_only", True)):
                assert (word not in words
                        or getattr(words[word], "value", None) is safe), f"line {node.lineno}: {word}"
            assert name != "torch.load" or "weights_only" in words, f"line {node.lineno}"


# --- content decides


def test_two_files_of_equal_size_and_time_that_change_places(paths):
    before = cached_photos(paths, 8, progress=False)[0].copy()
    for path in paths[:2]:
        os.utime(path, ns=(10**18, 10**18))
    digests(paths)  # noted
    content = [path.read_bytes() for path in paths[:2]]
    size = max(map(len, content))
    for path, other in zip(paths[:2], reversed(content)):
        path.write_bytes(other.ljust(size, b"\0"))
        os.utime(path, ns=(10**18, 10**18))
    after = cached_photos(paths, 8, progress=False)[0]
    assert same(after[0], before[1]) and same(after[1], before[0]) and same(after[2:], before[2:])


def test_a_copied_folder_is_not_decoded_again(paths, tmp_path, monkeypatch):
    cached_photos(paths, 8, progress=False)
    copies = [Path(shutil.copy(path, tmp_path / f"copy of {path.name}")) for path in paths]
    monkeypatch.setattr(photo_cache, "read_photo", lambda *args, **kwargs: pytest.fail("decoded again"))
    assert same(cached_photos(copies, 8, progress=False)[0], cached_photos(paths, 8, progress=False)[0])


def test_a_file_is_read_once_and_again_when_it_changed(paths, monkeypatch):
    monkeypatch.setattr(photo_cache, "SETTLED", -1.0)  # as if they had been changed long ago
    first = digests(paths)
    read, real = [], photo_cache.digest_of
    monkeypatch.setattr(photo_cache, "digest_of", lambda path: read.append(path) or real(path))
    assert digests(paths) == first and read == []
    paths[1].write_bytes(paths[1].read_bytes() + b"\0")
    assert ([a == b for a, b in zip(digests(paths), first)] == [True, False, True, True, True]
            and read == [paths[1]])


def test_damaged_notes_of_digests_count_as_none(paths, monkeypatch):
    monkeypatch.setattr(photo_cache, "SETTLED", -1.0)
    first = digests(paths)
    for note in (cache_dir() / "digests").iterdir():
        note.write_text("[1, 2", encoding="utf-8")
    assert digests(paths) == first


def test_where_facts_prove_nothing_every_file_is_read(paths, monkeypatch):
    """As on Windows, where a copy over a file can keep its length, times and place."""
    monkeypatch.setattr(photo_cache, "SETTLED", float("inf"))
    monkeypatch.setattr(photo_cache, "facts_of", lambda path: [1, 2, 3, 4])
    first = digests(paths)
    paths[1].write_bytes(paths[0].read_bytes())
    assert digests(paths) == [first[0], first[0], *first[2:]]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no users without a home folder")
@pytest.mark.parametrize("chosen", [None, "~/cache"])
def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch, chosen):
    """As in a container that runs under a number that no user has."""
    import pwd

    def unknown(*_):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "LESSONKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    if chosen:
        monkeypatch.setenv("LESSONKIT_CACHE", chosen)
    with pytest.raises(OSError, match="no home folder.*set LESSONKIT_CACHE"):
        cache_dir()
