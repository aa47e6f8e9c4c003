"""Reading text files line by line, plain or compressed by gzip, and two of them side by side."""

import gzip
import unicodedata
import warnings
import zlib
from pathlib import Path

_GZIP = b"\x1f\x8b"


def read_lines(path: str | Path) -> list[str]:
    """The lines of a file, without white space at their ends, composed as Unicode's NFC wants it.

    Args:
        path: a text file in UTF-8, or such a file compressed by gzip, whatever its name.

    Raises:
        ValueError: the file is empty, it is damaged, or a line is not valid UTF-8; the message names file and line.
        OSError: the file cannot be read.
    """
    data = Path(path).read_bytes()
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is compressed by gzip, but damaged or cut short: {error}.") from error
    if not data:
        raise ValueError(f"{path} is empty.")
    # Python would also break lines at separators that stand within a sentence, and then two files are out of step.
    raw = data.removesuffix(b"\n").split(b"\n")
    return [_decode(line, path, number) for number, line in enumerate(raw, 1)]


def _decode(line: bytes, path: str | Path, number: int) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}, line {number}: byte {error.start + 1} is not valid UTF-8; convert the file to UTF-8."
        ) from error
    return unicodedata.normalize("NFC", text).strip()


def read_pairs(source_path: str | Path, target_path: str | Path) -> list[tuple[str, str]]:
    """The lines of two files, where line n of one is the translation of line n of the other.

    A line that is empty in both files is left out, and one warning says how many were.

    Args:
        source_path: as for ``read_lines``.
        target_path: as for ``read_lines``.

    Raises:
        ValueError: a file is empty or not valid UTF-8, the files differ in their number of lines, a line is empty in
            one of them only, or every line is empty.
        OSError: a file cannot be read.
    """
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise ValueError(
            f"{source_path} has {len(sources)} lines, but {target_path} has {len(targets)}: "
            "line by line, one must be the translation of the other."
        )
    pairs = []
    for number, (source, target) in enumerate(zip(sources, targets, strict=True), 1):
        if source and target:
            pairs.append((source, target))
        elif source or target:
            empty, other = (target_path, source_path) if source else (source_path, target_path)
            raise ValueError(f"{empty}, line {number} is empty, but line {number} of {other} is not.")
    if not pairs:
        raise ValueError(f"{source_path} and {target_path} hold empty lines only.")
    if len(pairs) < len(sources):
        warnings.warn(
            f"{len(sources) - len(pairs)} of {len(sources)} lines are empty in both {source_path} and {target_path}, "
            "and were left out.",
            stacklevel=2,
        )
    return pairs


def find_file(folder: str | Path, name: str) -> Path:
    """A file of that name in a folder, plain or with ``.gz``.

    Args:
        folder: where to look.
        name: without ``.gz``.

    Raises:
        ValueError: the folder has neither.
    """
    for path in (Path(folder) / name, Path(folder) / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"folder is {folder}, but it holds neither {name} nor {name}.gz.")
