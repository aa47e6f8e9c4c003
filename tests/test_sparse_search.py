"""Search for the nearest rows: exact, and approximate with a recall that is held to."""

import sys

import pytest
import torch

from memnet import SAM, ApproximateSearch, ExactSearch
from memnet.bench.peak import peak_of
from memnet.functional import cosine_similarity
from memnet.sparse_search import untouched_zeros

RECALL = 0.9
"""What ``ApproximateSearch`` promises for queries that are rows with noise of a third of their length."""


def nearest(memory, query, num_nearest, in_use):
    scores = cosine_similarity(query, memory)
    free = torch.arange(memory.shape[1]) >= in_use[:, None]
    return scores.masked_fill(free[:, None], -torch.inf).topk(num_nearest).indices


def recall(found, right):
    return (found[..., None] == right[:, :, None, :]).any(-1).float().mean().item()


def noisy_rows(memory, slots):
    """Rows with noise of a third of their length."""
    rows = memory.gather(1, slots[:, :, None].expand(-1, -1, memory.shape[2]))
    noise = torch.randn_like(rows)
    return rows + noise * (rows.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True) / 3)


def test_exact_search_follows_the_changes():
    memory, in_use = torch.randn(2, 30, 5), torch.tensor([12, 25])
    rows = ExactSearch().open(memory, in_use)
    query = torch.randn(2, 3, 5)
    assert torch.equal(rows.nearest(query, 4, in_use), nearest(memory, query, 4, in_use))
    memory[:, 3:7] = torch.randn(2, 4, 5) * 10
    memory[0, 12] = 5
    in_use[0] = 13
    rows.update(torch.tensor([[3, 4, 5, 6, 12, 3], [3, 4, 5, 6, 6, 6]]), in_use)
    assert torch.equal(rows.nearest(query, 4, in_use), nearest(memory, query, 4, in_use))
    assert rows.nearest(query, 30, in_use).shape == (2, 3, 30)  # fewer are in use than asked for


def test_without_faiss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'memnet\[ann\]'"):
        ApproximateSearch()


class TestApproximate:
    """What needs faiss, which is no part of the test extra."""

    @pytest.fixture(autouse=True)
    def _one_thread(self):
        faiss = pytest.importorskip("faiss", reason="the extra ann is not installed")
        faiss.omp_set_num_threads(1)

    def test_recall(self):
        slots = 20_000
        memory, in_use = torch.randn(2, slots, 32), torch.full((2,), slots)
        rows = ApproximateSearch(beyond=1000).open(memory, in_use)
        query = noisy_rows(memory, torch.randint(slots, (2, 200)))
        found = rows.nearest(query, 1, in_use)
        assert recall(found, nearest(memory, query, 1, in_use)) >= RECALL

    def test_changed_and_new_rows_are_found_before_and_after_a_rebuild(self):
        slots = 3000
        memory, in_use = torch.randn(2, slots, 16), torch.tensor([2000, 1500])
        rows = ApproximateSearch(beyond=1000).open(memory, in_use)
        first = rows._indices
        built = list(first)
        for step in range(12):
            fresh = in_use[:, None] + torch.arange(50)  # slots enter use in order, half of the changed ones are new
            changed = torch.cat([torch.randint(1400, (2, 50)), fresh], 1)
            memory.scatter_(1, changed[:, :, None].expand(-1, -1, 16), torch.randn(2, 100, 16))
            in_use = in_use + 50
            rows.update(changed, in_use)
            assert all(index.ntotal == used for index, used in zip(rows._indices, in_use.tolist(), strict=True))
            found = rows.nearest(noisy_rows(memory, changed), 1, in_use)
            assert recall(found, changed[:, :, None]) >= RECALL, f"at step {step}"
        assert rows._indices[1] is not built[1], "no rebuild was tried"

    def test_few_slots_are_searched_exactly_and_many_are_not(self):
        memory, in_use = torch.randn(2, 3000, 8), torch.tensor([3000, 40])
        query = torch.randn(2, 5, 8)
        exact = ApproximateSearch(beyond=3000).open(memory, in_use)
        assert torch.equal(exact.nearest(query, 4, in_use), nearest(memory, query, 4, in_use))
        mixed = ApproximateSearch(beyond=100, num_probes=1).open(memory, in_use)
        found = mixed.nearest(query, 4, in_use)
        assert torch.equal(found[1], nearest(memory, query, 4, in_use)[1])
        assert (found[0] >= 0).all() and mixed._indices[0] is not None and mixed._indices[1] is None

    def test_with_every_cell_looked_at_a_network_computes_the_same(self):
        torch.manual_seed(0)
        exact = SAM(3, 2, num_slots=200, slot_size=6, num_reads=3)
        torch.manual_seed(0)
        every = ApproximateSearch(num_probes=10_000, beyond=10)
        approximate = SAM(3, 2, num_slots=200, slot_size=6, num_reads=3, search=every)
        inputs = torch.randn(2, 60, 3)
        results = []
        for network in (exact, approximate):
            outputs, state = network(inputs)
            outputs.square().sum().backward()
            results.append((outputs, *state.access, *(parameter.grad for parameter in network.parameters())))
        for right, got in zip(*results, strict=True):
            torch.testing.assert_close(got, right)


@pytest.mark.parametrize(
    ("settings", "message"), [({"num_probes": 0}, "num_probes is 0"), ({"beyond": 0}, "beyond is 0")]
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ApproximateSearch(**settings)


def test_of_slots_that_are_equally_near_the_first_come_first():
    memory = torch.zeros(2, 40, 3)
    memory[1] = torch.tensor([1.0, 2.0, 3.0])
    memory[1, 20] = torch.tensor([3.0, 2.0, 1.0])
    search = ExactSearch().open(memory, torch.tensor([40, 40]))
    nearest = search.nearest(torch.tensor([[[1.0, 1.0, 1.0]], [[3.0, 2.0, 1.0]]]), 4, torch.tensor([40, 40]))
    assert nearest.tolist() == [[[0, 1, 2, 3]], [[20, 0, 1, 2]]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(), (3, 5), (2, 2**20 + 1)])
def test_zeros_of_every_size(shape: tuple[int, ...], dtype: torch.dtype):
    zeros = untouched_zeros(shape, dtype, torch.device("cpu"))
    assert zeros.shape == shape and zeros.dtype is dtype and zeros.is_contiguous()
    assert not zeros.any()
    zeros += 1
    assert zeros.sum(dtype=torch.float64) == zeros.numel()
    assert not untouched_zeros(shape, dtype, torch.device("cpu")).any()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the pages may be large")
def test_zeros_take_room_where_they_are_touched():
    def touch() -> None:
        """A number in each of 32 pieces of 2 MB."""
        zeros = untouched_zeros((32, 2**21), torch.uint8, torch.device("cpu"))
        zeros[:, 0] = 1

    touch()
    assert peak_of(touch, torch.device("cpu")) < 2**21
