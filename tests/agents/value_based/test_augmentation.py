"""DrQ's augmentation: shifts with repeated edges, one per stack, and a jitter of the intensity."""

import numpy as np
import torch

from agents.value_based.augmentation import augment, shift

IMAGE = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3)


def test_shifts_repeat_the_edges() -> None:
    below = shift(IMAGE, torch.tensor([1]), torch.tensor([0]))
    assert below.tolist() == [[[[3, 4, 5], [6, 7, 8], [6, 7, 8]]]] and below.dtype == torch.uint8
    left = shift(IMAGE, torch.tensor([0]), torch.tensor([-2]))
    assert left.tolist() == [[[[0, 0, 0], [3, 3, 3], [6, 6, 6]]]]
    assert shift(IMAGE, torch.tensor([0]), torch.tensor([0])).equal(IMAGE)


def test_shifts_equal_padding_and_cropping() -> None:
    rng = np.random.default_rng(0)
    obs = torch.from_numpy(rng.integers(0, 256, (81, 2, 11, 13), dtype=np.uint8))
    down, right = torch.meshgrid(torch.arange(-4, 5), torch.arange(-4, 5), indexing="ij")
    shifted = shift(obs, down.flatten(), right.flatten())
    padded = torch.nn.functional.pad(obs.float(), (4, 4, 4, 4), mode="replicate").to(torch.uint8)
    for row, (y, x) in enumerate(zip(down.flatten().tolist(), right.flatten().tolist(), strict=True)):
        assert shifted[row].equal(padded[row, :, 4 + y : 15 + y, 4 + x : 17 + x])


def test_each_stack_has_a_shift_and_a_factor_of_its_own() -> None:
    obs = torch.zeros(3000, 2, 24, 24, dtype=torch.uint8)
    obs[:, :, 12, 12] = 200
    augmented = augment(obs, np.random.default_rng(0))
    assert augmented.dtype == torch.float32 and augmented[:, 0].equal(augmented[:, 1])
    peak_B = augmented.flatten(1).amax(dim=1)
    assert peak_B.min() >= 180 and peak_B.max() <= 220 and 7 < peak_B.std() < 10
    place_BX = (augmented[:, 0] > 0).nonzero()[:, 1:]
    offsets = {(12 - y, 12 - x) for y, x in place_BX.tolist()}
    assert offsets == {(y, x) for y in range(-4, 5) for x in range(-4, 5)}


def test_the_generator_decides() -> None:
    obs = torch.randint(0, 255, (4, 2, 24, 24), dtype=torch.uint8)
    assert augment(obs, np.random.default_rng(1)).equal(augment(obs, np.random.default_rng(1)))
    assert not augment(obs, np.random.default_rng(1)).equal(augment(obs, np.random.default_rng(2)))
