"""What other processes do in `test_images.py`: decode photos, which takes no PyTorch."""

import itertools
import os

from lessonkit.photos import photo_cache


def decode_photos(paths, size):
    photo_cache.cached_photos(paths, size, progress=False)


def decode_and_wait(paths, size, stop, at, there, go_on):
    """Before call number `at` of the function `stop` say that it is there, and wait."""
    place, name = (os, "rename") if stop == "os.rename" else (photo_cache, stop)
    real, calls = getattr(place, name), itertools.count()

    def stopping(*args):
        number = next(calls)
        if number == at:
            there.set()
        if number >= at:
            go_on.wait()
        return real(*args)

    setattr(place, name, stopping)
    decode_photos(paths, size)


def decode_with_little_room(paths, size):
    """No file may be longer than 1 MB, as on a disk that is full."""
    import resource  # not on Windows

    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    decode_photos(paths, size)
