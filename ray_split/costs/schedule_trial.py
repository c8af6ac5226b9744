"""A schedule of the user's is tried with no actors: whether it is one, and its calls are such as actors have.

What it computes is its own. But a call that no actor has, or that doesn't say whose turn it is, would fail in the
middle of a run, in words that are no help; and a round that nobody is averaged in would leave A and C as they were,
without a word. trial_account.py looks at what the calls come to.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from ray_split import config, logs
from ray_split.config.user_code.by_value import spoken
from ray_split.config.user_code.plugins import blamed, suggest
from ray_split.costs.recorded_calls import Call, NotRemoteError, roles_of
from ray_split.costs.trial_account import Account, Ref
from ray_split.data.stream import Stream
from ray_split.errors import SettingsError, brief, listed
from ray_split.messages.turn import Turn
from ray_split.schedules import SCHEDULES, schedule_of
from ray_split.schedules.roles import is_single
from ray_split.schedules.schedule import FORM, Schedule

MOST = 5000
"""Of a round's calls that are looked at."""

STEPPING = ("forward", "loss", "backward", "learn")
METHODS = {
    "client": (*STEPPING[:3], *("load", "state", "close", "release", "norms", "train_alone", "initial_state"),
               *("evaluate_forward", "evaluate_loss", "evaluate_own_forward", "evaluate_own_loss", "begin", "spent"),
               *("device", "after", "end")),
    "server": (*STEPPING[:1], *STEPPING[2:], *("open", "close", "step", "state", "load", "rows", "pass_on", "take"),
               *("average", "device", "initial_state", "evaluate", "evaluate_loss", "begin", "spent", "after")),
    "fed server": ("collect", "client_state", "own_state", "remembered", "server_state", "commit", "reach",
                   "save_checkpoint", "restore", "save_model"),
}  # fmt: skip
"""What actors can be called with; a test holds that it is so. Not all of it is for schedules."""

logger = logs.get(__name__)


def try_schedule(settings: config.Config, stream: Stream) -> None:
    """Go through a round of a schedule of the user's, where model.cuts are settled. Raises SettingsError."""
    name, single = settings.schedule.name, is_single(settings)
    if name in SCHEDULES or not len(stream.phones(0)):
        return
    record = schedule_of(settings.schedule)
    trial = _Trial(name, Account(name, stream, single, record.way_with(settings.schedule.kwargs)))
    roles = roles_of(trial.submit, settings.server.replicas, single)
    with blamed("schedule.name", name), trial.telling_of_remote():
        made: Any = record.bind(settings.schedule.kwargs)(Turn(0, 0, (), -1), stream, roles)
    if not isinstance(made, Generator):
        raise SettingsError("schedule.name", name, f"Write {FORM}", f"{spoken(name)} returned {brief(made, 60)}")
    with blamed("schedule.name", name), trial.telling_of_remote():
        trial.go_through(made)
    trial.check_record(record)
    if trial.ended and len(stream.finishing(0)):
        trial.check_end(record, "b" in settings.model.freeze)
    if trial.ended:
        trial.warn()


class _Trial:
    """A round's calls, looked at as they are submitted."""

    def __init__(self, name: str, account: Account) -> None:
        self._name, self._returned = name, None
        self._account = account
        self._calls = list[tuple[str, str]]()
        self.ended = False

    @contextmanager
    def telling_of_remote(self) -> Iterator[None]:
        """Within this a call without remote is told of as one."""
        try:
            yield
        except NotRemoteError as error:
            self._account.refuse(f"calls {error} itself, which submits nothing", f"Write {error}.remote(turn, ...)")

    def go_through(self, made: Generator[Any, None, Any]) -> None:
        """To its end, or until it has submitted a great many."""
        while len(self._calls) < MOST:
            try:
                self._account.check_yielded(next(made))
            except StopIteration as end:
                self.ended, self._returned = True, end.value
                return
        made.close()

    def submit(self, call: Call) -> Any:
        """What stands for a call's result."""
        self._calls.append((call.role, call.method))
        known, what = METHODS[call.role], call.name
        if call.method not in known:
            there = f"The {call.role} has {listed(known)}"
            self._account.refuse(f"calls {what}, which there is not", suggest(call.method, known) or there)
        if not call.arguments or not isinstance(call.arguments[0], Turn):
            self._account.refuse(f"calls {what} without a turn", f"Begin with it: {what}.remote(turn, ...)")
        stepping = call.method in STEPPING
        if stepping or (call.role, call.method) in (("client", "load"), ("client", "close")):
            self._check_turn(what, call.turn, ("phones", "step") if stepping else ("phones",))
        if call.method == "collect":
            self._check_collected(call)
        ref = self._account.take(call)
        return [ref] * call.num_returns if call.num_returns > 1 else ref

    def _check_turn(self, what: str, turn: Turn, fields: tuple[str, ...]) -> None:
        if not isinstance(turn.phones, tuple):
            given = brief(turn.phones, 60)
            self._account.refuse(f"says phones={given} in the turn of {what}", "Write turn._replace(phones=(phone,))")
        for field in fields:
            if getattr(turn, field) in ((), -1):
                wrong = f"calls {what} with a turn that doesn't say which {field} it is for"
                self._account.refuse(wrong, f"Set that: turn._replace({field}=...)")

    def _check_collected(self, call: Call) -> None:
        phones, sums = list(call.arguments[1]), call.arguments[2:]
        if len(phones) != len(sums):
            wrong = (
                f"calls fed_server.collect with {len(phones)} groups of phones but {len(sums)} results of client.close"
            )
            self._account.refuse(wrong, "Give as many of the one as of the other")

    def check_record(self, record: Schedule) -> None:
        """See that the calls are such as the schedule's record says."""
        serves = self._serves()
        if serves and not record.on_server:
            wrong = f"calls {serves}, and its ray_split.Schedule says on_server=False"
            self._account.refuse(wrong, "Leave on_server out: B is on the server")
        if self._account.collected and not record.averages:
            wrong = "calls fed_server.collect, and its ray_split.Schedule says averages=False"
            self._account.refuse(wrong, "Leave averages out: what is collected is averaged")

    def _serves(self) -> str:
        """A call by which B on the server trains, if there is one."""
        there = [f"server.{method}" for method in ("backward", "learn") if ("server", method) in self._calls]
        return there[0] if there else ""

    def check_end(self, record: Schedule, frozen: bool) -> None:
        """See that the round has an end, and that what was trained is in it; `frozen`: B isn't trained."""
        if not isinstance(self._returned, tuple) or len(self._returned) != 2:
            do = "Return two refs, the state of A and C, and that of B; None for what the fed server collects"
            self._account.refuse(f"returned {brief(self._returned, 60)}", do)
        if ("fed server", "collect") not in self._calls and self._returned[0] is None:
            wrong = "returned None for the state of A and C, but never called fed_server.collect"
            self._account.refuse(wrong, "Call fed_server.collect, or return the state of A and C")
        self._check_returned(0, ("client.state", "fed_server.client_state", "client.initial_state"), "A and C")
        self._check_returned(1, ("server.state", "fed_server.server_state", "server.initial_state"), "B")
        if (serves := self._serves()) and self._returned[1] is None and not (frozen or self._account.has_whole):
            wrong = f"calls {serves}, but returns None for the state of B, which would stay as it is"
            self._account.refuse(wrong, "Return (None, roles.server.state.remote(turn))")

    def _check_returned(self, place: int, of: tuple[str, ...], segments: str) -> None:
        assert self._returned is not None
        ref = self._returned[place]
        if isinstance(ref, Ref) and ref.what not in of:
            others = ", or None for what fed_server.collect averages" * (not place)
            do = f"Return that of {of[0]}{others}"
            self._account.refuse(f"returns the result of {ref.what} for the state of {segments}", do)

    def warn(self) -> None:
        """Say what is not trained, or otherwise than the stream has it."""
        for line in self._account.unlike_the_stream():
            logger.warning("%s %s (in the first round; the metrics go by the stream)", spoken(self._name), line)
        for role, method in (("client", "forward"), ("server", "forward")):
            if (role, method) in self._calls and (role, "backward") not in self._calls:
                segment = "A" if role == "client" else "B"
                logger.warning("%s never calls %s.backward: %s is not trained", spoken(self._name), role, segment)
