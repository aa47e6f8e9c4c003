"""The genuine files where they are at hand, and a cache of the tests' own."""

import tarfile
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).parents[4] / "shared" / "data" / "babi" / "tasks_1-20_v1-2.tar.xz"


@pytest.fixture(scope="session")
def genuine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the genuine files; it lacks the training file of task 3 with 10,000 questions."""
    if not ARCHIVE.is_file():
        pytest.skip(f"the genuine files are not at hand: there is no {ARCHIVE}")
    folder = tmp_path_factory.mktemp("genuine")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache))
