"""Whatever a phone sends: if it is not what the cut promises, it is named, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ray_split as rs
from actors.client import Client
from actors.fed_server import FedServer
from actors.role_arguments import fed_server_arguments
from actors.server import Server
from ray_split.errors import BadPhoneError
from ray_split.messages.message import Message
from ray_split.messages.state import Closed
from ray_split.messages.turn import Start, Turn
from ray_split.preparation.prepare import Prepared, prepare
from ray_split.schedules.schedule import WayOfB

PHONES = (0, 1, 2)
EXAMPLES = 80  # of each test; together more than 500 messages
SPARE = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
PROPERTY = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=SPARE)


def prepared(cuts: str) -> Prepared:
    return prepare(
        rs.Config(
            model={"name": f"tests.nets:{cuts}_linear"},
            phones={"count": 3, "cohort": 3},
            optimizer={"momentum": 0.9},
            schedule={"name": "splitfed_v1"},
            cluster={"backend": "inprocess"},
            run={"storage_path": "unused", "name": "x"},
            data={"name": "synthetic", "kwargs": {"samples": 40, "shape": [4], "num_classes": 3}, "batch_size": 6},
        )
    )


@dataclass(repr=False)
class Stage:
    """Actors that hold a round's start, with the clients' messages of one exchange to come."""

    what: Prepared
    server: Server
    client: Client
    fed_server: FedServer
    attempt: int = 0

    def begin(self, phones: tuple[int, ...] = PHONES, way: WayOfB = "own_copies") -> Turn:
        """Load everybody for a new attempt."""
        self.attempt += 1
        at = Turn(0, self.attempt, phones, 0)
        self.server.load(at, self.fed_server.server_state(at), way)
        self.client.load(at, self.fed_server.client_state(at))
        if way == "own_copies":
            self.server.open(at)
        return at

    def held(self) -> list[bytes]:
        """Every bit that the server and the fed server hold."""
        states = [self.server.b.state(), *self.fed_server._states.values()]
        copies = [each.states() for each in self.server._ways["own_copies"]._copies.values()]
        return [array.tobytes() for state in [*states, *copies] for array in state.values()]

    def exchange(self, at: Turn) -> list[bytes]:
        """A whole exchange of the phones: what comes out of it."""
        activation = self.client.forward(at)
        if self.what.contract.labels and len(self.what.settings.model.cuts or ()) == 1:
            back = self.server.learn(at, activation)
        else:
            back = self.server.backward(at, self.client.loss(at, self.server.forward(at, activation)))
        self.client.backward(at, back)
        return [array.tobytes() for group in back.groups for array in _arrays(group)]


def stage(cuts: str, folder: Path) -> Stage:
    what = prepared(cuts)
    client, server = Client(*what[:4]), Server(what.settings, what.contract)
    found = Stage(what, server, client, FedServer(*fed_server_arguments(what.settings, what.contract)))
    found.fed_server._folder = folder
    found.fed_server.commit(0, client.initial_state(), server.initial_state())
    return found


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return stage("three", tmp_path_factory.mktemp("double"))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return stage("two", tmp_path_factory.mktemp("single"))


def _arrays(tree: Any) -> list[np.ndarray]:
    return [tree] if isinstance(tree, np.ndarray) else [a for x in tree for a in _arrays(x)]


def _one(change: Callable[[np.ndarray], Any]) -> Callable[[Any], Any]:
    """A change to a message's first array."""

    def changed(tree: Any) -> Any:
        if isinstance(tree, np.ndarray):
            return change(tree.copy())
        return type(tree)([changed(tree[0]), *tree[1:]])

    return changed


def _filled(value: float) -> Callable[[np.ndarray], Any]:
    def fill(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[array.size // 2] = value
        return array

    return fill


ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "nan": _filled(np.nan),
    "inf": _filled(np.inf),
    "minus inf": _filled(-np.inf),
    "huge": _filled(1e20),
    "as large as it can be": _filled(3.4e38),
    "half": lambda a: a.astype(np.float16),
    "double": lambda a: a.astype(float),
    "integers": lambda a: a.astype(np.int64),
    "objects": lambda a: a.astype(object),
    "text": lambda a: a.astype(str),
    "complex": lambda a: a.astype(np.complex64),
    "other end first": lambda a: a.astype(">f4"),
    "a dimension more": lambda a: a[..., None],
    "a dimension less": lambda a: a[0],
    "empty": lambda a: a[:0],
    "nobody's": lambda a: a[:, :0],
    "one more": lambda a: np.concatenate([a, a[:1]]),
    "one less": lambda a: a[1:],
    "wider": lambda a: np.concatenate([a, a], -1),
    "narrower": lambda a: a[..., :-1],
    "turned": lambda a: np.moveaxis(a, 1, 0),
    "longer batches": lambda a: np.concatenate([a, a[:, :1]], 1),
    "a list": lambda a: a.tolist(),
    "no array": lambda a: None,
    "a number": lambda a: 3.0,
    "masked": lambda a: np.ma.masked_array(a),
    "twice": lambda a: (a, a),
    "a mapping": lambda a: {"x": a},
    "a function": lambda a: len,
}

SENT: dict[str, Callable[[Message], Any]] = {
    "no groups": lambda s: s._replace(groups=[]),
    "groups twice": lambda s: s._replace(groups=s.groups * 2),
    "a tuple of groups": lambda s: s._replace(groups=tuple(s.groups)),
    "no list": lambda s: s._replace(groups=None),
    "no sizes": lambda s: s._replace(sizes=None),
    "sizes of nobody": lambda s: s._replace(sizes=()),
    "sizes twice": lambda s: s._replace(sizes=s.sizes * 2),
    "larger": lambda s: s._replace(sizes=tuple(n + 1 for n in s.sizes)),
    "smaller": lambda s: s._replace(sizes=tuple(n - 1 for n in s.sizes)),
    "negative": lambda s: s._replace(sizes=(-1,) * len(s.sizes)),
    "as floats": lambda s: s._replace(sizes=tuple(map(float, s.sizes))),
    "as bools": lambda s: s._replace(sizes=(True,) * len(s.sizes)),
    "of a billion": lambda s: s._replace(sizes=(10**9,) * len(s.sizes)),
    "as an array": lambda s: s._replace(sizes=np.array(s.sizes)),
    "no time": lambda s: s._replace(at=None),
    "wanted perhaps": lambda s: s._replace(wanted="yes"),
    "figures": lambda s: s._replace(figures=(np.ones(3), np.ones(3))),
    "nothing": lambda s: None,
    "a plain tuple": lambda s: tuple(s),
    "its groups alone": lambda s: s.groups,
    "a code": lambda s: b"import os",
    "labels": lambda s: s._replace(labels=[np.zeros((3, 6))]),
}


MALFORMED = [(name, 0) for name in sorted(SENT)] + [(name, group) for name in sorted(ARRAYS) for group in range(2)]
malformed = st.sampled_from(MALFORMED)  # by name, and the group that it happens to
Change = tuple[str, int]


def spoilt(change: Change, sent: Message) -> Any:
    """What is no message that a phone may send any more."""
    name, group = change
    if name in SENT:
        return SENT[name](sent)
    groups = list(sent.groups)
    groups[group % len(groups)] = _one(ARRAYS[name])(groups[group % len(groups)])
    return sent._replace(groups=groups)


def refused(stage: Stage, at: Turn, call: Callable[[], object], expected: list[bytes]) -> None:
    """The call is refused and names phones of its own; nothing has changed; the others' exchange goes well."""
    before = stage.held()
    with pytest.raises(BadPhoneError) as raised:
        call()
    assert raised.value.phones and set(raised.value.phones) <= set(at.phones)
    assert str(raised.value).startswith(("phone ", "phones ")) and "\n" not in str(raised.value)
    assert stage.held() == before
    with pytest.raises(BadPhoneError, match="phone"):  # until a state is loaded, every other call tells the same
        stage.server.close(at, np.ones(3) / 3)
    assert stage.exchange(stage.begin()) == expected


@PROPERTY
@given(malformed)
def test_an_activation_that_is_none(double: Stage, change: Change) -> None:
    expected, at = double.exchange(double.begin()), double.begin()
    sent = spoilt(change, double.client.forward(at))
    refused(double, at, lambda: double.server.forward(at, sent), expected)


@PROPERTY
@given(malformed, st.sampled_from(["shared_step", "joint_batch"]))
def test_an_activation_that_is_none_for_all_phones_b(double: Stage, change: Change, way: WayOfB) -> None:
    expected, at = double.exchange(double.begin()), double.begin(way=way)
    sent = spoilt(change, double.client.forward(at))
    refused(double, at, lambda: double.server.forward(at, sent), expected)


@PROPERTY
@given(malformed)
def test_a_gradient_that_is_none(double: Stage, change: Change) -> None:
    expected, at = double.exchange(double.begin()), double.begin()
    hidden = double.server.forward(at, double.client.forward(at))
    sent = spoilt(change, double.client.loss(at, hidden))
    if change[0] == "no array":
        return  # of what C makes no use of there is no gradient
    refused(double, at, lambda: double.server.backward(at, sent), expected)


@PROPERTY
@given(malformed)
def test_a_single_phones_messages(double: Stage, change: Change) -> None:
    expected, at = double.exchange(double.begin()), double.begin((1,), way="in_turn")
    activation = double.client.forward(at)
    sent = spoilt(change, activation)
    before = double.held()
    with pytest.raises(BadPhoneError) as raised:
        double.server.forward(at, sent)
    assert raised.value.phones == (1,)
    assert double.held() == before
    assert double.exchange(double.begin()) == expected


LABELS: dict[str, Callable[[np.ndarray], Any]] = {
    "too large": lambda a: a + 3,
    "negative": lambda a: a - 4,
    "floats": lambda a: a.astype(np.float32),
    "none": lambda a: None,
    "short": lambda a: a[:, :-1],
    "with a dimension more": lambda a: a[..., None],
    "small integers": lambda a: a.astype(np.int8),
    "objects": lambda a: a.astype(object),
    "a list": lambda a: a.tolist(),
    "enormous": lambda a: a + 2**62,
}


@PROPERTY
@given(st.one_of(malformed, st.sampled_from(sorted(LABELS))))
def test_an_activation_with_labels_that_is_none(single: Stage, change: Any) -> None:
    expected, at = single.exchange(single.begin()), single.begin()
    sent = single.client.forward(at)
    if isinstance(change, str):
        assert sent.labels is not None
        sent = sent._replace(labels=[LABELS[change](labels) for labels in sent.labels])
    else:
        sent = spoilt(change, sent)
    refused(single, at, lambda: single.server.learn(at, sent), expected)


def one_array(states: dict[str, Any], name: str, place: int) -> dict[str, Any]:
    """States with a change to one of their matrices."""
    matrices = [(n, key) for n in sorted(states) for key in sorted(states[n]) if states[n][key].ndim == 2]
    segment, key = matrices[place % len(matrices)]
    return {**states, segment: {**states[segment], key: ARRAYS[name](states[segment][key].copy())}}


STATES = sorted(set(ARRAYS) - {"turned"})  # a square stays one


CLOSED: dict[str, Callable[[Closed], Any]] = {
    "nothing": lambda c: None,
    "a plain tuple": lambda c: tuple(c),
    "other phones": lambda c: c._replace(phones=(7, 8, 9)),
    "no phones": lambda c: c._replace(phones=()),
    "no sums": lambda c: c._replace(sums=None),
    "a list": lambda c: c._replace(sums=[c.sums]),
    "b": lambda c: c._replace(sums={**c.sums, "b": c.sums["a"]}),
    "unknown": lambda c: c._replace(sums={"x": c.sums["a"]}),
    "a key less": lambda c: c._replace(sums={**c.sums, "a": dict(list(c.sums["a"].items())[1:])}),
    "a key more": lambda c: c._replace(sums={**c.sums, "a": {**c.sums["a"], "weights/x": np.ones(3, np.float32)}}),
    "a mapping of lists": lambda c: c._replace(sums={"a": [1, 2]}),
    "bytes": lambda c: c._replace(bytes_per_phone="many"),
    "bytes of too many phones": lambda c: c._replace(bytes_per_phone=np.zeros(len(c.phones) + 1, np.int64)),
    "an own": lambda c: c._replace(own={"a": {"weights/0.weight": np.ones((3, 2))}}),
    "an own b": lambda c: c._replace(own={"z": {}}),
}


@PROPERTY
@given(st.one_of(st.sampled_from(sorted(CLOSED)), st.tuples(st.sampled_from(STATES), st.integers(0, 1))))
def test_weights_at_the_rounds_end_that_are_none(double: Stage, change: Any) -> None:
    expected, at = double.exchange(double.begin()), double.begin()
    closed = double.client.close(at, np.ones(3) / 3)
    good = [array.tobytes() for state in closed.sums.values() for array in state.values()]
    spoil = CLOSED[change] if isinstance(change, str) else lambda c: c._replace(sums=one_array(c.sums, *change))
    wrong = spoil(closed)
    before = double.held()
    with pytest.raises(BadPhoneError) as raised:
        double.fed_server.collect(at, [PHONES], wrong)
    assert raised.value.phones == PHONES
    assert double.held() == before
    double.fed_server.collect(at._replace(attempt=at.attempt + 1000), [PHONES], closed)
    sums = double.fed_server._sums
    assert [array.tobytes() for state in sums.values() for array in state.values()] == good
    assert double.exchange(double.begin()) == expected


@PROPERTY
@given(st.sampled_from(STATES), st.integers(0, 3))
def test_weights_handed_on_that_are_none(double: Stage, name: str, place: int) -> None:
    at = double.begin((2,))
    double.exchange(at)
    ends = double.client.state(at)
    before = double.held()
    with pytest.raises(BadPhoneError, match="phone 2: its weights, handed on"):
        double.fed_server.commit(1, one_array(ends, name, place), None, (2,))
    assert double.held() == before
    with pytest.raises(BadPhoneError, match="phone 2"):
        double.client.load(at._replace(phones=(0,)), one_array(ends, name, place), start=Start(False, sender=(2,)))


def test_a_bound_that_is_set_holds_for_each_phone(double: Stage) -> None:
    at = double.begin()
    sent = double.client.forward(at)
    norms = np.concatenate([np.sqrt((group**2).sum((1, 2))) for group in sent.groups])
    checks = double.server._checks
    checks._bounds = checks._bounds.model_copy(update={"activation": float(np.sort(norms)[1])})
    try:
        with pytest.raises(BadPhoneError, match=rf"phone {at.phones[int(norms.argmax())]}: .* the bound is"):
            double.server.forward(at, sent)
    finally:
        checks._bounds = checks._bounds.model_copy(update={"activation": 1e9})
