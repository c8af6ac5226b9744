"""How the training samples are dealt to the phones, by name. Every sample goes to exactly one phone.

To add one: a function (labels, settings, count, draw) -> the phone of every sample, and a line in PARTITIONS. If it
has a place for `groups`, it is given the data set's ids of the samples.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ray_split import config, seeds
from ray_split.arrays import Array
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import FIX, find, suggest
from ray_split.data.phone_groups import PhoneGroups, named
from ray_split.errors import BROKEN, SettingsError, failed, listed, shown
from ray_split.messages.labels import IGNORED

TRIES = 10
LENGTH, LENGTH_BINS = "length", 10


@dataclass(frozen=True)
class Partition:
    """Which samples each phone has: phone p's are indices[offsets[p]:offsets[p + 1]], in a random order.

    Of these, the last `held_out` (a share, rounded down) are not trained on, but tell how well a model does on this
    phone: the first half of them for validation, the rest for the test.
    """

    indices: Array
    offsets: Array
    held_out: float = 0.0
    groups: PhoneGroups | None = None  # whose samples each phone has, where a natural partition has names

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def training(self, phones: Array | slice = slice(None)) -> Array:
        """How many samples each of the phones trains on."""
        sizes: Array = np.diff(self.offsets)[phones] if isinstance(phones, slice) else self._sizes(phones)
        return sizes - self._held(sizes)

    def _sizes(self, phones: Array) -> Array:
        sizes: Array = self.offsets[phones + 1] - self.offsets[phones]
        return sizes

    def _held(self, sizes: Array) -> Array:
        held: Array = np.minimum((sizes * self.held_out).astype(np.int64), sizes - 1)
        return held

    def of(self, phone: int) -> Array:
        """The indices that one phone trains on."""
        start = self.offsets[phone]
        return self.indices[start : start + int(self.training(np.array([phone]))[0])]

    def of_many(self, phones: Array) -> Array:
        """The indices (phones, samples) that phones with equally many train on."""
        count = int(self.training(phones[:1])[0])
        found: Array = self.indices[self.offsets[phones][:, None] + np.arange(count)]
        return found

    def resized(self, phones: Sequence[int], size: int) -> Partition:
        """With so many samples of each of some phones: its first ones, or all of them again and again."""
        own = np.split(self.indices, self.offsets[1:-1])
        own = [np.resize(each, size) if phone in phones else each for phone, each in enumerate(own)]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in own])])
        return replace(self, indices=np.concatenate(own), offsets=offsets)

    def held_out_of(self, phone: int, part: str) -> Array:
        """The indices that are held out on a phone for 'val' or 'test'; may be none."""
        stop = self.offsets[phone + 1]
        held = int(self._held(self._sizes(np.array([phone])))[0])
        middle = stop - held + held // 2
        return self.indices[stop - held : middle] if part == "val" else self.indices[middle:stop]

    def held_out_sizes(self, part: str) -> Array:
        """How many samples every phone holds out for 'val' or 'test'."""
        held = self._held(np.diff(self.offsets))
        return held // 2 if part == "val" else held - held // 2


Dealer = Callable[..., Array]
Groups = Mapping[str, Array]


def iid(labels: Array, settings: config.Partition, count: int, draw: np.random.Generator) -> Array:
    """Equal shares of a random order: sizes differ by one at most."""
    owner = np.empty(len(labels), np.int64)
    owner[draw.permutation(len(labels))] = np.arange(len(labels)) * count // len(labels)
    return owner


def dirichlet(labels: Array, settings: config.Partition, count: int, draw: np.random.Generator) -> Array:
    """Each class is dealt by shares drawn from a Dirichlet(alpha): the smaller alpha, the fewer classes a phone has.

    Drawn again, at most ten times, until every phone has min_samples.
    Source: Hsu, Qi and Brown 2019, https://arxiv.org/abs/1909.06335; per class as Li et al., https://arxiv.org/abs/2102.02079.
    """
    classes = _classes(labels, settings)
    for _ in range(TRIES):
        owner = np.empty(len(labels), np.int64)
        for label in np.unique(classes):
            own = draw.permutation(np.flatnonzero(classes == label))
            borders = np.cumsum(draw.dirichlet(np.full(count, settings.alpha)))
            owner[own] = np.minimum(np.searchsorted(borders, (np.arange(len(own)) + 0.5) / len(own)), count - 1)
        if np.bincount(owner, minlength=count).min() >= settings.min_samples:
            break
    return owner


def shards(labels: Array, settings: config.Partition, count: int, draw: np.random.Generator) -> Array:
    """Samples sorted by label are cut into equal shards, and each phone gets `shards_per_phone` of them.

    Source: McMahan et al. 2017, section 3, https://arxiv.org/abs/1602.05629.
    """
    classes = _classes(labels, settings)
    total = count * settings.shards_per_phone
    if total > len(labels):
        shards = settings.shards_per_phone
        wrong = f"{count} phones with {shards} shards each need {total} samples, but there are only {len(labels)}"
        do = "Set fewer shards per phone, or lower phones.count"
        raise SettingsError("data.partition.shards_per_phone", settings.shards_per_phone, do, wrong)
    mixed = draw.permutation(len(labels))
    by_label = mixed[np.argsort(classes[mixed], kind="stable")]
    owner_of_shard = draw.permutation(total) // settings.shards_per_phone
    owner = np.empty(len(labels), np.int64)
    owner[by_label] = owner_of_shard[np.arange(len(labels)) * total // len(labels)]
    return owner


def natural(labels: Array, settings: config.Partition, count: int, draw: np.random.Generator, groups: Groups) -> Array:
    """A phone has all samples of its ids, of a writer or a user: as real phones have them.

    With as many phones as ids, phone p has the p-th id in order; with fewer, the ids are dealt at random, and phones
    differ by one id at most. Source: Caldas et al. 2018, LEAF, https://arxiv.org/abs/1812.01097.
    """
    kind = _kind(settings, groups)
    names, own = np.unique(groups[kind], return_inverse=True)
    if count > len(names):
        wrong = f"is {count}, but the training samples are from only {len(names)} {kind} ids"
        raise SettingsError("phones.count", count, f"Use {len(names)} or fewer, or another data.partition.name", wrong)
    if count == len(names):
        return own
    owner: Array = iid(names, settings, count, draw)[own]
    return owner


def _kind(settings: config.Partition, groups: Groups) -> str:
    """Which ids are meant: those that the settings name, or the only ones."""
    if not groups:
        wrong = "can't be natural, because the data set has no ids (the groups of a ray_split.DataSet)"
        raise SettingsError("data.partition.name", settings.name, "Set iid, dirichlet or shards", wrong)
    kind = next(iter(groups)) if settings.by is None and len(groups) == 1 else settings.by
    if kind is None or kind not in groups:
        there = f"Set {listed(sorted(groups), 'or')}"
        wrong = (
            "is not set, but the data set has several kinds of ids"
            if kind is None
            else f"there are no ids {shown(kind)}"
        )
        raise SettingsError("data.partition.by", settings.by, suggest(kind or "", groups, there), wrong)
    return kind


PARTITIONS: dict[str, Dealer] = {"iid": iid, "dirichlet": dirichlet, "shards": shards, "natural": natural}


def deal(settings: config.Config, labels: Array, groups: Groups | None = None) -> Partition:
    """Deal the training samples to the phones. Raises SettingsError if a phone would get too few.

    `labels` and `groups`: of the training samples, as `ray_split.load_data(config.data)` has them.
    """
    wanted, count = settings.data.partition, settings.phones.count
    function = find("data.partition.name", wanted.name, PARTITIONS)
    if count * wanted.min_samples > len(labels):
        each = "one" if wanted.min_samples == 1 else f"{wanted.min_samples} (data.partition.min_samples)"
        wrong = f"is {count}, but there are only {len(labels)} training samples and every phone needs at least {each}"
        raise SettingsError("phones.count", count, f"Use {len(labels) // wanted.min_samples} or fewer", wrong)
    draw = seeds.generator(settings.run.seed, "partition")
    owner = _checked(_dealt(function, labels, wanted, count, draw, groups or {}), wanted, len(labels), count)
    if wanted.name not in PARTITIONS:
        again = seeds.generator(settings.run.seed, "partition")
        _check_same(wanted, owner, _dealt(function, labels, wanted, count, again, groups or {}))
    sizes = np.bincount(owner, minlength=count)
    if sizes.min() < wanted.min_samples:
        short = int((sizes < wanted.min_samples).sum())
        each = f"{wanted.min_samples} sample{'s' * (wanted.min_samples > 1)}"
        wrong = f"with {spoken(wanted.name)}, {short} of {count} phones would have fewer than {each}"
        hint = "Lower phones.count"
        hint += ", raise data.partition.alpha, or use more samples" if wanted.name == "dirichlet" else ""
        raise SettingsError("data.partition", wanted.name, hint, wrong)
    # Within a phone in a random order, so that its held-out samples are any of its samples.
    mixed = draw.permutation(len(labels))
    indices = mixed[np.argsort(owner[mixed], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    kind = _kind(wanted, groups or {}) if function is natural else None
    names = named(kind, (groups or {})[kind], indices, offsets) if kind is not None else None
    found = Partition(indices, offsets, settings.phones.held_out or 0.0, names)
    most = settings.phones.remote_samples
    return found if most is None else found.resized(settings.phones.remote_phones, most)


def _check_same(wanted: config.Partition, owner: Array, again: Array) -> None:
    """A run that is resumed deals anew: phones would go on with other samples."""
    if not np.array_equal(owner, again):
        wrong = f"{wanted.name} deals in another way each time it is called"
        do = "Draw from its argument draw alone, as draw.integers(...), and not from numpy.random or random"
        raise SettingsError("data.partition.name", wanted.name, do, wrong)


def _classes(labels: Array, settings: config.Partition) -> Array:
    if settings.by == LENGTH:
        return _length_bins(labels, settings)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SettingsError(
            "data.partition.name",
            settings.name,
            "Set iid" + (", or data.partition.by to length" if _are_tokens(labels) else ""),
            f"can't be {settings.name}, because the labels aren't classes",
        )
    return labels


def _are_tokens(labels: Array) -> bool:
    return labels.ndim == 2 and np.issubdtype(labels.dtype, np.integer)


def _length_bins(labels: Array, settings: config.Partition) -> Array:
    """Of each text (N, tokens) the bin of its length, up to its last label that counts: in each about as many."""
    if not _are_tokens(labels):
        wrong = "can't be length, because the labels aren't tokens"
        raise SettingsError("data.partition.by", settings.by, "Remove data.partition.by", wrong)
    lengths = labels.shape[1] - np.argmax((labels != IGNORED)[:, ::-1], axis=1)
    borders = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_BINS + 1)[1:-1]))
    return np.asarray(np.searchsorted(borders, lengths))


def _dealt(
    function: Dealer, labels: Array, wanted: config.Partition, count: int, draw: np.random.Generator, groups: Groups
) -> Array:
    try:
        takes_groups = "groups" in inspect.signature(function).parameters
        found = function(labels, wanted, count, draw, **({"groups": groups} if takes_groups else {}))
        _check_flat(wanted, found)
        return np.asarray(found)
    except SettingsError:
        raise
    except BROKEN as error:
        wrong = f"{failed(spoken(wanted.name), error)} when called with (labels, settings, count, draw)"
        raise SettingsError("data.partition.name", wanted.name, FIX, wrong) from error


def _found(owner: Array) -> str:
    if owner.dtype.kind in "iu" and owner.size:
        return f"{owner.size} numbers from {owner.min()} to {owner.max()}"
    return f"an array {owner.shape} of {owner.dtype}"


def _check_flat(wanted: config.Partition, found: object) -> None:
    """A list of each phone's samples, as other libraries have it, is another thing."""
    if isinstance(found, (list, tuple, dict)) and any(np.ndim(each) for each in _elements(found)):
        wrong = f"{wanted.name} returned a {type(found).__name__} of lists"
        do = "Return the phone of each sample: owner = np.empty(len(labels), int); owner[indices] = phone for each list"
        raise SettingsError("data.partition.name", wanted.name, do, wrong)


def _elements(found: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> list[Any]:
    return [*found.values()] if isinstance(found, dict) else [*found[:10]]


def _checked(owner: Sequence[int] | Array, settings: config.Partition, total: int, count: int) -> Array:
    owner = np.asarray(owner)
    if owner.shape != (total,) or not np.issubdtype(owner.dtype, np.integer) or owner.min() < 0 or owner.max() >= count:
        wrong = f"{spoken(settings.name)} must return the phone (0 to {count - 1}) of each of the {total} samples"
        raise SettingsError("data.partition.name", settings.name, "", f"{wrong}, not {_found(owner)}")
    return owner
