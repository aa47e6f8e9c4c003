"""Generated dates against Python's own calendar, and files of dates."""

import datetime
import gzip
import itertools
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from memnet.decoding import BOS, EOS, UNK
from tasks.base import Task
from tasks.date import HELD_OUT, Date, read_dates
from tasks.date_formats import ALPHABET, FORMATS, SOURCE_LENGTH, TEXTBOOK_FORMATS, check_formats, write
from tasks.held_out import draw_pairs, split_of
from tasks.sampling import TEST, TRAIN, VALIDATION

SETS = ("train", "val", HELD_OUT)
SMALL = {"num_train": 300, "num_val": 60, "num_test": 60, "batch_size": 20, "eval_batch_size": 20}


def small(**arguments):
    return Date(**(SMALL | arguments))


def take(task, count):
    return list(itertools.islice(task.train_dataloader(), count))


def rows(batches):
    return [tuple(row.tolist()) for batch in batches for row in torch.cat([batch.source, batch.target], 1)]


# How Python itself would read each format; each is also what strftime would write, but for leading zeros.
READ_BY = {
    "{month_name} {day}, {year}": "%B %d, %Y",
    "{month_abbr} {day}, {year}": "%b %d, %Y",
    "{month}/{day}/{yy}": "%m/%d/%y",
    "{weekday}, {month_name} {day}, {year}": "%A, %B %d, %Y",
    "{weekday_abbr}, {month_abbr} {day}, {year}": "%a, %b %d, %Y",
    "{month_name} {ordinal}, {year}": "%B %dth, %Y",
    "{month:02}/{day:02}/{year}": "%m/%d/%Y",
    "{day} {month_name} {year}": "%d %B %Y",
    "{day} {month_abbr} {year}": "%d %b %Y",
    "{day:02}-{month_abbr}-{yy}": "%d-%b-%y",
    "{weekday}, {day} {month_name} {year}": "%A, %d %B %Y",
    "the {ordinal} of {month_name} {year}": "the %dth of %B %Y",
    "{day}.{month}.{year}": "%d.%m.%Y",
    "{day:02}.{month:02}.{yy}": "%d.%m.%y",
    "{year}-{month:02}-{day:02}": "%Y-%m-%d",
    "{year}/{month}/{day}": "%Y/%m/%d",
}


def read_back(text, pattern):
    plain = re.sub(r"(\d)(st|nd|rd|th)\b", r"\1th", text, flags=re.IGNORECASE)
    moment = datetime.datetime.strptime(plain, pattern)
    # Python puts two digits between 1969 and 2068.
    return moment.date()


def test_every_format_has_a_reader():
    assert set(READ_BY) == set(FORMATS)


@pytest.mark.parametrize("template, pattern", READ_BY.items())
def test_generated_dates_are_pythons(template, pattern):
    pairs = small(formats=[template]).read("train")
    for text, target in pairs:
        assert read_back(text, pattern) == datetime.date.fromisoformat(target)
        day = datetime.date.fromisoformat(target)
        for weekday in ("%A", "%a"):
            if weekday in pattern:
                assert text.lower().startswith(f"{day:{weekday}}".lower() + ",")
    assert len({target for _, target in pairs}) > 280


def test_formats_write_as_the_textbook_does():
    examples = [
        ("{month_name} {day}, {year}", "1994-09-27", "September 27, 1994"),
        ("{month}/{day}/{yy}", "1993-02-10", "2/10/93"),
        ("{month}/{day}/{yy}", "2003-04-16", "4/16/03"),
        ("{weekday}, {month_name} {day}, {year}", "1984-09-25", "Tuesday, September 25, 1984"),
        ("{month_abbr} {day}, {year}", "1982-06-08", "Jun 8, 1982"),
    ]
    for template, day, text in examples:
        assert template in TEXTBOOK_FORMATS
        assert write(template, datetime.date.fromisoformat(day)) == text


def test_ordinals_are_english():
    ordinals = [write("{ordinal}", datetime.date(2000, 1, day)) for day in range(1, 32)]
    special = {1: "1st", 2: "2nd", 3: "3rd", 21: "21st", 22: "22nd", 23: "23rd", 31: "31st"}
    assert ordinals == [special.get(day, f"{day}th") for day in range(1, 32)]


def test_no_two_dates_of_a_century_are_written_alike():
    """So that the default formats need no check for any years that they take."""
    check_formats(FORMATS, 1950, 2049)


def test_texts_fit_and_the_alphabet_has_nothing_to_spare():
    texts = [text for text, _ in Date(num_train=20_000).read("train")]
    assert max(map(len, texts)) == SOURCE_LENGTH
    assert set("".join(texts).ljust(SOURCE_LENGTH)) == set(ALPHABET)


def test_every_format_case_and_year_occurs():
    pairs = Date(num_train=5000).read("train")
    texts = [text for text, _ in pairs]
    years = {int(target[:4]) for _, target in pairs}
    assert years == set(range(1970, 2020))
    for pattern in READ_BY.values():
        own = [text for text in texts if _is_in(text, pattern)]
        assert len(own) > 200
        if "%B" in pattern or "%b" in pattern or "%A" in pattern:
            cases = {(text.islower(), text.isupper()) for text in own}
            assert cases == {(True, False), (False, True), (False, False)}


def _is_in(text, pattern):
    try:
        return bool(read_back(text, pattern))
    except ValueError:
        return False


def test_years_are_an_argument():
    years = {target[:4] for _, target in small(first_year=2030, last_year=2031).read("train")}
    assert years == {"2030", "2031"}


def test_a_model_needs_63_symbols():
    task = Date()
    assert len(task.source_vocabulary) == len(task.target_vocabulary) == 63 and len(ALPHABET) == 59


def test_batches_have_the_textbooks_shape():
    task = small()
    batch = take(task, 1)[0]
    assert batch.source.shape == (20, 29) and batch.target.shape == (20, 12)
    assert (batch.source_lengths == 29).all() and (batch.target_lengths == 12).all()
    assert (batch.target[:, 0] == BOS).all() and (batch.target[:, -1] == EOS).all() and not (batch.source < 4).any()
    for source, target, text in zip(batch.source.tolist(), batch.target.tolist(), batch.references, strict=True):
        assert task.target_vocabulary.decode(target) == text
        assert (task.source_vocabulary.decode(source).rstrip(), text) in task.read("train")


def test_the_sizes_are_the_textbooks():
    task = Date()
    assert task.epoch_size == 45_000 and task.sizes == {"train": 45_000, "val": 5_000, HELD_OUT: 5_000}
    assert sum(len(batch.source) for batch in Date(num_test=1234).test_dataloader()[0]) == 1234
    batches = Date(num_train=1).train_dataloader()
    assert next(iter(batches)).source.shape == (128, 29)


def test_no_text_is_in_two_sets():
    sizes = {"num_train": 20_000, "num_val": 3_000, "num_test": 3_000}
    texts = {
        (seed, name): {text.lower() for text, _ in Date(seed=seed, **sizes).read(name)}
        for seed in (1, 2)
        for name in SETS
    }
    for one, two in itertools.combinations(texts, 2):
        if one[1] != two[1]:
            assert not texts[one] & texts[two]
    # Most texts of a set differ, so that the sets are what their sizes say.
    assert all(len(own) > 0.9 * Date(**sizes).sizes[name] for (_, name), own in texts.items())


def test_the_seed_decides_on_training_only():
    one, same, other = small(seed=1), small(seed=1), small(seed=2)
    assert one.read("train") == same.read("train") != other.read("train")
    assert one.read("val") == other.read("val") and one.read(HELD_OUT) == other.read(HELD_OUT)
    assert rows(take(one, 30)) == rows(take(same, 30)) != rows(take(other, 30))


def test_a_date_does_not_depend_on_how_many_there_are():
    few, many = small(num_train=50, num_val=7), small(num_train=500, num_val=70)
    assert many.read("train")[:50] == few.read("train") and many.read("val")[:7] == few.read("val")


def test_texts_belong_to_one_set_whatever_their_case():
    assert split_of("MAY 5, 1994") == split_of("may 5, 1994")
    splits = [split_of(f"{number}") for number in range(10_000)]
    # Four standard deviations of a binomial
    assert abs(splits.count(VALIDATION) - 1000) < 120 and abs(splits.count(TEST) - 1000) < 120


def test_a_drawn_pair_is_the_first_of_its_index_that_belongs():
    def pair(numbers):
        return f"{numbers[0]:.9f} {numbers[1]:.9f}", "x"

    for split in (TRAIN, VALIDATION, TEST):
        pairs = draw_pairs(pair, 2, split, 3, 100)
        assert pairs[:40] == draw_pairs(pair, 2, split, 3, 40)
        assert {split_of(text) for text, _ in pairs} == {split} and len(set(pairs)) == 100


def test_an_epoch_has_each_training_date_once():
    task = small()
    epoch = [row for batch in take(task, 15) for row in rows([batch])]
    everything = task.pair_set("train").batch(np.arange(300))
    assert sorted(epoch) == sorted(rows([everything]))
    assert epoch != rows(take(task, 30)[15:])


def test_two_ranks_make_the_batch_of_one_process():
    whole = take(small(), 40)
    parts = []
    for rank in range(2):
        task = small()
        task.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        parts.append(take(task, 40))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert rows([first]) + rows([second]) == rows([batch]) and len(first.source) == len(second.source)


def test_resume_continues_exactly():
    whole = rows(take(small(), 40))
    task = small()
    task.batches_consumed = 23
    assert rows(take(task, 17)) == whole[23 * 20 :]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "batch_size is 0, but must be a whole number of at least 1"),
        ({"num_train": 0}, "num_train is 0"),
        ({"num_val": -1}, "num_val is -1"),
        ({"num_test": True}, "num_test is True"),
        ({"first_year": 999}, "first_year is 999, but must have four digits"),
        ({"last_year": 10_000}, "last_year is 10000, but must have four digits"),
        ({"first_year": 2000, "last_year": 1999}, "first_year is 2000, but must not be larger than last_year"),
        ({"formats": []}, "formats is empty, but must name at least one"),
        ({"formats": ["{date}"]}, r"formats holds '\{date\}', but the fields are year, yy, month"),
        ({"formats": ["{year"]}, r"formats holds '\{year', but the fields are"),
        ({"formats": ["{year:q}-{month}-{day}"]}, "but the fields are"),
        ({"formats": ["{}"]}, "but the fields are"),
        ({"formats": ["{month_name} {year}"]}, "'January 1970' may then mean both 1970-01-01 and 1970-01-02"),
        ({"formats": ["{month}/{day}/{yy}", "{day}/{month}/{yy}"]}, "'2/1/70' may then mean both 1970-01-02 and"),
        ({"formats": ["{year}{month}{day}"]}, "'1970111' may then mean both 1970-01-11 and 1970-11-01"),
        ({"formats": ["{day}#{month}#{year}"]}, "'#' is none of the characters"),
        ({"formats": ["on {weekday}, {month_name} {day}, {year}"]}, "has 30 characters, and at most 29 fit"),
        ({"first_year": 1900}, "whose two digits would mean several of the years from 1900 to 2019"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Date(**arguments)


def line(text, target):
    return f"{text:<29}_{target}\n"


def written(path, pairs, encoding="utf-8"):
    path.write_bytes("".join(line(*pair) for pair in pairs).encode(encoding))
    return str(path)


def dates(count):
    return [(f"day {number}, 1990", f"1990-01-{number % 28 + 1:02}") for number in range(count)]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_file_in_the_textbooks_format_is_read(tmp_path, ending, compress):
    path = tmp_path / "dates"
    text = ending.join(["september 27, 1994           _1994-09-27", "August 19, 2003              _2003-08-19"])
    for end in ("", ending):
        path.write_bytes(compress((text + end).encode()))
        assert read_dates(path) == [("september 27, 1994", "1994-09-27"), ("August 19, 2003", "2003-08-19")]


def test_generated_dates_survive_a_file(tmp_path):
    pairs = Date(num_train=2000).read("train")
    assert read_dates(written(tmp_path / "dates.txt", pairs)) == pairs


def test_a_file_is_divided_in_proportion(tmp_path):
    pairs = dates(200)
    task = Date(file=written(tmp_path / "dates.txt", pairs))
    train, held_out = task.read("train"), task.read("val")
    assert len(train) == task.epoch_size == 180 and len(held_out) == 20
    assert sorted(train + held_out) == sorted(pairs)
    assert task.read(HELD_OUT) == held_out and task.test_names == [HELD_OUT]
    again = Date(file=str(tmp_path / "dates.txt"), seed=7)
    assert again.read("train") == train and again.read("val") == held_out
    # Shuffled: the held-out lines come from everywhere.
    places = [pairs.index(pair) for pair in held_out]
    assert places != sorted(places) and min(places) < 60 and max(places) > 140
    assert rows(take(task, 5)) != rows(take(again, 5))


def test_proportions_are_arguments_and_nothing_is_empty(tmp_path):
    path = written(tmp_path / "dates.txt", dates(10))
    halves = Date(file=path, num_train=5, num_val=5)
    assert len(halves.read("train")) == len(halves.read("val")) == 5
    for sizes in ({"num_train": 1000, "num_val": 1}, {"num_train": 1, "num_val": 1000}):
        task = Date(file=path, **sizes)
        assert sorted([len(task.read("train")), len(task.read("val"))]) == [1, 9]
    with pytest.raises(ValueError, match="has 1 line, but it takes at least 2"):
        Date(file=written(tmp_path / "one.txt", dates(1))).read("train")


def test_another_file_is_another_test_set(tmp_path):
    pairs = dates(9)
    task = small(test_file=written(tmp_path / "elsewhere.txt", pairs))
    assert task.test_names == [HELD_OUT, "file elsewhere"]
    generated, elsewhere = task.test_dataloader()
    assert [len(batch.source) for batch in generated] == [20, 20, 20]
    (batch,) = elsewhere
    assert batch.references == tuple(target for _, target in pairs)
    assert [task.source_vocabulary.decode(row).rstrip() for row in batch.source.tolist()] == [text for text, _ in pairs]


@pytest.mark.parametrize("name", ["train", "val", "held out"])
def test_a_test_file_may_be_called_as_another_set(tmp_path, name):
    task = small(test_file=written(tmp_path / f"{name}.txt", dates(9)))
    assert [len(task.pair_set(each)) for each in ("train", "val", *task.test_names)] == [300, 60, 60, 9]


@pytest.mark.parametrize(
    "bad, message",
    [
        (b"", "line 2 is empty"),
        (b"    ", "line 2 is empty"),
        (b"september 27, 1994", "line 2 has no `_`"),
        (b"september 27, 1994           _", "line 2 has no target"),
        (b"                             _1994-09-27", "line 2 has nothing before its `_`"),
        (b"september 27, 1994           _1994-09-2", "line 2 has the target '1994-09-2'"),
        (b"september 27, 1994           _1994-09-311", "line 2 has the target '1994-09-311'"),
        (b"september 27, 1994           _27-09-1994", "line 2 has the target '27-09-1994'"),
        (b"september 27, 1994           _1994-02-30", "line 2 has the target '1994-02-30'"),
        (b"september 27, 1994           _1994-W01-1", "line 2 has the target '1994-W01-1'"),
        (b"wednesday, september 27th, 1994_1994-09-27", "line 2 has 31 characters before its `_`, but at most 29"),
        (b"september 27, 1994 \xff        _1994-09-27", "line 2: byte 20 is not valid UTF-8"),
        ("may 5, 1994                  _1994-05-05".encode("utf-16"), "line 2: byte 1 is not valid UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, bad, message):
    path = tmp_path / "dates.txt"
    good = b"may 5, 1994                  _1994-05-05"
    path.write_bytes(b"\n".join([good, bad, good]))
    for arguments in ({"file": str(path)}, {"test_file": str(path)}):
        task = small(**arguments)
        with pytest.raises(ValueError, match=re.escape(f"{path}, {message}")):
            task.pair_set(task.test_names[-1])


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "dates.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=re.escape(f"{path} is empty")):
        Date(file=str(path)).read("train")
    with pytest.raises(FileNotFoundError):
        Date(file=str(tmp_path / "nothing.txt")).read("train")


def test_unknown_symbols_are_counted_in_one_warning(tmp_path):
    pairs = [("24 okt 1994", "1994-10-24"), ("mai 5, 1994", "1994-05-05"), ("3 März 1995", "1995-03-03")]
    task = small(test_file=written(tmp_path / "other.txt", pairs))
    with pytest.warns(UserWarning) as caught:
        (batch,) = task.test_dataloader()[1]
    # k, ä and z; of 29 characters of three sources, and 10 of their targets
    assert [str(each.message) for each in caught] == [
        "3 of 117 symbols in the file other set are not in the vocabulary and are read as <unk>, "
        "the first in '24 okt 1994'."
    ]
    assert (batch.source == UNK).sum(1).tolist() == [1, 0, 2]


def test_known_symbols_give_no_warning():
    task = small()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in SETS:
            task.pair_set(name)


def test_typed_text_may_not_be_too_long():
    task = small()
    assert task.batch_of("wednesday, september 27, 1994   ").source.shape == (1, 29)
    with pytest.raises(ValueError, match=r"--input is '.{30}', but must have at most 29 characters"):
        task.batch_of("a" * 30)


# Renamed in a jsonargparse newer than the oldest one supported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_command_line_sees_every_argument_and_hyperparameters_rebuild_the_task():
    arguments = SMALL | {"formats": list(TEXTBOOK_FORMATS), "first_year": 1980, "beam_size": 2, "label_smoothing": 0.1}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    parsed = parser.parse_object({"data": {"class_path": "tasks.Date", "init_args": arguments}})
    task = parser.instantiate_classes(parsed).data
    again = Date(**Date(**arguments).hparams)
    for each in (task, again):
        assert each.read("val") == Date(**arguments).read("val")
        assert (each.beam_size, each.label_smoothing, each.batch_size) == (2, 0.1, 20)
