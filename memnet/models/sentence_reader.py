"""Stories for recurrent networks: sentence by sentence, then the question as often as it takes."""

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from memnet.checks import check_positive, check_story
from memnet.models.encoders import reverse_within
from memnet.models.lstm import LSTM
from memnet.models.recurrent import Padding
from memnet.models.story_encoding import MASK_STD, LearnedMask, encode
from memnet.models.story_reader import check_reading_network
from memnet.models.word_match import QuestionMatch
from memnet.story_sharing import without_gaps


class SentenceReader(nn.Module):
    """Answers a question about a story by reading both, sentence by sentence, with any recurrent network.

    The words of a sentence are weighted by learned masks of their positions and summed, as in the recurrent entity
    network (Henaff et al. 2017, https://arxiv.org/abs/1612.03969, eq. 1). The network gets a vector for each sentence
    of the story, the oldest first, and then the question's vector ``num_asks`` times, the how-manieth time added to it;
    its output at the last of them is the answer. So it can follow a chain of facts from read to read once it knows what
    is asked for, as a memory network does in its hops (Sukhbaatar et al. 2015).

    Beside ``StoryReader``, which reads word by word as Graves et al. (2016) did, there are several times fewer steps.

    What a sentence is good for shows only in what comes after it: in other facts, and in the question. With
    ``bidirectional`` an LSTM reads all of it from the end to the beginning first, and what it says at a step is added
    to the network's input there, so that the network knows what to look for before it writes (Franke, Niehues and
    Waibel 2018, "Robust and Scalable Differentiable Neural Computer for Question Answering",
    https://arxiv.org/abs/1807.02658, have a backward pass beside the memory's own, too). With ``mark_asked`` the words
    of a sentence that the question has, too, are marked with where they stand there (``memnet.models.word_match``).

    >>> import torch, memnet
    >>> model = memnet.SentenceReader(memnet.LSTM(8, 20, hidden_size=32, num_layers=1), vocab_size=20)
    >>> story = torch.tensor([[[3, 4, 5], [6, 4, 0]]])  # two sentences, of three words and two
    >>> model(story, torch.tensor([[7, 3]])).shape
    torch.Size([1, 20])

    Args:
        network: called ``outputs, state = network(inputs, lengths=lengths)``, as ``memnet.LSTM`` and ``DNC`` are. Its
            ``input_size`` is the width of a sentence's vector, its ``output_size`` how many of the words, the first
            ones, can be answers.
        vocab_size: how many words there are, the null word (0), which is padding, among them.
        num_asks: how often the question is put.
        num_words: how many words the longest sentence or question has.
        bidirectional: whether the network's input says what comes later, too.
        mark_asked: whether words that are in the question are marked.

    Raises:
        ValueError: a number is not positive, the network does not say its sizes, or there are more answers than words.
    """

    def __init__(
        self,
        network: nn.Module,
        vocab_size: int,
        num_asks: int = 4,
        num_words: int = 16,
        bidirectional: bool = False,
        mark_asked: bool = False,
    ):
        super().__init__()
        self.vocab_size = check_positive("vocab_size", vocab_size)
        self.embedding_size, self.num_answers = check_reading_network(network, vocab_size)
        self.num_asks = check_positive("num_asks", num_asks)
        check_positive("num_words", num_words)
        self.network = network
        # The null word has no row: its zeros are no parameter, so nothing can change them.
        self.words = nn.Parameter(self.embedding_size**-0.5 * torch.randn(vocab_size - 1, self.embedding_size))
        self.sentence_encoding = LearnedMask(num_words, self.embedding_size, MASK_STD)
        self.question_encoding = LearnedMask(num_words, self.embedding_size, MASK_STD)
        self.encoding_norm = nn.LayerNorm(self.embedding_size)
        self.asks = nn.Parameter(torch.randn(num_asks, self.embedding_size))
        size = self.embedding_size
        self.question_match = QuestionMatch(vocab_size, size, num_words) if mark_asked else None
        self.backward_lstm = LSTM(size, size, hidden_size=size, num_layers=1) if bidirectional else None

    def forward(
        self, story: Int64[Tensor, "batch sentence word"], question: Int64[Tensor, "batch asked"]
    ) -> Float[Tensor, "batch answer"]:
        """Logits for the answers.

        Args:
            story: the words of each sentence, the oldest sentence first; words and sentences padded with 0.
            question: the question's words, padded with 0.

        Raises:
            ValueError: story or question have another form, a sentence is longer than ``num_words``, or (looked at on
                the CPU only) a word is outside the vocabulary.
        """
        check_story(story, question, self.vocab_size)
        story, present = without_gaps(story)
        counts = present.sum(1)
        questions = self.encoding_norm(encode(self.question_encoding, self.words, question))
        asked = rearrange(questions, "batch emb -> batch 1 emb") + self.asks
        item, place = present.nonzero(as_tuple=True)
        said = story[item, place]
        marks = None if self.question_match is None else self.question_match(said, question[item])
        sentences = self.encoding_norm(encode(self.sentence_encoding, self.words, said, marks))
        steps = rearrange(counts, "batch -> batch 1") + torch.arange(self.num_asks, device=counts.device)
        lengths = counts + self.num_asks
        items = torch.arange(len(story), device=story.device)
        inputs = asked.new_zeros(len(story), int(lengths.max()), self.embedding_size)
        inputs = inputs.index_put((item, place), sentences)
        inputs = inputs.index_put((rearrange(items, "batch -> batch 1"), steps), asked)
        if self.backward_lstm is not None:
            padding = Padding.of(lengths, inputs.shape[1], inputs.device)
            later, _ = self.backward_lstm(reverse_within(inputs, padding), lengths=lengths)
            inputs = inputs + reverse_within(later, padding)
        outputs, _ = self.network(inputs, lengths=lengths)
        return outputs[items, lengths - 1]
