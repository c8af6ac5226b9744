"""What `model.lora` holds: adapters of low rank that are trained beside a model's frozen weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ray_split.config.fields import Count, Names, Positive, Section, segments
from ray_split.config.language.ranks import Ranks

Share = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class Lora(Section):
    """Adapters of low rank (LoRA, Hu et al. 2021), through peft; the model's own weights stay as they are."""

    r: Count | None = Field(None, description="the adapters' rank; none: no adapters, the weights are trained")
    alpha: Positive | None = Field(None, description="what adapters add is multiplied by alpha / r; none: twice r")
    ranks: Ranks = Field(
        None,
        description="ranks of phones that have smaller adapters than r: by phones.device, as "
        "'{low_end: 4, mid_range: 8}', or drawn from a mix, as '[{of: 4, weight: 3}, {of: 8, weight: 1}]'; "
        "none: r for all",
    )
    dropout: Share = Field(0.0, description="dropout of what enters an adapter")
    target_modules: Names | None = Field(
        None,
        description="layers that get an adapter, by name or its end, as q_proj,v_proj; none: peft's for the model",
    )
    modules_to_save: Names = Field([], description="layers that are trained whole, such as a new head: score")
    segments: Names = Field(["a", "b", "c"], description="where adapters are: any of a,b,c")

    @field_validator("segments")
    @classmethod
    def _segments(cls, names: list[str]) -> list[str]:
        return segments(names)

    @property
    def scale(self) -> float:
        """What stands for alpha."""
        return self.alpha if self.alpha is not None else 2.0 * (self.r or 1)
