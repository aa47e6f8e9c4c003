"""Fetching the official archive of the bAbI tasks."""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from .reader import ARCHIVE_FOLDER, SIZE_FOLDERS

ADDRESS = "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz"
"""Where the tasks' authors keep the archive."""

SHA256 = "0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898"
"""The archive's checksum, as the Hugging Face ``datasets`` library recorded it from that address (15,719,851 bytes)."""

ARCHIVE = f"{ARCHIVE_FOLDER}.tar.gz"

_ATTEMPTS = 3
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 16


def download_archive(folder: str | Path, address: str = ADDRESS, sha256: str = SHA256) -> Path:
    """Fetches the archive, unless it is there, and unpacks its English files but for those that are there already.

    A transfer that broke off goes on where it stopped, in the next attempt or the next call. The archive is kept.

    Args:
        folder: where to; made if it does not exist.
        address: where from.
        sha256: the archive's checksum.

    Returns:
        The folder with the files, ``tasks_1-20_v1-2`` in the given one.

    Raises:
        ValueError: the archive has another checksum, or holds something else than files and folders of its own.
        OSError: it cannot be fetched, which the message answers with where to put it by hand; or cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / ARCHIVE
    if archive.is_file():
        _check(archive, sha256, "remove it, and it is fetched again")
    else:
        partial = folder / f"{ARCHIVE}.part"
        _fetch(address, partial, folder)
        try:
            _check(partial, sha256, "it was removed; try again later")
        except ValueError:
            partial.unlink()
            raise
        os.replace(partial, archive)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{ARCHIVE_FOLDER}-") as temporary:
        _unpack(archive, Path(temporary))
        for path in sorted(Path(temporary).rglob("*")):
            target = folder / path.relative_to(temporary)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            elif not target.exists():
                os.replace(path, target)
    return folder / ARCHIVE_FOLDER


def _fetch(address: str, partial: Path, folder: Path) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            _go_on(address, partial)
            return
        except (OSError, HTTPException) as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if attempt == _ATTEMPTS - 1 or refused:
                reason = getattr(error, "reason", None) or error
                raise OSError(
                    f"{address} cannot be fetched ({reason}); get {ARCHIVE} by other means and put it into {folder}, "
                    f"or its {ARCHIVE_FOLDER} unpacked."
                ) from error


def _go_on(address: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing follows what is here: it is whole, or not of this archive
            return
        raise
    with response:
        goes_on = response.status == 206
        missing = response.headers.get("Content-Length")
        with open(partial, "ab" if goes_on else "wb") as file:
            before = file.tell()
            shutil.copyfileobj(response, file, _CHUNK)
            got = file.tell() - before
    if missing is not None and got < int(missing):
        raise ConnectionError(f"the connection broke off after {got:,} of {int(missing):,} bytes")


def _check(path: Path, sha256: str, advice: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ValueError(f"{path} has the SHA-256 checksum {found}, but the archive has {sha256}; {advice}.")


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        for member in _wanted(content, archive):
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = content.extractfile(member)
            assert source is not None
            with source, open(target, "wb") as file:
                shutil.copyfileobj(source, file, _CHUNK)
    if not any((folder / ARCHIVE_FOLDER / inner).is_dir() for inner in SIZE_FOLDERS.values()):
        raise ValueError(f"{archive} holds no {ARCHIVE_FOLDER}/{' or '.join(SIZE_FOLDERS.values())}.")


def _wanted(content: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    """The English files, licence and description. All members are looked at: an archive that tries to leave is bad."""
    for member in content:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\\" in member.name or not (member.isfile() or member.isdir()):
            raise ValueError(f"{archive} holds {member.name!r}, which is no plain file or folder within it.")
        parts = tuple(part for part in path.parts if part != ".")
        ours = len(parts) == 2 or (len(parts) == 3 and parts[1] in SIZE_FOLDERS.values())
        if member.isfile() and parts[:1] == (ARCHIVE_FOLDER,) and ours:
            yield member
