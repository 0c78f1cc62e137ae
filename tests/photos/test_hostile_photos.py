"""Photos that are none, or odd ones: each is read right, or refused in one line that names the file."""

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lessonkit.foundation.checks import one_line
from lessonkit.photos.photo_cache import DamagedPhoto, fit_photo, read_photo

linux = pytest.mark.skipif(sys.platform == "win32",
                           reason="pipes, devices and links are of other systems")


def pixels(width=12, height=10, seed=0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def png(width: int, height: int, depth: int, colours: int, rows: list[bytes],
        more: bytes = b"") -> bytes:
    """A PNG by hand: depths and sizes that Pillow doesn't write."""
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def refused(path: Path, why: str = "decoded"):
    with pytest.raises(DamagedPhoto, match=why) as caught:
        read_photo(path)
    said = str(caught.value)
    assert "\n" not in said and one_line(path) in said and "without_bad()" in said


# What was seen lying where, by the tag's number (EXIF 2.32, section 4.6.4): row 0 and column 0 of the
# stored picture.
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2), 6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("tag", [0, *UPRIGHT, 9, 99])
@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_every_orientation_tag_is_obeyed(tmp_path, tag, kind):
    stored = np.zeros((8, 16, 3), dtype=np.uint8)
    stored[:, :8, 0], stored[:4, :, 1] = 255, 255  # yellow, green, red and black corners
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(stored).save(tmp_path / f"x.{kind}", exif=exif,
                                 **{"webp": {"lossless": True},
                                    "jpg": {"quality": 100, "subsampling": 0}}.get(kind, {}))
    expected = UPRIGHT.get(tag, UPRIGHT[1])(stored)  # a number that means nothing is as good as none
    found = np.asarray(read_photo(tmp_path / f"x.{kind}"))
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= (
        4 if kind == "jpg" else 0
    )


def test_a_tag_that_is_garbage_changes_nothing(tmp_path):
    Image.new("RGB", (6, 4), "red").save(tmp_path / "x.jpg", exif=b"Exif\0\0garbage" * 20)
    assert read_photo(tmp_path / "x.jpg").size == (6, 4)


@pytest.mark.parametrize("colours, values",
                         [(0, [40000]), (2, [40000] * 3), (4, [40000, 65535]),
                          (6, [40000] * 3 + [65535])])
def test_sixteen_bits_have_their_brightness_in_every_mode(tmp_path, colours, values):
    (tmp_path / "x.png").write_bytes(png(2, 1, 16, colours,
                                         [struct.pack(f">{2 * len(values)}H", *values, *values)]))
    assert np.abs(np.asarray(read_photo(tmp_path / "x.png")).astype(int) - 40000 / 257).max() <= 1


def test_sixteen_bits_with_a_transparent_level_lie_on_white(tmp_path):
    levels = np.array([[1000, 40000]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "x.png", transparency=1000)
    assert np.asarray(read_photo(tmp_path / "x.png"))[0, :, 0].tolist() == [255, 156]


@pytest.mark.parametrize("depth, row, levels",
                         [(1, 0b10100000, [255, 0, 255, 0]), (2, 0b00011011, [0, 85, 170, 255])])
def test_one_and_two_bits_reach_from_black_to_white(tmp_path, depth, row, levels):
    (tmp_path / "x.png").write_bytes(png(4, 1, depth, 0, [bytes([row])]))
    assert np.asarray(read_photo(tmp_path / "x.png"))[0, :, 0].tolist() == levels


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_an_animated_photo_is_its_first_frame(tmp_path, kind):
    first, *others = (Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue"))
    first.save(tmp_path / f"x.{kind}", save_all=True, append_images=others,
               **({"lossless": True} if kind == "webp" else {}))
    assert read_photo(tmp_path / f"x.{kind}").getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
@pytest.mark.parametrize("fit", ["crop", "squish", "pad"])
def test_the_thinnest_photos_are_fitted(tmp_path, size, fit):
    pixels(*size).save(tmp_path / "x.png")
    assert fit_photo(read_photo(tmp_path / "x.png"), 8, fit).shape == (8, 8, 3)


def test_bombs_are_refused_before_they_burst(tmp_path):
    (tmp_path / "pixels.png").write_bytes(png(60_000, 60_000, 1, 0, [b"\0"]))
    refused(tmp_path / "pixels.png", "3600000000 pixels")
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 10**8))
    (tmp_path / "text.png").write_bytes(png(2, 2, 8, 2, [b"\0" * 6] * 2, text))
    refused(tmp_path / "text.png", "too large")


@pytest.mark.parametrize("content",
                         [b"", b"<svg/>", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n",
                          b"RIFF\0\0\0\0WEBP", b"II*\0"])
def test_what_only_begins_like_a_photo_is_refused(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    refused(tmp_path / "x.png")


def test_a_program_in_place_of_a_photo_is_not_run(tmp_path):
    """Pillow hands PostScript to Ghostscript, whatever the file is called."""
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: "
                                     b"0 0 10 10\n%%EndComments\nshowpage\n")
    refused(tmp_path / "x.png", "PostScript")


@linux
def test_pipes_devices_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # to open it would wait for a writer, for ever
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "circle.png").symlink_to("circle.png")
    for name in ("pipe", "folder", "zero", "circle"):
        refused(tmp_path / f"{name}.png")


@linux
def test_names_that_could_command_a_terminal_are_shown_as_codes(tmp_path):
    path = tmp_path / "a\n\x1b[31m\udcff.png"
    with open(os.fsencode(path), "wb") as file:
        file.write(b"no photo")
    with pytest.raises(DamagedPhoto) as caught:
        read_photo(path)
    assert str(caught.value).isprintable() and "a\\n\\x1b[31m\\udcff.png" in str(caught.value)


def stored(kind: str) -> bytes:
    file = io.BytesIO()
    pixels().save(file, kind)
    return file.getvalue()


WHOLE = {kind: stored(kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}


@settings(deadline=None, derandomize=True, max_examples=400,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(kind=st.sampled_from(sorted(WHOLE)),
       changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
       keep=st.floats(0, 1), tail=st.binary(max_size=20))
def test_any_bytes_are_a_photo_or_a_named_error(tmp_path, monkeypatch, kind, changes, keep, tail):
    # so that a changed header costs no gigabytes
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    content = bytearray(WHOLE[kind])
    for place, value in changes:
        content[min(int(place * len(content)), len(content) - 1)] = value
    content = content[: int(len(content) * keep)] if keep < 0.5 else content
    (tmp_path / "x.png").write_bytes(bytes(content) + tail)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata
        try:
            picture = read_photo(tmp_path / "x.png")
        except DamagedPhoto as error:
            assert "x.png" in str(error) and "\n" not in str(error)
        else:
            assert picture.mode == "RGB" and min(picture.size) > 0
            assert fit_photo(picture, 4).shape == (4, 4, 3)
