"""Folders of vectors that appear whole, as memory maps."""

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from corpora.errors import StorageError

MAPPED = ("text_vectors", "span_vectors")
READ = ("spans", "is_truncated", "is_empty", "is_lost")

Allocate = Callable[[str, tuple[int, ...]], np.ndarray]  # name, shape -> zeros to be filled


def fill_folder(folder: Path, dtype: str, fill: Callable[[Allocate], Mapping[str, Any]]) -> None:
    """Write the arrays that `fill` makes, in maps that it is given room for, beside the folder's name, and rename it.

    Another process that was faster wins. StorageError where the disk refuses.
    """
    temporary = folder.parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"

    def allocate(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype=dtype)
        return np.lib.format.open_memmap(temporary / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)

    try:
        temporary.mkdir(parents=True)
        made = fill(allocate)
        for name in (*MAPPED, *READ):
            array = made[name]
            if isinstance(array, np.memmap):
                array.flush()
            else:
                np.save(temporary / f"{name}.npy", array)
        if not folder.is_dir():
            temporary.rename(folder)
    except OSError as error:
        if not folder.is_dir():
            raise StorageError(
                f"features can't be kept in {folder.parent}: {error.strerror}; give another cache"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_folder(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays, the vectors as maps. StorageError for files that can't be read."""

    def load(name: str) -> np.ndarray:
        path = folder / f"{name}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an empty array can't be mapped, nor can a file that was cut
            return np.load(path, allow_pickle=False)

    try:
        return {name: load(name) for name in MAPPED} | {name: np.array(load(name)) for name in READ}
    except (OSError, ValueError) as error:
        raise StorageError(f"cached features in {folder} can't be read ({error}); remove that folder") from error
