"""What the planner is asked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ray_split import config
from ray_split.config import fields
from ray_split.config.default_models import with_default_model
from ray_split.config.language.lora import Lora
from ray_split.config.validation import Root
from ray_split.costs.planner_hardware import Link, Phone, Profile, Server
from ray_split.errors import SettingsError
from ray_split.filesystem import Place, place
from ray_split.models.transformers_by_name import is_named, short_name

SIZE = re.compile("[0-9]{1,9}")


def _sizes(value: Any) -> Any:
    """On a command line a shape is written 3x224x224."""
    if not isinstance(value, str):
        return value
    parts = value.split("x")
    if not all(SIZE.fullmatch(part) and int(part) for part in parts):
        raise ValueError("the shape of a sample, such as 3x224x224")
    return [int(part) for part in parts]


class Model(fields.Section):
    """The network."""

    _one_line = field_validator("name", mode="before")(fields.in_one_line)

    name: str = Field("digits_cnn", description="as for ray-split train: one of its models, or package.module:function")
    num_classes: int | None = Field(
        10,
        ge=1,
        le=10**7,
        description="passed to the model's function if it has a place for it; with data.name as the data has it",
    )
    kwargs: fields.Mapping = Field({}, description="passed to the model's function, as YAML")
    lora: Lora = Lora()

    def built(self) -> config.Model:
        """As training has it. A model of transformers has as many classes as its configuration says, if not told."""
        if self.lora.ranks is not None:
            wrong = "can't be used in a plan, which is of one phone"
            raise SettingsError("model.lora.ranks", self.lora.ranks, "Set model.lora.r to the phone's rank", wrong)
        given = self.model_dump()
        if is_named(self.name) and "num_classes" not in self.model_fields_set:
            given["num_classes"] = None
        return config.Model(**given)


class Data(fields.Section):
    """What it would be trained on."""

    name: str | None = Field(
        None,
        description="data set whose samples and classes the plan is for: one of ray-split train's, or "
        "package.module:function; none: no data is read",
    )
    path: fields.LocalPath | None = Field(None, description="where that data set lies, as for ray-split train")
    kwargs: fields.Mapping = Field({}, description="passed to that data set's function, as YAML")
    max_length: fields.Count | None = Field(
        None, description="tokens of a sample, for a model of text; none: input, or 128 for a language model by name"
    )


class Optimizer(fields.Section):
    """What it keeps of each weight counts."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(0.0, ge=0, lt=1, description="sgd only")
    weight_decay: fields.NotNegative = 0.0


class Settings(Root):
    """All of the planner's settings."""

    model: Model = Model()
    input: Annotated[list[int], BeforeValidator(_sizes), Field(min_length=1)] = Field(
        [1, 8, 8], description="shape of a sample, as 3x224x224; with data.name as the data has it"
    )
    data: Data = Data()
    batch: fields.Count = Field(16, description="samples in a step")
    split: Literal["double", "single"] = Field(
        "double", description="double: two cuts, the labels stay on the phone; single: one cut, they go to the server"
    )
    optimizer: Optimizer = Optimizer()
    phone: Phone = Phone()
    server: Server = Server()
    link: Link = Link()
    out: fields.StoragePath | None = Field(None, description="folder or URI for CSV and plot; none: plan_<model> here")

    @model_validator(mode="before")
    @classmethod
    def _suits_the_data(cls, values: Any) -> Any:
        return with_default_model(values) if isinstance(values, dict) else values

    def trained_with(self) -> config.Optimizer:
        """The optimizer as training has it. Raises SettingsError."""
        return config.Config(optimizer=self.optimizer.model_dump()).optimizer

    def profile(self) -> Profile:
        """Phone, server and link."""
        return Profile(phone=self.phone, server=self.server, link=self.link)

    @property
    def title(self) -> str:
        """The model's name in a word."""
        return short_name(self.model.name) if is_named(self.model.name) else self.model.name.rpartition(":")[2]

    def folder(self) -> Place:
        """Where CSV and plot go."""
        return place(self.out or f"plan_{self.title}")
