"""Stories for recurrent networks: word by word, then the question (Graves et al. 2016, "bAbI experiments")."""

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from memnet.checks import check_positive, check_story
from memnet.models.story_encoding import NULL


class StoryReader(nn.Module):
    """Answers a question about a story by reading both, word by word, with any recurrent network.

    Each word is embedded; the network gets the words of the story, the oldest sentence first, and then those of the
    question, and its output at the end of the question is the answer. Padding within and between sentences is taken
    out, so that no answer depends on it.

    A learned mark follows each sentence, and another one the question, where the answer is given: they stand for the
    full stop and for the question mark with the request to answer, which a bAbI story's words come without.

    >>> import torch, memnet
    >>> model = memnet.StoryReader(memnet.LSTM(8, 20, hidden_size=32, num_layers=1), vocab_size=20)
    >>> story = torch.tensor([[[3, 4, 5], [6, 4, 0]]])  # two sentences, of three words and two
    >>> model(story, torch.tensor([[7, 3]])).shape
    torch.Size([1, 20])

    Args:
        network: called ``outputs, state = network(inputs)``, as ``memnet.LSTM`` and ``NTM`` are. Its ``input_size`` is
            the width of a word's embedding, its ``output_size`` how many of the words, the first ones, can be answers.
        vocab_size: how many words there are, the null word (0), which is padding, among them.
        marks: whether sentences and question end in marks; without, the answer is given at the question's last word.

    Raises:
        ValueError: ``vocab_size`` is not positive, the network does not say its sizes, or there are more answers than
            words.
    """

    def __init__(self, network: nn.Module, vocab_size: int, marks: bool = True):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.embedding_size, self.num_answers = check_reading_network(network, vocab_size)
        self.marks = marks
        self.network = network
        self.words = nn.Embedding(vocab_size + 2 * marks, self.embedding_size, padding_idx=NULL)

    def forward(
        self, story: Int64[Tensor, "batch sentence word"], question: Int64[Tensor, "batch asked"]
    ) -> Float[Tensor, "batch answer"]:
        """Logits for the answers.

        Args:
            story: the words of each sentence, the oldest sentence first; words and sentences padded with 0.
            question: the question's words, at least one, padded with 0.

        Raises:
            ValueError: story or question have another form or number of axes, or (looked at on the CPU only) a word is
                outside the vocabulary or a question has no word.
        """
        self._check(story, question)
        words, lengths = self._in_a_row(story, question)
        # Padding comes after a story's last word, where nothing is asked: sequences need no lengths, which would only
        # keep torch's LSTM from running all steps at once.
        outputs, _ = self.network(self.words(words))
        last = rearrange(lengths - 1, "batch -> batch 1 1").to(outputs.device).expand(-1, 1, outputs.shape[-1])
        return rearrange(outputs.gather(1, last), "batch 1 answer -> batch answer")

    def _in_a_row(
        self, story: Int64[Tensor, "batch sentence word"], question: Int64[Tensor, "batch asked"]
    ) -> tuple[Int64[Tensor, "batch time"], Int64[Tensor, " batch"]]:
        """All words with the marks between them and padding only at the end, and how many they are."""
        if self.marks:
            ends = self.vocab_size * (story != NULL).any(-1, keepdim=True)
            story = torch.cat([story, ends.to(story.dtype)], -1)
            question = F.pad(question, (0, 1), value=self.vocab_size + 1)
        words = torch.cat([rearrange(story, "batch sentence word -> batch (sentence word)"), question], 1)
        empty = words == NULL
        lengths = (~empty).sum(1).cpu()
        words_first = empty.to(torch.int8).argsort(dim=1, stable=True)
        return words.gather(1, words_first)[:, : int(lengths.max())], lengths

    def _check(self, story: Tensor, question: Tensor) -> None:
        check_story(story, question, self.vocab_size)
        if question.device.type == "cpu" and not torch.compiler.is_compiling():
            wordless = (question == NULL).all(1)
            if wordless.any():
                raise ValueError(f"question {int(wordless.int().argmax())} has no word, but needs at least one.")


def check_reading_network(network: nn.Module, vocab_size: int) -> tuple[int, int]:
    """The widths of a recurrent network's input and output, which are those of a word's vector and of the answers.

    Args:
        network: what shall read stories.
        vocab_size: how many words there are.

    Raises:
        ValueError: the network does not say its sizes, or there are more answers than words.
    """
    sizes = []
    for name in ("input_size", "output_size"):
        size = getattr(network, name, None)
        if not isinstance(size, int):
            raise ValueError(
                f"network is a {type(network).__name__} without {name}, but must be a recurrent network with "
                "input_size and output_size, such as memnet.LSTM."
            )
        sizes.append(size)
    if sizes[1] > vocab_size:
        raise ValueError(
            f"the network's output_size is {sizes[1]}, but there are only {vocab_size} words (vocab_size)."
        )
    return sizes[0], sizes[1]
