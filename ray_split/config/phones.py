"""The settings of the phones, simulated and remote, and of what they may send."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ray_split.config import yaml12
from ray_split.config.devices import DeviceMix, LinkMix
from ray_split.config.fields import LARGEST, MOST, Count, Names, Positive, Rounds, Section, WholeNumbers, segments
from ray_split.errors import SettingsError

BEYOND_TRAINING = 1e9
Norm = Annotated[float, Field(gt=0, le=1e18)]  # its square is a number of single precision


class MaxNorm(Section):
    """The largest L2 norm of what a phone may send at once; a phone that sends more, or what is not finite, is bad."""

    activation: Norm = Field(BEYOND_TRAINING, description="largest L2 norm of a batch's activation")
    gradient: Norm = Field(BEYOND_TRAINING, description="largest L2 norm of a batch's gradient of hidden")
    weights: Norm = Field(BEYOND_TRAINING, description="largest L2 norm of a segment's weights, at the round's end")


class Phones(Section):
    """The phones."""

    count: Count = Field(20, description="how many there are, simulated and remote")
    per_round: int | float | None = Field(
        None, gt=0, allow_inf_nan=False, description="phones in a round: a number, or a fraction up to 1.0; none: all"
    )
    local_epochs: Count | None = Field(None, description="passes over a phone's samples in a round; none: 1")
    local_steps: Count | None = Field(
        None, description="steps in a round, instead of local_epochs (each of data.accumulate batches)"
    )
    cohort: Literal["auto"] | Count = Field(
        "auto", description="phones that a client trains at once; auto: chosen by the model's shapes"
    )
    stacked: Names | None = Field(
        None, description="segments whose copies are computed as one, any of a,b,c; none: chosen by the model's shapes"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="what A and C compute in: float32, or bfloat16 by torch's autocast; weights stay float32",
    )
    held_out: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of a phone's samples to evaluate it on; none: 0.2 if A and C stay with their phone, else 0",
    )

    left_out: WholeNumbers = Field({}, description="phones to go on without, and from which round: '{3: 0, 17: 5}'")
    max_norm: MaxNorm = MaxNorm()
    hostile: int | float = Field(
        0, ge=0, allow_inf_nan=False, description="simulated hostile (Byzantine) phones: a number, or a fraction"
    )
    hostile_scale: float = Field(
        -1.0,
        ge=-LARGEST,
        le=LARGEST,
        allow_inf_nan=False,
        description="what a hostile phone multiplies all its gradients by",
    )
    device: DeviceMix = Field(
        None,
        description="the devices that phones stand for in virtual time: low_end, mid_range, high_end, "
        "raspberry_pi_4, laptop, '{gflops: 5, memory_mb: 300}', or a mix '[{of: mid_range, weight: 3}, ...]'; "
        "none: mid_range if link or server.device is set",
    )
    link: LinkMix = Field(
        None,
        description="the link between phone and server: same_network, cloud_tcp, tunnel, wifi, 5g, 4g, 3g, "
        "'{up_mbps: 10, down_mbps: 50, latency_ms: 20}', or a mix; none: wifi if device or server.device is set",
    )
    on_misfit: Literal["refuse", "skip"] = Field(
        "refuse", description="what follows when A and C don't fit a phone's memory: refuse the run, or skip the phone"
    )

    availability: float = Field(
        1.0,
        gt=0,
        le=1,
        description="probability that a phone is on in a round; one that is drawn but off is passed over",
    )
    dropout: float = Field(0.0, ge=0, le=1, description="probability that a phone drops out in the middle of a round")
    deadline: Positive | None = Field(
        None,
        description="virtual seconds after which a round ends without late phones; needs device, link or server.device",
    )
    over_select: float = Field(
        0.0, ge=0, le=MOST, allow_inf_nan=False,
        description="share of per_round that is drawn beyond it: the round ends when per_round phones have finished",
    )  # fmt: skip

    absent: Rounds = Field({}, description="phones that are off, by round, beside those by chance: '{3: [0, 2]}'")
    remote: int | list[int] = Field(
        0, description="phones outside the cluster, by way of the gateway: how many (the last ones), or which: '[0,4]'"
    )
    remote_samples: Count | None = Field(
        None,
        description="how many samples of its own a remote phone trains on; none: as many as its share of data.name",
    )

    @property
    def remote_phones(self) -> tuple[int, ...]:
        """The phones outside the cluster, in order."""
        if isinstance(self.remote, int):
            return tuple(range(self.count - self.remote, self.count))
        return tuple(sorted(self.remote))

    @field_validator("remote", mode="before")
    @classmethod
    def _numbers_of_phones(cls, remote: Any) -> Any:
        """'3' is how many, '[3]' is which."""
        if not isinstance(remote, str):
            return remote
        inner = remote.strip()
        if not (inner.startswith("[") or "," in inner):
            found = yaml12.number(inner)
            return inner if found is None else found
        return [yaml12.number(part.strip()) for part in inner.strip("[]").split(",") if part.strip()]

    @field_validator("remote")
    @classmethod
    def _that_there_are(cls, remote: int | list[int], info: ValidationInfo) -> int | list[int]:
        count = info.data.get("count") or 0
        wrong = remote < 0 or remote > count if isinstance(remote, int) else not set(remote) <= set(range(count))
        if wrong or (isinstance(remote, list) and len(set(remote)) < len(remote)):
            raise ValueError(f"a number of phones up to {count}, or a list of some of 0 to {max(count - 1, 0)}")
        return remote

    @field_validator("absent")
    @classmethod
    def _absent_phones(cls, absent: dict[int, list[int]], info: ValidationInfo) -> dict[int, list[int]]:
        count = info.data.get("count") or 0
        if any(round < 0 or not set(phones) <= set(range(count)) for round, phones in absent.items()):
            raise ValueError(f"a mapping from rounds (0 or more) to lists of phones (0 to {max(count - 1, 0)})")
        return absent

    @field_validator("left_out")
    @classmethod
    def _known(cls, left_out: dict[int, int], info: ValidationInfo) -> dict[int, int]:
        count = info.data.get("count")
        if any(phone < 0 or round < 0 or (count is not None and phone >= count) for phone, round in left_out.items()):
            raise ValueError(f"a mapping from phones (0 to {(count or 1) - 1}) to rounds (0 or more)")
        return left_out

    @field_validator("per_round", "hostile", mode="before")
    @classmethod
    def _fraction(cls, phones: Any) -> Any:
        """'1.0' is all phones, '1' is one."""
        found = yaml12.number(phones) if isinstance(phones, str) else None
        return phones if found is None else found

    @field_validator("per_round", "hostile")
    @classmethod
    def _within(cls, phones: int | float | None, info: ValidationInfo) -> int | float | None:
        count = info.data.get("count")
        if isinstance(phones, float) and phones > 1:
            if phones != int(phones):
                raise ValueError("a whole number of phones, or a fraction up to 1.0")
            phones = int(phones)
        if phones is not None and count is not None and phones > count:
            wrong = f"is {phones}, but there {'is' if count == 1 else 'are'} only {count} phone{'s' * (count > 1)}"
            raise SettingsError("", phones, f"Use {count}{' or fewer' * (count > 1)}, or raise phones.count", wrong)
        return phones

    @field_validator("stacked")
    @classmethod
    def _segments(cls, stacked: list[str] | None) -> list[str] | None:
        return None if stacked is None else segments(stacked)

    @field_validator("local_steps")
    @classmethod
    def _epochs_or_steps(cls, local_steps: int | None, info: ValidationInfo) -> int | None:
        if local_steps is not None and info.data.get("local_epochs") is not None:
            wrong = "can't be used together with phones.local_epochs"
            raise SettingsError("", local_steps, "Remove one of the two", wrong)
        return local_steps

    @field_validator("over_select")
    @classmethod
    def _more_to_draw(cls, over_select: float, info: ValidationInfo) -> float:
        if over_select and info.data.get("per_round", 1) is None:
            wrong = "can't be used without phones.per_round, because then all phones are drawn anyway"
            raise SettingsError("", over_select, "Set phones.per_round, or remove phones.over_select", wrong)
        return over_select
