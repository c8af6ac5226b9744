import random
import sys

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from ray_split.data.augmentations import AUGMENTATIONS, Augmentation
from ray_split.errors import SettingsError

MODULE = """
import random
import numpy as np
import torch
from torchvision.transforms import v2

class Noise(torch.nn.Module):
    def forward(self, image):
        return image + torch.rand(image.shape).to(image.dtype)

def noise():
    return Noise()

def scaled(size):
    return v2.Compose([v2.RandomAffine(10), v2.Resize(size)])

def halved(size):
    return v2.Resize([side // 2 for side in size])

def inplace():
    return lambda image: image.mul_(2)

def floats():
    return v2.ToDtype(torch.float32)

def arrays():
    return lambda image: image.numpy()

def broken():
    def transform(image):
        raise ValueError("no such corner")
    return transform

def numpys():
    return lambda image: image + np.random.randint(0, 99)

def pythons():
    return lambda image: image + random.randint(0, 99)

def nothing():
    return None
"""
IMAGES = np.random.default_rng(0).integers(1, 256, (2, 4, 3, 12, 10), np.uint8)
CLASSES = np.arange(8).reshape(2, 4)
MAPS = np.random.default_rng(1).integers(1, 9, (2, 4, 12, 10))
SEEDS = np.random.default_rng(2).integers(0, 2**64, (2, 4), np.uint64)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "their_transforms.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_transforms"
    sys.modules.pop("their_transforms", None)


def augmented(name, images=IMAGES, labels=CLASSES, seeds=SEEDS):
    return Augmentation(name, images.shape[2:])(images, labels, seeds)


def refusal(function, *arguments):
    with pytest.raises(SettingsError) as caught:
        function(*arguments)
    assert caught.value.field == "data.augment"
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_keep_shape_and_type_and_some_change(name, dtype):
    images = IMAGES if dtype == np.uint8 else (IMAGES / 255).astype(np.float32)
    before = images.copy()
    found, labels = augmented(name, images)
    assert (found.shape, found.dtype) == (images.shape, dtype)
    assert (labels == CLASSES).all()
    assert (found != images).any()
    assert (images == before).all()


TRANSFORMS = {
    "flip": v2.RandomHorizontalFlip(),
    "crop_flip": v2.Compose([v2.RandomCrop((12, 10), padding=4), v2.RandomHorizontalFlip()]),
    "random_resized_crop": v2.Compose([v2.RandomResizedCrop((12, 10)), v2.RandomHorizontalFlip()]),
    "trivial_augment": v2.TrivialAugmentWide(),
}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_image_is_torchvisions_under_its_seed(name):
    found, _ = augmented(name)
    for place in np.ndindex(2, 4):
        torch.manual_seed(int(SEEDS[place]))
        expected = TRANSFORMS[name](tv_tensors.Image(torch.from_numpy(IMAGES[place].copy())))
        assert (found[place] == expected.numpy()).all()


def test_flip_mirrors_half_of_the_images_left_to_right():
    images = np.broadcast_to(IMAGES[0, 0], (1, 400, 3, 12, 10))
    found, _ = augmented("flip", images, np.zeros((1, 400)), np.arange(400, dtype=np.uint64)[None])
    mirrored = (found == images[..., ::-1]).all((2, 3, 4))
    assert (mirrored | (found == images).all((2, 3, 4))).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_image_depends_on_its_own_seed_alone(name):
    together, _ = augmented(name)
    alone = [augmented(name, IMAGES[k : k + 1, [i]], CLASSES[k : k + 1, [i]], SEEDS[k : k + 1, [i]])[0][0, 0]
             for k in range(2) for i in range(4)]  # fmt: skip
    assert (together.reshape(-1, 3, 12, 10) == np.stack(alone)).all()


def test_torchs_generator_is_left_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augmented("crop_flip")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["flip", "crop_flip"])
def test_labels_that_are_pixel_maps_move_with_the_image(name):
    images = np.broadcast_to(MAPS[:, :, None], (2, 4, 3, 12, 10)).astype(np.uint8)
    found, maps = augmented(name, images, MAPS)
    assert (maps.shape, maps.dtype) == (MAPS.shape, MAPS.dtype)
    assert (found == maps[:, :, None]).all()
    assert (maps != MAPS).any()


def test_resized_pixel_maps_keep_their_classes():
    _, maps = augmented("random_resized_crop", labels=MAPS * 10)
    assert set(np.unique(maps)) <= set(np.unique(MAPS * 10))
    assert (maps != MAPS * 10).any()


def test_a_users_function_returns_a_transform(module):
    before = IMAGES.copy()
    assert (augmented(f"{module}:inplace")[0] == before * 2).all()
    assert (before == IMAGES).all()
    found, _ = augmented(f"{module}:scaled")
    assert (found != IMAGES).any()
    images = IMAGES.astype(np.float32)
    found, _ = augmented(f"{module}:noise", images)
    assert ((found - images >= 0) & (found - images < 1)).all()
    assert (found != images).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        (
            "halved",
            "halved makes (3, 6, 5) of torch.uint8 of (3, 12, 10) of torch.uint8. Return a transform that keeps shape",
        ),
        ("floats", "floats makes (3, 12, 10) of torch.float32 of"),
        ("arrays", "arrays makes ndarray of"),
        ("broken", "ValueError: no such corner"),
    ],
)
def test_a_transform_that_does_not_keep_shape_and_type_is_refused(module, name, allowed):
    error = refusal(augmented, f"{module}:{name}")
    assert error.value == f"{module}:{name}"
    assert allowed in str(error)


@pytest.mark.parametrize("name", ["numpys", "pythons"])
def test_a_transform_that_draws_from_elsewhere_is_refused(module, name):
    np.random.seed(0)
    random.seed(0)
    augmentation = Augmentation(f"{module}:{name}", (3, 12, 10))
    assert "with the same seed it gave different images. Draw with torch's functions alone" in str(
        refusal(augmentation.check, IMAGES, CLASSES, SEEDS)
    )
    Augmentation("crop_flip", (3, 12, 10)).check(IMAGES, CLASSES, SEEDS)


def test_what_is_no_augmentation_is_refused(module):
    assert "Did you mean flip?" in str(refusal(Augmentation, "flipp", (3, 8, 8)))
    assert "samples of shape (64,) aren't images (channels, height, width)" in str(refusal(Augmentation, "flip", (64,)))
    assert "Return a transform" in str(refusal(Augmentation, f"{module}:nothing", (3, 8, 8)))
    error = refusal(augmented, "trivial_augment", IMAGES, MAPS)
    assert "Mask" in str(error)
