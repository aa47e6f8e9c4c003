"""One-shot classification: labels a step late, characters that differ, and metrics by instance."""

import math
from itertools import islice

import numpy as np
import pytest
import torch

from memnet import MANN
from tasks import OneShot
from tasks.characters import POINTS, STROKES, Characters
from tasks.one_shot import _normal
from tasks.sampling import TEST, TRAIN, VALIDATION, Draws, stream_key


def draws(count, first=0):
    return Draws(stream_key(TRAIN, 7), np.arange(first, first + count))


def images_of(task, batch):
    return batch.inputs[:, :, : task.image_size**2]


def test_an_episode_shows_each_character_so_often_and_its_label_one_step_late():
    task = OneShot()
    batch = task.sample(draws(12))
    assert batch.inputs.shape == (12, 50, 405) and batch.targets.shape == (12, 50, 5)
    assert batch.mask.all() and batch.lengths.tolist() == [50] * 12
    assert (batch.targets.sum(2) == 1).all() and (batch.targets.sum(1) == 10).all()
    shown = batch.inputs[:, :, 400:]
    assert not shown[:, 0].any()
    assert torch.equal(shown[:, 1:], batch.targets[:, :-1])
    orders = batch.targets.argmax(-1)
    assert len(orders.unique(dim=0)) == 12


def test_images_of_one_character_are_alike_and_of_two_are_not():
    task = OneShot(noise=0)
    batch = task.sample(draws(20))
    images, labels = images_of(task, batch), batch.targets.argmax(-1)
    assert images.min() >= 0 and images.max() <= 1
    assert (images.amax(-1) > 0.9).all()  # every image has a line on it
    apart = torch.cdist(images, images)
    same = labels[:, :, None] == labels[:, None, :]
    self = torch.eye(50, dtype=torch.bool)
    assert apart[same & ~self].min() > 0.1  # no two instances are the same picture
    nearest = (apart + 1e6 * self).argmin(-1)
    rate = (labels.gather(1, nearest) == labels).float().mean()
    assert rate > 0.9  # so the label can be told from the pictures; chance is 9 in 49


def test_noise_has_its_standard_deviation():
    plain, noisy = (OneShot(noise=noise).sample(draws(20)) for noise in (0, 0.25))
    noise = (noisy.inputs - plain.inputs)[:, :, :400]
    assert noise.std().item() == pytest.approx(0.25, rel=0.01)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)
    assert torch.equal(noisy.targets, plain.targets)


def test_the_largest_random_number_makes_no_infinite_noise():
    class Largest:
        def uniform(self, size):
            return np.full((1, size), 1 - 2.0**-53)

    noise = _normal(Largest(), 6)
    assert noise.dtype == np.float32 and np.isfinite(noise).all() and np.abs(noise).max() < 9


def test_characters_are_strokes_drawn_where_their_points_are():
    """Against a drawing point by point, without turn and shift."""
    characters = Characters(stream_key(TRAIN, 1), 3)
    size = 12
    still = np.full((3, 3), 0.5)
    images = characters.draw(np.arange(3), still, size)
    for image, points in zip(images, characters.points, strict=True):
        assert points.shape == (STROKES * POINTS, 2)
        for row in range(size):
            for column in range(size):
                y, x = (row + 0.5) / size * 2 - 1, (column + 0.5) / size * 2 - 1
                spots = sum(
                    math.exp(-((y - down) ** 2 + (x - right) ** 2) / 2 / (1 / size) ** 2) for down, right in points
                )
                assert image[row, column] == pytest.approx(min(spots, 1), abs=1e-4)


def test_an_instance_is_turned_and_moved():
    characters = Characters(stream_key(TRAIN, 1), 1)
    numbers = np.zeros(3, np.int64)
    still, down, turned = characters.draw(numbers, np.array([[0.5, 0.5, 0.5], [0.5, 1, 0.5], [1, 0.5, 0.5]]), 20)
    # A tenth of the image is two pixels.
    np.testing.assert_allclose(down[4:-2], still[2:-4], atol=1e-4)
    assert np.abs(turned - still).max() > 0.2


def test_training_validation_and_test_have_no_character_in_common():
    task = OneShot(num_instances=2, num_val=4, num_test=4, batch_size=4)
    sets = {split: characters.points for split, characters in task.characters.items()}
    assert {split: len(points) for split, points in sets.items()} == {TRAIN: 1200, VALIDATION: 423, TEST: 423}
    every = np.concatenate(list(sets.values())).reshape(2046, -1)
    assert len(np.unique(every, axis=0)) == 2046


@pytest.mark.parametrize("split", [TRAIN, VALIDATION, TEST])
def test_each_set_of_episodes_is_of_its_own_characters(split):
    """All points of one set's characters laid on one place, which only its own pictures can show."""
    task = OneShot(num_instances=1, image_size=8, noise=0, num_val=4, num_test=4)
    task.characters[split].points[:] = 0
    loaders = [
        (TRAIN, task.train_dataloader()),
        (VALIDATION, task.val_dataloader()),
        (VALIDATION, task.predict_dataloader()),
        (TEST, *task.test_dataloader()),
    ]
    for own, loader in loaders:
        lit = (next(iter(loader)).inputs[:, :, :64] > 0.5).sum(-1)
        # A spot of 48 points is four pixels wide; a drawing is larger.
        assert (lit <= 16).all() == (own == split)


def test_the_seed_changes_episodes_and_not_characters():
    one, two = (OneShot(num_instances=1, image_size=4, seed=seed) for seed in (1, 2))
    for split in (TRAIN, VALIDATION, TEST):
        assert np.array_equal(one.characters[split].points, two.characters[split].points)
    first, second = (next(iter(task.train_dataloader())) for task in (one, two))
    assert not torch.equal(first.inputs, second.inputs)


def test_a_sample_is_a_function_of_seed_and_index():
    small = {"num_instances": 3, "image_size": 8, "num_train_characters": 20, "num_test_characters": 20}
    singles = list(islice(OneShot(batch_size=1, **small).train_dataloader(), 24))
    batches = list(islice(OneShot(batch_size=8, **small).train_dataloader(), 3))
    assert torch.equal(torch.cat([each.inputs for each in singles]), torch.cat([each.inputs for each in batches]))
    task = OneShot(batch_size=1, **small)
    task.batches_consumed = 20
    resumed = list(islice(task.train_dataloader(), 4))
    assert torch.equal(torch.cat([each.inputs for each in resumed]), batches[2].inputs[4:])
    assert not torch.equal(singles[0].inputs, singles[1].inputs)


def test_metrics_by_instance():
    task = OneShot(num_classes=2, num_instances=5)
    order = [0, 0, 1, 0, 1, 1, 0, 1, 0, 1]
    batch = task.sample(draws(1))
    targets = torch.eye(2)[order][None]
    batch = batch._replace(targets=targets)
    answers = [1, 0, 1, 1, 0, 1, 0, 1, 1, 1]  # right at the first time of 1, the second time of 0, ...
    outputs = 3 * torch.eye(2)[answers][None]
    evaluation = task.score(outputs, batch)
    wrong = sum(a != b for a, b in zip(order, answers, strict=True))
    assert evaluation.metrics["wrong"].tolist() == [wrong] == [4]
    assert evaluation.metrics["instance 1"].tolist() == [0.5]
    assert evaluation.metrics["instance 2"].tolist() == [0.5]
    assert evaluation.metrics["instance 5"].tolist() == [0.5]
    assert "instance 10" not in evaluation.metrics
    right, other = -math.log(1 / (1 + math.exp(-3))), -math.log(1 / (1 + math.exp(3)))
    nats = (10 - wrong) * right + wrong * other
    assert evaluation.loss.item() == pytest.approx(nats, rel=1e-5)
    assert evaluation.metrics["bits"].item() == pytest.approx(nats / math.log(2), rel=1e-5)
    assert "instance 1" not in task.score(outputs, batch, extra=False).metrics


def test_an_episode_is_described_and_drawn():
    task = OneShot(num_classes=3, num_instances=2, image_size=6)
    model = MANN(task.input_size, 3, num_slots=8, slot_size=4, num_heads=1)
    task.check_model(model)
    batch = task.sample(draws(2))
    evaluation = task.evaluate(model.eval(), batch)
    text = task.describe(batch, evaluation.outputs, 0)
    wrong = int(evaluation.metrics["wrong"][0])
    assert text.startswith(f"{wrong} of 6 images named wrongly\ntime  1: ") and text.count("named ") - 1 == wrong
    assert set(task.draw(model, batch, "an episode")) == {"example", "weights"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"num_instances": 0}, "num_instances is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"num_train_characters": 4}, "num_train_characters is 4, but must be at least num_classes, which is 5"),
        ({"num_test_characters": 4}, "num_test_characters is 4, but must be at least num_classes, which is 5"),
        ({"noise": -0.1}, "noise is -0.1, but must be at least 0"),
        ({"noise": math.inf}, "noise is inf"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        OneShot(**settings)
