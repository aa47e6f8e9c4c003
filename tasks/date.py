"""Date conversion: "september 27, 1994" to "1994-09-27" ("Deep Learning from Scratch 2", chapter 8)."""

import datetime
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memnet.checks import check_positive

from .base import check_order
from .date_formats import ALPHABET, CASES, FORMATS, SOURCE_LENGTH, check_formats, write
from .epochs import ORDER, Shuffled, random_words
from .held_out import draw_pairs
from .pair_set import PairBatch, PairSet
from .pairs import TRAIN_SET, VAL_SET, PairTask
from .parallel_text import read_lines
from .sampling import TEST, TRAIN, VALIDATION, stream_key
from .vocabulary import CharacterVocabulary

HELD_OUT = "held out"
_SPLITS = {TRAIN_SET: TRAIN, VAL_SET: VALIDATION, HELD_OUT: TEST}


class Date(PairTask):
    """Reads a date as people write it and writes it as year-month-day.

    A source is 29 characters, padded with spaces; a target 10. Both are of one alphabet of 59 characters, so that a
    model has 63 symbols on either side (the textbook's 59 have the mark ``_`` where these have a dot). A target has 11
    symbols to write, the end included.

    Without ``file``, dates are generated: a day, a format and upper or lower case, each as likely as any other. Every
    pair is a function of (seed, index), and no text of one set occurs in another (see ``tasks.held_out``), though its
    day may in another format. Validation and test are the same for every seed. A year of two digits is the one of the
    given range that ends so, and a range with two of them is refused.

    Metrics in validation and test: ``error``, 1 where the date written is not exactly the target, and ``exact``, 1
    where it is.

    Args:
        file: dates to use in place of generated ones, in the textbook's format: a line is the source text padded with
            spaces to 29 characters, then ``_`` and the target. Its lines are shuffled, in the same way for every seed,
            and divided in proportion of ``num_train`` to ``num_val``; the smaller part serves for validation and as the
            test set, as in the textbook. A line that occurs twice may come into both.
        test_file: another test set, in the same format.
        formats: which formats are generated, as templates (see ``tasks.date_formats.write``); by default all of
            ``tasks.date_formats.FORMATS``, which begin with the textbook's four.
        first_year: of the generated dates.
        last_year: of the generated dates.
        num_train: generated training dates, an epoch of them.
        num_val: generated validation dates.
        num_test: generated test dates.
        batch_size: training dates in a batch, over all processes.
        **settings: search, loss, evaluation and seed, as for ``PairTask``. The seed decides on the generated training
            dates and on the order of any.

    Raises:
        ValueError: a number is out of its range, or the formats cannot be read back; and, when the files are read, a
            line is not in the format, which the message names.
    """

    monitor = "error"
    curve = ("exact", "dates exactly right")

    def __init__(
        self,
        file: str | None = None,
        test_file: str | None = None,
        formats: list[str] | None = None,
        first_year: int = 1970,
        last_year: int = 2019,
        num_train: int = 45_000,
        num_val: int = 5_000,
        num_test: int = 5_000,
        batch_size: int = 128,
        **settings: Any,
    ) -> None:
        for name, year in {"first_year": first_year, "last_year": last_year}.items():
            if not 1000 <= year <= 9999:
                raise ValueError(f"{name} is {year}, but must have four digits.")
        check_order(first_year=first_year, last_year=last_year)
        check_positive("num_train", num_train)
        check_positive("num_val", num_val)
        check_positive("num_test", num_test)
        check_positive("batch_size", batch_size)
        # Those of the default are known to be fine for the default's years.
        if formats is not None or last_year - first_year >= 100:
            check_formats(FORMATS if formats is None else formats, first_year, last_year)
        super().__init__(**settings)
        self.file = file
        self.test_file = test_file
        self.formats = FORMATS if formats is None else tuple(formats)
        self.first_day = datetime.date(first_year, 1, 1)
        self.num_days = (datetime.date(last_year, 12, 31) - self.first_day).days + 1
        self.sizes = {TRAIN_SET: num_train, VAL_SET: num_val, HELD_OUT: num_test}
        self.batch_size = batch_size
        self._vocabulary = CharacterVocabulary(ALPHABET)

    @property
    def test_names(self) -> list[str]:
        return [HELD_OUT] if self.test_file is None else [HELD_OUT, f"file {Path(self.test_file).stem}"]

    @property
    def source_vocabulary(self) -> CharacterVocabulary:
        return self._vocabulary

    @property
    def target_vocabulary(self) -> CharacterVocabulary:
        return self._vocabulary

    @property
    def max_target_length(self) -> int:
        return len("1994-09-27") + 1

    @property
    def longest_source(self) -> int:
        return SOURCE_LENGTH

    @property
    def epoch_size(self) -> int:  # type: ignore[override]
        """How many training dates there are."""
        return self.sizes[TRAIN_SET] if self.file is None else len(self.pair_set(TRAIN_SET))

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        return super().encode_sources([text.ljust(SOURCE_LENGTH) for text in texts])

    def batch_of(self, text: str) -> PairBatch:
        if len(text.rstrip()) > SOURCE_LENGTH:
            raise ValueError(f"--input is {text!r}, but must have at most {SOURCE_LENGTH} characters.")
        return super().batch_of(text.rstrip())

    def read(self, name: str) -> list[tuple[str, str]]:
        if name not in _SPLITS:
            assert self.test_file is not None
            return read_dates(self.test_file)
        if self.file is not None:
            return self._part_of(read_dates(self.file), name)
        number = self.seed if name == TRAIN_SET else 0
        return draw_pairs(self._write, 3, _SPLITS[name], number, self.sizes[name])

    def _write(self, numbers: list[float]) -> tuple[str, str]:
        day, template, case = numbers
        date = self.first_day + datetime.timedelta(days=int(day * self.num_days))
        text = write(self.formats[int(template * len(self.formats))], date)
        return CASES[int(case * len(CASES))](text), date.isoformat()

    def _part_of(self, pairs: list[tuple[str, str]], name: str) -> list[tuple[str, str]]:
        if len(pairs) < 2:
            raise ValueError(f"{self.file} has {len(pairs)} line, but it takes at least 2 to train and to test.")
        held_out = self.sizes[VAL_SET] / (self.sizes[TRAIN_SET] + self.sizes[VAL_SET])
        first = len(pairs) - min(max(round(held_out * len(pairs)), 1), len(pairs) - 1)
        order = np.argsort(random_words(stream_key(ORDER, 0), 0, 1, len(pairs)), kind="stable")
        chosen = order[:first] if name == TRAIN_SET else order[first:]
        return [pairs[place] for place in chosen.tolist()]

    def schedule(self, pairs: PairSet) -> Shuffled:
        return Shuffled(len(pairs), self.batch_size, stream_key(ORDER, self.seed))


def read_dates(path: str | Path) -> list[tuple[str, str]]:
    """Source and target of each line of a file in the textbook's format.

    Args:
        path: a text file in UTF-8, or compressed by gzip.

    Raises:
        ValueError: the file is empty or not valid UTF-8; or a line is empty, has no ``_``, no source, one longer than
            29 characters, no target, or one that is no date as in 1994-09-27. The message names file and line.
        OSError: the file cannot be read.
    """
    return [_parse(line, f"{path}, line {number}") for number, line in enumerate(read_lines(path), 1)]


def _parse(line: str, where: str) -> tuple[str, str]:
    source, mark, target = line.rpartition("_")
    source = source.rstrip()
    if not line:
        raise ValueError(f"{where} is empty, but must be a date, `_` and the date as in 1994-09-27.")
    if not mark:
        raise ValueError(f"{where} has no `_`, but must be a date, `_` and the date as in 1994-09-27: {line!r}.")
    if not source:
        raise ValueError(f"{where} has nothing before its `_`, where a date must be: {line!r}.")
    if len(source) > SOURCE_LENGTH:
        raise ValueError(f"{where} has {len(source)} characters before its `_`, but at most {SOURCE_LENGTH} fit.")
    if not target:
        raise ValueError(f"{where} has no target, but must go on after its `_` with a date as in 1994-09-27.")
    if not _is_date(target):
        raise ValueError(f"{where} has the target {target!r}, but must have a date as in 1994-09-27.")
    return source, target


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return False
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
