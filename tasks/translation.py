"""Translation of sentences, from any pair of text files or from a generated phrase book."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from memnet.checks import check_positive
from memnet.decoding import EOS

from .epochs import ORDER, LengthBuckets
from .held_out import draw_pairs
from .pair_set import PairBatch, PairSet
from .pairs import TRAIN_SET, VAL_SET, PairTask
from .parallel_text import find_file, read_pairs
from .phrasebook import NUM_CHOICES, write_pair
from .sampling import TEST, TRAIN, VALIDATION, stream_key
from .subwords import Subwords

_PHRASEBOOK = "phrase book"
_SPLITS = {TRAIN_SET: TRAIN, VAL_SET: VALIDATION, _PHRASEBOOK: TEST}
_PHRASEBOOK_SIZES = {TRAIN_SET: 10_000, VAL_SET: 500, _PHRASEBOOK: 500}
_TESTS = "test*"
# What a model knows nothing of may cost hundreds of nats a symbol, and the exponential would overflow.
_MOST_NATS = 500.0


class Translation(PairTask):
    """Translates sentences, subword by subword.

    The sentences come from a folder, from files named one by one, or, without either, from a small phrase book in
    German and English that ``tasks.phrasebook`` generates: each pair a function of (seed, index), no German sentence in
    two of its sets, validation and test the same for every seed. Subwords are learned from the training sentences. Of a
    source, the model sees its subwords and an end mark.

    A file holds a sentence a line, plain or compressed by gzip; line n of the source file is the translation of line n
    of the target file. A line that is empty in both is left out, with a warning that counts them; one that is empty in
    one of them is refused.

    Metrics in validation and test beside those of ``PairTask``: ``symbols`` of a sentence; and over the whole set, BLEU
    and chrF by sacrebleu, of plain text and without regard to case (see ``signatures``), and the perplexity,
    exp(nats of all sentences / symbols of all sentences), which can only be compared for the same subwords.

    Args:
        folder: where to find ``train.<language>``, ``val.<language>`` and test sets ``test*.<language>``, with or
            without ``.gz``, as Multi30k has them.
        source_language: the ending of the source files in ``folder``.
        target_language: the ending of the target files in ``folder``.
        train: source and target file, in place of ``folder``.
        val: source and target file.
        tests: name of a test set to its source and target file; ``val`` if none is given.
        num_train: training pairs at most, from the first on; by default all of a file, 10,000 of the phrase book.
        num_val: validation pairs at most; by default all of a file, 500 of the phrase book.
        num_test: pairs of each test set at most; by default all of a file, 500 of the phrase book.
        vocab_size: how many subwords there are for each language, or for both if they share them.
        joint_vocabulary: whether the two languages share their subwords.
        lowercase: whether all text is made lower case.
        max_tokens: how many source symbols, and how many target symbols, a training batch has at most, padding counted,
            over all processes.
        max_length: how many subwords a translation may have, the end mark counted.
        **settings: search, loss, evaluation and seed, as for ``PairTask``. The seed decides on the order of training
            pairs, and on those of the phrase book.

    Raises:
        ValueError: a number is out of its range, or it is unclear where sentences come from; and, when the files are
            read, a file is missing or at fault, or there can be no such vocabulary.
    """

    monitor = "nats"
    curve = ("bleu", "BLEU")

    def __init__(
        self,
        folder: str | None = None,
        source_language: str = "de",
        target_language: str = "en",
        train: list[str] | None = None,
        val: list[str] | None = None,
        tests: dict[str, list[str]] | None = None,
        num_train: int | None = None,
        num_val: int | None = None,
        num_test: int | None = None,
        vocab_size: int = 500,
        joint_vocabulary: bool = True,
        lowercase: bool = False,
        max_tokens: int = 4096,
        max_length: int = 100,
        **settings: Any,
    ) -> None:
        for name, number in {"num_train": num_train, "num_val": num_val, "num_test": num_test}.items():
            if number is not None:
                check_positive(name, number)
        check_positive("vocab_size", vocab_size)
        check_positive("max_tokens", max_tokens)
        check_positive("max_length", max_length)
        self._files = _files(folder, source_language, target_language, train, val, tests)
        super().__init__(**settings)
        self.vocab_size = vocab_size
        self.joint_vocabulary = joint_vocabulary
        self.lowercase = lowercase
        self.max_tokens = max_tokens
        self.max_length = max_length
        most = {TRAIN_SET: num_train, VAL_SET: num_val}
        self.most = most | dict.fromkeys((name for name in self.test_names if name not in most), num_test)
        self._texts: dict[str, list[tuple[str, str]]] = {}
        self._vocabularies: tuple[Subwords, Subwords] | None = None

    @property
    def test_names(self) -> list[str]:
        return [name for name in self._files if name != TRAIN_SET and (name != VAL_SET or len(self._files) == 2)]

    @property
    def source_vocabulary(self) -> Subwords:
        return self._subwords()[0]

    @property
    def target_vocabulary(self) -> Subwords:
        return self._subwords()[1]

    @property
    def max_target_length(self) -> int:
        return self.max_length

    @property
    def epoch_size(self) -> int:  # type: ignore[override]
        """How many training pairs there are."""
        return len(self.read(TRAIN_SET))

    def _subwords(self) -> tuple[Subwords, Subwords]:
        if self._vocabularies is None:
            sources, targets = zip(*self.read(TRAIN_SET), strict=True)
            if self.joint_vocabulary:
                joint = Subwords.train([*sources, *targets], self.vocab_size)
                self._vocabularies = joint, joint
            else:
                self._vocabularies = (
                    Subwords.train(sources, self.vocab_size),
                    Subwords.train(targets, self.vocab_size),
                )
        return self._vocabularies

    def state_dict(self) -> dict[str, Any]:
        """The subwords: a trained model means something with its own ones only, whatever becomes of the files."""
        return {} if self._vocabularies is None else {"subwords": [each.model for each in self._vocabularies]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with a checkpoint's subwords.

        Args:
            state_dict: what ``state_dict`` returned.
        """
        source, target = (Subwords(model) for model in state_dict["subwords"])
        self._vocabularies = source, target
        self._sets.clear()

    def read(self, name: str) -> list[tuple[str, str]]:
        if name not in self._texts:
            paths, most = self._files[name], self.most[name]
            if paths is None:
                number = self.seed if name == TRAIN_SET else 0
                pairs = draw_pairs(write_pair, NUM_CHOICES, _SPLITS[name], number, most or _PHRASEBOOK_SIZES[name])
            else:
                pairs = read_pairs(*paths)[:most]
            self._texts[name] = [(self._cased(source), self._cased(target)) for source, target in pairs]
        return self._texts[name]

    def _cased(self, text: str) -> str:
        return text.lower() if self.lowercase else text

    def encode_sources(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*symbols, EOS] for symbols in super().encode_sources(texts)]

    def batch_of(self, text: str) -> PairBatch:
        return super().batch_of(self._cased(text.strip()))

    def schedule(self, pairs: PairSet) -> LengthBuckets:
        key = stream_key(ORDER, self.seed)
        # A decoder is not shown the end mark.
        return LengthBuckets(pairs.source_lengths, pairs.target_lengths - 1, self.max_tokens, key)

    def text_metrics(self, batch: PairBatch, answers: list[tuple[str, str]]) -> dict[str, Float[Tensor, " batch"]]:
        return {"symbols": (batch.target_lengths - 1).to(batch.source.device, torch.float32)}

    def corpus_metrics(self, answers: list[tuple[str, str]], means: dict[str, float]) -> dict[str, float]:
        written, right = zip(*answers, strict=True)
        scores = {name: metric.corpus_score(written, [right]).score for name, metric in _scores().items()}
        return scores | {"perplexity": math.exp(min(means["nats"] / means["symbols"], _MOST_NATS))}

    def notes(self) -> list[str]:
        return [f"{name}: sacrebleu, {signature}" for name, signature in self.signatures().items()]

    def signatures(self) -> dict[str, str]:
        """What sacrebleu wants stated beside its numbers: how exactly they were computed."""
        signatures = {}
        for name, metric in _scores().items():
            metric.corpus_score(["a"], [["a"]])  # how many references there are belongs to it
            signatures[name] = str(metric.get_signature())
        return signatures


Paths = tuple[str | Path, str | Path]


def _files(
    folder: str | None,
    source_language: str,
    target_language: str,
    train: list[str] | None,
    val: list[str] | None,
    tests: dict[str, list[str]] | None,
) -> Mapping[str, Paths | None]:
    """The source and target file of each set, by name; None for the phrase book's."""
    named = {"train": train, "val": val, "tests": tests}
    given = [name for name, value in named.items() if value is not None]
    if folder is not None:
        if given:
            raise ValueError(f"folder and {given[0]} are both given, but sentences come from one of them.")
        return _in_folder(Path(folder), source_language, target_language)
    if not given:
        return dict.fromkeys([TRAIN_SET, VAL_SET, _PHRASEBOOK])
    if train is None or val is None:
        raise ValueError(f"{given[0]} is given, but train and val must both be.")
    tests = tests or {}
    for name in tests:
        if name in (TRAIN_SET, VAL_SET):
            raise ValueError(f"tests names a set {name!r}, but that is the name of another one.")
    files = {TRAIN_SET: train, VAL_SET: val} | tests
    for name, paths in files.items():
        if len(paths) != 2:
            raise ValueError(f"the {name} set has {len(paths)} files, but must have a source and a target file.")
    return {name: (paths[0], paths[1]) for name, paths in files.items()}


def _in_folder(folder: Path, source_language: str, target_language: str) -> dict[str, Paths]:
    if not folder.is_dir():
        raise ValueError(f"folder is {folder}, but there is no such folder.")
    endings = (f".{source_language}", f".{source_language}.gz")
    found = {path.name.removesuffix(ending) for ending in endings for path in folder.glob(_TESTS + ending)}
    return {
        name: (find_file(folder, f"{name}.{source_language}"), find_file(folder, f"{name}.{target_language}"))
        for name in [TRAIN_SET, VAL_SET, *sorted(found)]
    }


def _scores() -> dict[str, Any]:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise ImportError("BLEU needs the sacrebleu package: pip install 'memnet[translation]'.") from error
    return {"bleu": BLEU(lowercase=True), "chrf": CHRF(lowercase=True)}
