"""The bAbI tasks: stories with questions, read from the genuine files or generated."""

from .download import download_archive
from .encode import Encoded, StoryBatch, encode_stories, join
from .generator import generate
from .many import BabiEnsemble
from .names import NAMES, PUBLISHED
from .reader import find_file, iter_stories, read_stories
from .sets import generated, genuine
from .show import StoryAnswers
from .story import Question, Sentence, Story
from .task import Babi
from .vocabulary import NUM_ANSWERS, VOCAB_SIZE, VOCABULARY

__all__ = [
    "NAMES",
    "NUM_ANSWERS",
    "PUBLISHED",
    "VOCABULARY",
    "VOCAB_SIZE",
    "Babi",
    "BabiEnsemble",
    "Encoded",
    "Question",
    "Sentence",
    "Story",
    "StoryAnswers",
    "StoryBatch",
    "download_archive",
    "encode_stories",
    "find_file",
    "generate",
    "generated",
    "genuine",
    "iter_stories",
    "join",
    "read_stories",
]
