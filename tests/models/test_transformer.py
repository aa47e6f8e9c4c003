"""The Transformer against the paper in loops, and the ways through it against one another."""

import pytest
import torch
from reference import transformer as slow
from torch.nn import functional as F
from torch.profiler import profile

from memnet import (
    AdditiveScore,
    ContentAddressing,
    CosineScore,
    DotScore,
    Entmax15,
    ScaledDotScore,
    TopK,
    Transformer,
    record,
)
from memnet.decoding import BOS, EOS
from memnet.models.transformer import position_encoding

SOURCE_VOCAB, TARGET_VOCAB = 13, 11
HEADS, SIZE = 2, 8
LENGTHS = torch.tensor([6, 3, 1])


def entmax(size):
    return ContentAddressing(ScaledDotScore(size), Entmax15())


ADDRESSINGS = {
    "scaled dot": None,
    "Entmax15": entmax,
    "top 2 by dot": lambda size: ContentAddressing(DotScore(size), TopK(2)),
    "additive": lambda size: ContentAddressing(AdditiveScore(3, size)),
    "cosine": lambda size: ContentAddressing(CosineScore(size)),
}


def make(**settings):
    settings = {"dropout": 0.0, "num_encoder_layers": 2, "num_decoder_layers": 2, "feed_forward_size": 12} | settings
    model = Transformer(SOURCE_VOCAB, TARGET_VOCAB, SIZE, HEADS, **settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)  # so that no bias is 0 and no norm's weight 1
    return model


def batch(time=5):
    source = torch.randint(4, SOURCE_VOCAB, (len(LENGTHS), int(LENGTHS.max())))
    for row, length in zip(source, LENGTHS, strict=True):
        row[length:] = 0
    target_in = torch.randint(4, TARGET_VOCAB, (len(LENGTHS), time))
    target_in[:, 0] = BOS
    return source, target_in


@pytest.fixture
def fused_calls(monkeypatch):
    """The arguments of every call of the fused kernel."""
    calls = []

    def spy(*args, original=F.scaled_dot_product_attention, **kwargs):
        calls.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    return calls


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("tie_embeddings", [False, True])
def test_transformer_is_the_papers(recorded, tie_embeddings):
    model = make(tie_embeddings=tie_embeddings)
    parameters = {name: x.numpy() for name, x in model.state_dict().items()}
    source, target_in = batch()
    if recorded:
        with record(model) as trace:
            logits = model(source, target_in, LENGTHS)
    else:
        logits, trace = model(source, target_in, LENGTHS), {}
    for item, length in enumerate(LENGTHS.tolist()):
        arguments = source[item, :length].numpy(), target_in[item].numpy()
        expected, expected_weights = slow.run(parameters, *arguments, HEADS)
        torch.testing.assert_close(logits[item], torch.from_numpy(expected))
        for name, weights in trace.items():
            assert weights.shape[0] == len(LENGTHS) * HEADS
            for head in range(HEADS):
                real = expected_weights[name][head]
                found = weights[item * HEADS + head, 0]
                torch.testing.assert_close(found[: real.shape[0], : real.shape[1]], torch.from_numpy(real))
    if recorded:
        assert trace.keys() == expected_weights.keys()


def test_position_encoding_is_the_papers_for_odd_widths_too():
    for size in (1, 4, 7):
        codes = position_encoding(torch.arange(3, 40), size, torch.float64)
        expected = [torch.from_numpy(slow.position_encoding(position, size)) for position in range(3, 40)]
        torch.testing.assert_close(codes, torch.stack(expected))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("training", [True, False])
def test_the_fused_path_gives_what_the_recorded_one_gives(lengths, training, fused_calls):
    """Logits and the gradients of all parameters; under the same random numbers dropout is the same, too."""
    model = make(dropout=0.3).train(training)
    source, target_in = batch()

    def run():
        torch.manual_seed(1)
        logits = model(source, target_in, lengths)
        return logits, *torch.autograd.grad(logits.square().sum(), list(model.parameters()))

    fused = run()
    assert len(fused_calls) == 2 + 2 * 2  # every attention of every layer
    with record(model):
        recorded = run()
    assert len(fused_calls) == 2 + 2 * 2
    for x, y in zip(fused, recorded, strict=True):
        torch.testing.assert_close(x, y)


def test_bfloat16_on_the_cpu_takes_the_plain_kernel_and_differs_by_rounding_only():
    """Whose backward pass is several times faster there; see ``_fastest``."""
    model = make().float()
    source, target_in = batch()
    results = []
    for narrow in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow), profile() as events:
            logits = model(source, target_in, LENGTHS)
        logits.float().square().mean().backward()
        names = {event.name for event in events.events()}
        assert any("attention_math" in name for name in names) is narrow
        results.append([logits.float(), *(parameter.grad for parameter in model.parameters())])
    for wide, half in zip(*results, strict=True):
        # bfloat16 keeps 8 bits: half a percent, a dozen roundings deep.
        torch.testing.assert_close(half, wide, rtol=0, atol=0.05 * wide.abs().max().item())


def test_nothing_is_masked_where_nothing_is_padded(fused_calls):
    source, target_in = batch()
    model = make()
    full = torch.full_like(LENGTHS, source.shape[1])
    with_lengths = model(source, target_in, full)
    assert all(call["attn_mask"] is None for call in fused_calls)
    assert [call["is_causal"] for call in fused_calls] == [False] * 2 + [True, False] * 2
    assert torch.equal(with_lengths, model(source, target_in))


def test_another_addressing_is_not_fused(fused_calls):
    make(addressing=entmax)(*batch(), LENGTHS)
    assert not fused_calls


@pytest.mark.parametrize("addressing", ADDRESSINGS)
def test_step_by_step_gives_the_teacher_forced_logits(addressing):
    model = make(addressing=ADDRESSINGS[addressing])
    source, target_in = batch()
    with record(model) as trace:
        expected = model(source, target_in, LENGTHS)
    aligned = trace[model.alignment_names[-1]].reshape(len(LENGTHS), HEADS, *target_in.shape[1:], -1).mean(1)
    state = model.encode(source, LENGTHS)
    for time in range(target_in.shape[1]):
        logits, weights, state = model.step(target_in[:, time], state)
        torch.testing.assert_close(logits, expected[:, time])
        torch.testing.assert_close(weights, aligned[:, time])


@pytest.mark.parametrize("addressing", ADDRESSINGS)
def test_a_later_target_symbol_changes_no_earlier_logits(addressing):
    model = make(addressing=ADDRESSINGS[addressing])
    source, target_in = batch()
    changed = target_in.clone()
    changed[:, 3] = torch.where(target_in[:, 3] == 4, 5, 4)
    for recorded in (False, True):
        if recorded:
            with record(model):
                before, after = model(source, target_in, LENGTHS), model(source, changed, LENGTHS)
        else:
            before, after = model(source, target_in, LENGTHS), model(source, changed, LENGTHS)
        assert torch.equal(before[:, :3], after[:, :3])
        assert (before[:, 3:] != after[:, 3:]).any(-1).all()


@pytest.mark.parametrize("addressing", ADDRESSINGS)
def test_padded_sources_give_what_unpadded_ones_give(addressing):
    model = make(addressing=ADDRESSINGS[addressing])
    source, target_in = batch()
    together = model(source, target_in, LENGTHS)
    generated = model.generate(source, LENGTHS, max_length=6, beam_size=2)
    for item, length in enumerate(LENGTHS.tolist()):
        alone = model(source[item : item + 1, :length], target_in[item : item + 1])
        torch.testing.assert_close(together[item : item + 1], alone)
        tokens, weights = model.generate(source[item : item + 1, :length], max_length=6, beam_size=2)
        written = tokens.shape[1]
        assert torch.equal(generated.tokens[item, :written], tokens[0])
        torch.testing.assert_close(generated.weights[item, :written, :length], weights[0])


@pytest.mark.parametrize("addressing", ADDRESSINGS)
def test_masked_positions_have_weights_of_exactly_zero(addressing):
    model = make(addressing=ADDRESSINGS[addressing])
    source, target_in = batch()
    with record(model) as trace:
        model(source, target_in, LENGTHS)
    assert len(trace) == 2 + 2 * 2
    padding = (torch.arange(source.shape[1]) >= LENGTHS[:, None]).repeat_interleave(HEADS, 0)
    future = ~torch.ones(target_in.shape[1], target_in.shape[1], dtype=torch.bool).tril()
    for name, weights in trace.items():
        weights = weights[:, 0]
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        if "target_attention" in name:
            assert not weights[:, future].any()
        else:
            assert not weights.transpose(1, 2)[padding].any()
    weights = model.generate(source, LENGTHS, max_length=4).weights
    assert not weights.transpose(1, 2)[padding[::HEADS]].any()


def test_sparse_weights_are_exactly_zero_and_learn():
    model = make(addressing=entmax)
    source, target_in = batch()
    with record(model) as trace:
        logits = model(source, target_in)
    for name in model.alignment_names:
        assert (trace[name] == 0).any()
    gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
    assert all(gradient.any() for gradient in gradients)


def test_alignment_names_are_the_decoders_views_of_the_source():
    model = make()
    source, target_in = batch()
    with record(model) as trace:
        model(source, target_in)
    assert len(model.alignment_names) == 2
    for name in model.alignment_names:
        assert trace[name].shape == (len(LENGTHS) * HEADS, 1, target_in.shape[1], source.shape[1])


def test_generation_is_the_best_symbol_of_the_teacher_forced_logits():
    model = make()
    source, _ = batch()
    tokens, weights = model.generate(source, LENGTHS, max_length=7)
    assert weights.shape == (*tokens.shape, source.shape[1])
    target_in = F.pad(tokens, (1, 0), value=BOS)[:, :-1]
    with torch.no_grad():
        best = model(source, target_in, LENGTHS)[..., EOS:].argmax(-1) + EOS
    assert torch.equal(tokens, best.masked_fill(tokens == 0, 0))
    assert not weights.requires_grad


@pytest.mark.parametrize("beam_size", [2, 3])
def test_a_batch_of_beams_is_the_beams_one_by_one(beam_size):
    model = make()
    source, _ = batch()
    tokens, _ = model.generate(source, max_length=7, beam_size=beam_size)
    for item in range(len(source)):
        alone, _ = model.generate(source[item : item + 1], max_length=7, beam_size=beam_size)
        assert torch.equal(tokens[item, : alone.shape[1]], alone[0])


def expected_count(encoder, decoder, feed_forward, embeddings):
    """Per attention: queries, keys, values, output. Per feed-forward network: two maps with biases. Norms: two each."""
    attention, norm = 4 * SIZE * SIZE, 2 * SIZE
    network = 2 * SIZE * feed_forward + feed_forward + SIZE
    layers = encoder * (attention + network + 2 * norm) + decoder * (2 * attention + network + 3 * norm)
    return layers + 2 * norm + SIZE * embeddings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tie_embeddings": True}, expected_count(2, 2, 12, SOURCE_VOCAB + TARGET_VOCAB)),
        ({"tie_embeddings": False}, expected_count(2, 2, 12, SOURCE_VOCAB + 2 * TARGET_VOCAB)),
        ({"num_encoder_layers": 1, "num_decoder_layers": 3}, expected_count(1, 3, 12, SOURCE_VOCAB + TARGET_VOCAB)),
        ({"feed_forward_size": None}, expected_count(2, 2, 4 * SIZE, SOURCE_VOCAB + TARGET_VOCAB)),
        ({"addressing": entmax}, expected_count(2, 2, 12, SOURCE_VOCAB + TARGET_VOCAB)),
    ],
)
def test_parameter_count(settings, expected):
    assert sum(parameter.numel() for parameter in make(**settings).parameters()) == expected


def test_shared_and_tied_embeddings_are_one_parameter_that_survives_its_state_dict():
    model = Transformer(9, 9, SIZE, HEADS, share_vocabulary=True)
    assert model.source_embedding.weight is model.target_embedding.weight
    assert model.output.weight is model.target_embedding.weight
    other = Transformer(9, 9, SIZE, HEADS, share_vocabulary=True)
    other.load_state_dict(model.state_dict())
    model.eval(), other.eval()
    source = torch.randint(4, 9, (2, 3))
    assert torch.equal(model(source, source), other(source, source))
    assert other.output.weight is other.source_embedding.weight


def test_the_state_dict_does_not_know_the_lengths_seen():
    model = make()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    source, target_in = torch.randint(4, 11, (1, 3000)), torch.randint(4, 11, (1, 2))
    assert torch.isfinite(model(source, target_in)).all()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list(model.buffers())


def test_logits_start_small_and_dropout_drops():
    model = Transformer(SOURCE_VOCAB, TARGET_VOCAB, 64, 4, dropout=0.5)
    source, target_in = batch()
    assert not torch.equal(model(source, target_in), model(source, target_in))
    model.eval()
    logits = model(source, target_in)
    assert torch.equal(logits, model(source, target_in))
    assert logits.std() < 2


def test_dropout_is_of_embeddings_and_of_every_sub_layers_output():
    model = make(dropout=0.3, num_encoder_layers=2, num_decoder_layers=3)
    calls = {name: 0 for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    for name in calls:

        def count(module, arguments, output, name=name):
            calls[name] += 1

        model.get_submodule(name).register_forward_hook(count)
    model(*batch())
    expected = {"dropout": 2} | {f"encoder_layers.{i}.dropout": 2 for i in range(2)}
    assert calls == expected | {f"decoder_layers.{i}.dropout": 3 for i in range(3)}


def test_under_autocast_both_paths_agree_and_stay_finite():
    """To the precision of bfloat16, whose numbers are 2^-8 apart, after some twenty roundings."""
    model = make().float()
    source, target_in = batch()
    expected = model(source, target_in, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        fused = model(source, target_in, LENGTHS)
        with record(model):
            recorded = model(source, target_in, LENGTHS)
        generation = model.generate(source, LENGTHS, max_length=4, beam_size=2)
    scale = expected.abs().max().item()
    for logits in (fused, recorded):
        torch.testing.assert_close(logits.float(), expected, atol=20 * 2**-8 * scale, rtol=0)
    assert torch.isfinite(generation.weights).all()


def test_it_learns_to_turn_sequences_around():
    """From a loss near log(8) to nearly none: every part of the model takes part in it."""
    model = Transformer(12, 12, 32, 4, 1, 1, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        source = torch.randint(4, 12, (32, 5))
        target = F.pad(source.flip(1), (1, 0), value=BOS)
        loss = F.cross_entropy(model(source, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    source = torch.randint(4, 12, (50, 5))
    tokens, _ = model.generate(source, max_length=5)
    assert (tokens == source.flip(1)).all(1).float().mean() > 0.9
