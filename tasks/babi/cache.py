"""Encoded stories kept on disk, under a name made of everything they depend on.

They lie below ``XDG_CACHE_HOME`` if that is set, else below ``~/.cache``, in ``memnet/babi``; the folder may be removed
at any time.
"""

import functools
import hashlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .encode import Encoded

_PACKAGE = Path(__file__).parent


def cache_folder() -> Path:
    """Where encoded stories are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "memnet" / "babi"


def cached(make: Callable[[], Encoded], *depends_on: str | bytes) -> Encoded:
    """What ``make`` returns, from the disk if it was made before.

    Nothing is kept of what could not be made as a whole. A damaged cache is made anew, and where none can be written
    there is none.

    Args:
        make: makes it.
        *depends_on: all that its result depends on, beside the code of this package.
    """
    path = cache_folder() / f"{_digest(_code_version(_PACKAGE), *depends_on)}.npz"
    kept = _load(path)
    if kept is None:
        kept = make()
        _save(path, kept)
    return kept


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@functools.cache
def _code_version(folder: Path) -> str:
    """The parser's and the generator's version: a number kept by hand would one day be forgotten."""
    return _digest(*(path.read_bytes() for path in sorted(folder.rglob("*.py"))))


def _load(path: Path) -> Encoded | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Encoded(**{name: arrays[name] for name in Encoded._fields})
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _save(path: Path, encoded: Encoded) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be reading or writing the same: a file appears under its name when it is complete.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".part")
    except OSError as error:
        _warn(error)
        return
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **encoded._asdict())
        os.replace(name, path)
    except BaseException as error:
        os.unlink(name)
        if not isinstance(error, OSError):
            raise
        _warn(error)


def _warn(error: OSError) -> None:
    warnings.warn(
        f"the encoded stories cannot be kept for the next time ({error}); set XDG_CACHE_HOME to a folder that can be "
        "written.",
        stacklevel=5,
    )
