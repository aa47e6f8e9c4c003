"""Loss, metrics, refusals and how an example is shown, for every task."""

import pickle

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from torch import nn

import tasks
from tasks import AssociativeRecall, Copy, NGrams, PrioritySort, RepeatCopy, Task, VectorSort
from tasks.sequence import SequenceTask

EVERY = [Copy, RepeatCopy, AssociativeRecall, NGrams, PrioritySort, VectorSort]
every_task = pytest.mark.parametrize("kind", EVERY)


class Recurrent(nn.Module):
    """A model with the call that tasks expect."""

    def __init__(self, input_size, output_size):
        super().__init__()
        self.input_size, self.output_size = input_size, output_size
        self.lstm = nn.LSTM(input_size, 8, batch_first=True)
        self.linear = nn.Linear(8, output_size)

    def forward(self, inputs, state=None, lengths=None):
        assert lengths.device.type == "cpu" and len(lengths) == len(inputs)
        hidden, state = self.lstm(inputs, state)
        return self.linear(hidden), state


def first_batch(task):
    return next(iter(task.train_dataloader()))


def random_outputs(batch, scale=3.0):
    return scale * torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(3))


def test_every_public_task_on_bits_is_tested():
    public = {getattr(tasks, name) for name in tasks.__all__}
    concrete = {kind for kind in public if isinstance(kind, type) and issubclass(kind, SequenceTask)}
    assert concrete == set(EVERY)


@every_task
def test_bits_and_wrong_bits_are_the_formulas(kind):
    batch = first_batch(kind(batch_size=6))
    outputs = random_outputs(batch)
    evaluation = kind().score(outputs, batch)
    probability = 1 / (1 + np.exp(-outputs.double().numpy()))
    target, counts = batch.targets.numpy(), batch.mask.numpy()
    chosen = np.where(target == 1, probability, 1 - probability)
    bits = [-np.log2(chosen[item][counts[item]]).sum() for item in range(6)]
    wrong = [((probability[item] > 0.5) != target[item])[counts[item]].sum() for item in range(6)]
    # float32 sums of up to a thousand terms
    np.testing.assert_allclose(evaluation.metrics["bits"], bits, rtol=1e-5)
    np.testing.assert_array_equal(evaluation.metrics["wrong_bits"], wrong)
    assert evaluation.loss.item() == pytest.approx(np.mean(bits) * np.log(2), rel=1e-5)
    assert sum(wrong) > 6


@every_task
def test_only_masked_steps_count(kind):
    task = kind(batch_size=6)
    batch = first_batch(task)
    outputs = random_outputs(batch)
    before = task.score(outputs, batch)
    outside = torch.where(batch.mask[:, :, None], outputs, torch.full_like(outputs, 50.0))
    after = task.score(outside, batch)
    assert torch.equal(before.loss, after.loss)
    for name, value in before.metrics.items():
        assert torch.equal(value, after.metrics[name])
    for item in range(6):
        for step in batch.mask[item].nonzero().flatten().tolist()[:: max(1, batch.mask.shape[1] // 5)]:
            inside = outputs.clone()
            inside[item, step, -1] += 1.0
            assert not torch.equal(task.score(inside, batch).loss, before.loss)


@every_task
def test_gradients_are_zero_where_the_target_does_not_count(kind):
    task = kind(batch_size=4)
    batch = first_batch(task)
    outputs = random_outputs(batch).requires_grad_()
    evaluation = task.score(outputs, batch)
    evaluation.loss.backward()
    # d loss / d logit = (sigmoid - target) / batch size
    expected = (outputs.detach().sigmoid() - batch.targets) * batch.mask[:, :, None] / 4
    torch.testing.assert_close(outputs.grad, expected)
    assert not any(value.requires_grad for value in evaluation.metrics.values())


@every_task
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_are_finite(kind, dtype):
    task = kind(batch_size=3)
    batch = first_batch(task)
    right = (1e4 * (2 * batch.targets - 1)).to(dtype).requires_grad_()
    evaluation = task.score(right, batch)
    assert evaluation.loss.item() == 0 and not evaluation.metrics["wrong_bits"].any()
    wrong = (-right.detach()).requires_grad_()
    evaluation = task.score(wrong, batch)
    evaluation.loss.backward()
    counted = batch.mask.sum(1) * task.output_size
    assert torch.equal(evaluation.metrics["wrong_bits"], counted.float())
    # bfloat16 holds 1e4 as 9984
    size = wrong.detach().abs().max().item()
    torch.testing.assert_close(evaluation.metrics["bits"], counted * size / np.log(2).item(), rtol=1e-5, atol=0)
    assert wrong.grad.isfinite().all() and evaluation.loss.isfinite()


@every_task
def test_scores_stay_on_their_device(kind):
    """Tensors that hold no numbers stand in for a GPU's: whatever is made on the CPU in between is refused."""
    task = kind(batch_size=3)
    batch = task.transfer_batch_to_device(first_batch(task), torch.device("meta"), 0)
    evaluation = task.score(torch.zeros_like(batch.targets), batch)
    for value in (evaluation.loss, *evaluation.metrics.values()):
        assert value.device.type == "meta"
    assert all(value.shape == (3,) for value in evaluation.metrics.values())


@every_task
def test_scores_run_under_autocast(kind):
    task = kind(batch_size=3)
    batch = first_batch(task)
    with torch.autocast("cpu", torch.bfloat16):
        evaluation = task.score(random_outputs(batch).bfloat16(), batch)
    assert evaluation.loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in evaluation.metrics.values())


@every_task
def test_evaluate_gives_the_model_the_lengths_and_keeps_its_outputs(kind):
    task = kind(batch_size=3)
    batch = first_batch(task)
    model = Recurrent(task.input_size, task.output_size)
    evaluation = task.evaluate(model, batch)
    assert torch.equal(evaluation.outputs, model(batch.inputs, lengths=batch.lengths)[0])
    assert torch.equal(evaluation.loss, task.score(evaluation.outputs, batch).loss)
    evaluation.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_repeat_copy_counts_wrong_end_markers():
    task = RepeatCopy(batch_size=4)
    batch = first_batch(task)
    outputs = 10 * (2 * batch.targets - 1)
    assert not task.score(outputs, batch).metrics["end_wrong"].any()
    last = batch.lengths - 1
    outputs[0, last[0], 8] = -10  # missing
    outputs[1, last[1] - 1, 8] = 10  # a step early and, as it is still there at the end, one too many
    outputs[2, 0, 8] = 10  # does not count
    outputs[3, last[3], 0] = 10  # a data bit
    metrics = task.score(outputs, batch).metrics
    assert metrics["end_wrong"].tolist() == [1, 1, 0, 0]
    assert metrics["wrong_bits"].tolist() == [1, 1, 0, 1]


@every_task
def test_a_model_of_other_sizes_is_refused(kind):
    task = kind()
    task.check_model(Recurrent(task.input_size, task.output_size))
    for sizes in [(task.input_size + 1, task.output_size), (task.input_size, task.output_size + 1)]:
        message = (
            f"Recurrent has input_size {sizes[0]} and output_size {sizes[1]}, "
            f"but {kind.__name__} needs input_size {task.input_size} and output_size {task.output_size}"
        )
        with pytest.raises(ValueError, match=message):
            task.check_model(Recurrent(*sizes))
    with pytest.raises(ValueError, match="Linear has input_size None"):
        task.check_model(nn.Linear(2, 2))


def test_sizes_are_the_papers():
    sizes = {kind: (kind().input_size, kind().output_size) for kind in EVERY}
    assert sizes == {
        Copy: (9, 8),
        RepeatCopy: (9, 9),
        AssociativeRecall: (8, 6),
        NGrams: (1, 1),
        PrioritySort: (9, 8),
        VectorSort: (9, 8),
    }


SIZES = {
    Copy: ["min_length", "max_length", "num_bits"],
    RepeatCopy: ["min_length", "max_length", "min_repeats", "max_repeats", "num_bits"],
    AssociativeRecall: ["min_items", "max_items", "item_length", "num_bits"],
    NGrams: ["length", "context"],
    PrioritySort: ["num_inputs", "num_outputs", "num_bits"],
    VectorSort: ["min_length", "max_length", "num_bits"],
}
SHARED = ["batch_size", "eval_batch_size", "num_val", "num_test"]


@pytest.mark.parametrize("value", [0, -3, True])
@pytest.mark.parametrize("kind, name", [(kind, name) for kind in EVERY for name in SIZES[kind] + SHARED])
def test_sizes_below_one_are_refused(kind, name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}, but must be a whole number of at least 1\."):
        kind(**{name: value})


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        (
            Copy,
            {"min_length": 5, "max_length": 4},
            "min_length is 5, but must not be larger than max_length, which is 4",
        ),
        (RepeatCopy, {"min_length": 11}, "min_length is 11, but must not be larger than max_length, which is 10"),
        (RepeatCopy, {"min_repeats": 11}, "min_repeats is 11, but must not be larger than max_repeats, which is 10"),
        (RepeatCopy, {"zero_vectors": 1.0}, "zero_vectors is 1.0, but must be at least 0 and less than 1"),
        (AssociativeRecall, {"min_items": 7}, "min_items is 7, but must not be larger than max_items, which is 6"),
        (AssociativeRecall, {"min_items": 1}, "min_items is 1, but must be at least 2"),
        (AssociativeRecall, {"full_until": -1}, "full_until is -1, but must be a whole number of at least 0"),
        (NGrams, {"length": 5}, "length is 5, but must be larger than context, which is 5"),
        (NGrams, {"context": 11}, "context is 11, but must be at most 10"),
        (PrioritySort, {"num_outputs": 21}, "num_outputs is 21, but must not be larger than num_inputs, which is 20"),
        (VectorSort, {"min_length": 21}, "min_length is 21, but must not be larger than max_length, which is 20"),
        (VectorSort, {"num_bits": 63}, "num_bits is 63, but must be at most 62"),
        (Copy, {"seed": -1}, "seed is -1, but must be a whole number of at least 0"),
        (Copy, {"seed": 1.5}, "seed is 1.5, but must be a whole number of at least 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@every_task
def test_picture_has_the_panels_of_the_papers_figures(kind):
    task = kind(batch_size=5)
    batch = first_batch(task)
    outputs = random_outputs(batch)
    item = int(batch.lengths.argmin())
    steps = int(batch.lengths[item])
    panels = task.picture(batch, outputs, item)
    assert list(panels) == ["input", "target", "output", "error"]
    shapes = [panel.shape for panel in panels.values()]
    assert shapes == [(task.input_size, steps)] + [(task.output_size, steps)] * 3
    counts = batch.mask[item, :steps].numpy()
    probability = outputs[item, :steps].sigmoid().numpy().T
    np.testing.assert_array_equal(panels["input"], batch.inputs[item, :steps].numpy().T)
    np.testing.assert_array_equal(panels["target"], batch.targets[item, :steps].numpy().T)
    np.testing.assert_allclose(panels["output"][:, counts], probability[:, counts], rtol=1e-6)
    np.testing.assert_allclose(panels["error"], abs(panels["output"] - panels["target"]), rtol=1e-6)
    assert not panels["output"][:, ~counts].any() and not panels["error"][:, ~counts].any()


@every_task
def test_describe_marks_the_wrong_bits(kind):
    task = kind(batch_size=5)
    batch = first_batch(task)
    outputs = random_outputs(batch)
    metrics = task.score(outputs, batch).metrics
    for item in range(5):
        text = task.describe(batch, outputs, item)
        first, _, rows = text.partition("\n")
        wrong = int(metrics["wrong_bits"][item])
        assert f"{wrong} of {int(batch.mask[item].sum()) * task.output_size} bits wrong" in first
        assert f"{metrics['bits'][item]:.2f} bits" in first
        assert rows.count("X") == wrong > 0
        assert max(map(len, text.splitlines())) <= 80
    right = task.describe(batch, 20 * (2 * batch.targets - 1), 0)
    assert "X" not in right and " 0 of " in right


def test_describe_reads_like_this():
    task = PrioritySort(num_inputs=3, num_outputs=2, num_bits=2, batch_size=1)
    batch = first_batch(task)._replace(
        inputs=torch.tensor([[[1, 0, 0.5], [0, 0, -0.25], [1, 1, 0.75], [0, 0, 0], [0, 0, 0]]]),
        targets=torch.tensor([[[0, 0], [0, 0], [0, 0], [1, 1], [1, 0]]]).float(),
    )
    outputs = torch.zeros(1, 5, 2)
    outputs[0, 3:] = torch.tensor([[100.0, 100.0], [100.0, 1e-6]])
    assert task.describe(batch, outputs, 0).splitlines() == [
        "5 steps, 1.00 bits, 1 of 4 bits wrong",
        "input   1.1..",
        "        ..1..",
        "target  ...11",
        "        ...10",
        "output  ...11",
        "        ...1X",
        "",
        "input channel 2: 0.5 -0.25 0.75",
    ]


@every_task
def test_lightning_trains_and_tests_with_the_loaders(kind, tmp_path):
    class Module(pl.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model, self.seen = model, []

        def training_step(self, batch, batch_idx):
            self.seen.append(("train", len(batch.inputs)))
            return self.trainer.datamodule.evaluate(self.model, batch).loss

        def validation_step(self, batch, batch_idx):
            self.seen.append(("val", len(batch.inputs)))

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            self.seen.append((self.trainer.datamodule.test_names[dataloader_idx], len(batch.inputs)))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    task = kind(batch_size=2, eval_batch_size=4, num_val=6, num_test=4)
    module = Module(Recurrent(task.input_size, task.output_size))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_steps=4,
        val_check_interval=2,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    trainer.fit(module, datamodule=task)
    assert module.seen == ([("train", 2)] * 2 + [("val", 4), ("val", 2)]) * 2
    module.seen.clear()
    trainer.test(module, datamodule=task, verbose=False)
    assert module.seen == [(name, 4) for name in task.test_names]


# Renamed in a jsonargparse newer than the oldest one supported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@every_task
def test_the_command_line_sees_every_argument_and_hyperparameters_rebuild_the_task(kind):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    arguments = {name: 3 for name in [*SHARED, "seed"]} | {SIZES[kind][-1]: 8}
    path = f"tasks.{kind.__name__}"
    parsed = parser.parse_object({"data": {"class_path": path, "init_args": arguments}})
    task = parser.instantiate_classes(parsed).data
    assert type(task) is kind
    assert {name: getattr(task, name) for name in arguments} == arguments
    again = kind(**kind(**arguments).hparams)
    assert {name: getattr(again, name) for name in arguments} == arguments
    with pytest.raises(Exception, match="no_such_thing"):
        parser.parse_object({"data": {"class_path": path, "init_args": {"no_such_thing": 1}}})


def test_batches_can_be_pickled():
    batch = first_batch(Copy(batch_size=2))
    again = pickle.loads(pickle.dumps(batch))
    assert all(torch.equal(one, two) for one, two in zip(batch, again, strict=True))
