"""The short form of ``python -m tests.long.fuzz``, and the mutations themselves."""

import random

import pytest
import yaml

from memnet.training.cli import MemnetCLI
from tests.long.fuzz import DATES, PAIRS, VALUES, damaged_bytes, damaged_config, fuzz


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(MemnetCLI, "_draw", lambda self, run: {})


def test_damaged_files_give_a_run_or_a_sentence(tiny, trained, tmp_path, monkeypatch, unchecked):
    monkeypatch.chdir(tmp_path)
    tiny["trainer"] |= {"max_steps": 2, "val_check_interval": 2}
    assert fuzz(tiny, trained, tmp_path / "damaged", 8, seed=1) == []


def test_what_is_damaged_works_undamaged(tmp_path, monkeypatch, exit_code):
    """Otherwise every mutation would end in the same sentence."""
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(DATES)
    (tmp_path / "dates.txt").write_bytes(PAIRS)
    content["data"]["init_args"]["file"] = "dates.txt"
    (tmp_path / "dates.yaml").write_text(yaml.safe_dump(content))
    assert exit_code("fit", "--config", "dates.yaml") is None


def test_mutations_damage(tiny):
    content = bytes(range(256)) * 4
    configs = [damaged_config(tiny, random.Random(number)) for number in range(50)]
    assert sum(config != tiny for config in configs) > 40 and len(VALUES) > 20
    assert sum(damaged_bytes(content, random.Random(number)) != content for number in range(50)) > 45
