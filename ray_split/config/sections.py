"""The settings of a run, validated: the one place with defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ray_split.config import yaml12
from ray_split.config.devices import DeviceSetting
from ray_split.config.fields import (
    MOST,
    Address,
    ClassWeights,
    Count,
    Few,
    FileOrName,
    FolderName,
    LocalPath,
    Mapping,
    Names,
    NotNegative,
    Positive,
    Section,
    StoragePath,
    ToResume,
    read_yaml,
    segments,
)
from ray_split.config.phones import Phones
from ray_split.config.validation import Root
from ray_split.filesystem import Place, place, without_credentials


class Model(Section):
    """The network and where it is cut."""

    name: str = Field(
        "digits_cnn",
        description="digits_cnn, tiny_cnn, mlp, unet, transformer, a model of torchvision or timm, "
        "or package.module:function",
    )
    num_classes: int | None = Field(
        None, ge=1, le=10**7, description="as many as the data set has; of a regression, how many values a label has"
    )
    cuts: Names | None = Field(
        None,
        description="the last layer of A and the last layer of B, as a,b; each model has sensible ones. "
        "One alone: single split, and labels go to the server",
    )
    kwargs: Mapping = Field({}, description="passed to the model's function, as YAML")
    weights: FileOrName | None = Field(
        None, description="trained weights: a file (.safetensors, .pt), or a name that torchvision or timm has for them"
    )
    freeze: Names = Field([], description="segments that keep their first weights: any of a,b,c")
    backprop: Literal["autograd", "auxiliary_labels"] = Field(
        "autograd", description="how a segment applies the gradient that it receives; both give the same"
    )

    @field_validator("freeze")
    @classmethod
    def _segments(cls, freeze: list[str]) -> list[str]:
        return segments(freeze)


class Partition(Section):
    """How the training samples are dealt to the phones."""

    name: str = Field("iid", description="iid, dirichlet, shards, natural, or package.module:function")
    by: str | None = Field(
        None,
        description="natural: the ids (a writer, a user) that make a phone; none: the only ones that there are",
    )
    alpha: Positive = Field(0.5, description="dirichlet: the smaller, the fewer classes a phone has")
    shards_per_phone: Count = Field(2, description="shards: pieces of the samples, sorted by class, that a phone has")
    min_samples: Count = Field(1, description="how many samples every phone must have")

    @field_validator("by")
    @classmethod
    def _by_is_naturals(cls, by: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name", "natural")
        if by is not None and name != "natural" and ":" not in name:
            raise ValueError(f"set for natural alone; {name} has no use for it")
        return by


class Data(Section):
    """The data set and how it is read."""

    name: str = Field(
        "digits",
        description="digits, cifar10, cifar100, mnist, fashion_mnist, image_folder, synthetic, fake_images, "
        "synthetic_regression, synthetic_segmentation, synthetic_tokens, "
        "or package.module:function",
    )
    path: LocalPath | None = Field(None, description="folder of a data set that lies in files")
    kwargs: Mapping = Field({}, description="passed to the data set's function, as YAML")
    batch_size: Count = Field(16, description="samples of a phone's local step")
    eval_batch_size: Count = Field(256, description="batch size of validation and test")
    augment: str | None = Field(
        None,
        description="changes training images at random: flip, crop_flip, random_resized_crop, trivial_augment, "
        "or package.module:function",
    )
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the training part that is for validation; always the same samples"
    )
    partition: Partition = Partition()


class Task(Section):
    """What is learned."""

    loss: str = Field(
        "cross_entropy",
        description="cross_entropy, token_cross_entropy, mse, l1, huber, or package.module:function",
    )
    metrics: Names | None = Field(
        None,
        description="for validation and test, beside loss and accuracy: any of macro_f1, balanced_accuracy, mean_iou, "
        "mse, mae, r2, package.module:function; none: mse, mae and r2 of a regression, without its loss",
    )
    class_weights: ClassWeights = Field(
        None, description="of a cross-entropy: a weight for each class, or balanced, by the training labels"
    )
    auxiliary_weight: NotNegative = Field(0.4, description="weight of an auxiliary head's loss, if a model has one")

    @property
    def metric_names(self) -> list[str]:
        """The metrics' names in the results: of 'package.module:function' the function."""
        return [name.rpartition(":")[2] for name in self.metrics or []]


class Schedule(Section):
    """Who exchanges when."""

    name: str = Field(
        "sequential",
        description="sequential, splitfed_v1, splitfed_v2, splitfed_v3, parallel; for comparison fedavg, unsplit",
    )
    kwargs: Mapping = Field(
        {},
        description="sequential: optimizer: handed_on or fresh; splitfed_v1, splitfed_v2, parallel: statistics: "
        "average or local; parallel: batch: accumulated or joint",
    )


class Aggregator(Section):
    """How the phones' weights become one at a round's end."""

    name: str = Field(
        "mean",
        description="mean (by samples), or robust against hostile phones: median, trimmed_mean, norm_clipping, "
        "or package.module:function",
    )
    kwargs: Mapping = Field(
        {},
        description="trimmed_mean: trim, the share of the phones cut at each end (0.2); norm_clipping: max_norm, which "
        "no phone's update of a segment exceeds (none: the median of the round's norms)",
    )


class Optimizer(Section):
    """One optimizer for each segment, all with these settings."""

    name: Literal["sgd", "adam", "adamw"] = Field("sgd", description="sgd, adam or adamw")
    lr: Positive = Field(0.1, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd only")
    weight_decay: NotNegative = Field(0.0, description="as torch has it")

    @field_validator("momentum")
    @classmethod
    def _momentum_is_sgds(cls, momentum: float, info: ValidationInfo) -> float:
        if momentum and info.data.get("name", "sgd") != "sgd":
            raise ValueError(f"set for sgd alone; {info.data['name']} has none")
        return momentum


def _as_ray_shares(gpus: Any) -> Any:
    """Ray gives out whole GPUs, or ten-thousandths of one."""
    if isinstance(gpus, float) and gpus != round(gpus, 0 if gpus > 1 else 4):
        raise ValueError("a whole number, or a share of one GPU, to 0.0001")
    return gpus


class Server(Section):
    """The actor that hosts B."""

    num_gpus: (
        Literal["auto"] | Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), AfterValidator(_as_ray_shares)]
    ) = Field("auto", description="auto (1 if the cluster has a GPU for each replica, 0 if it has none), or a number")
    num_cpus: Few = Field(1, description="CPUs, and torch threads, of the server")
    replicas: Few = Field(
        1, description="how many servers, each with these GPUs and CPUs: splitfed_v1, v2, v3 and parallel only"
    )
    lanes: Count = Field(
        8, description="cohorts that a server has under way at a time: for more clients, in more of its memory"
    )
    device: DeviceSetting = Field(
        None,
        description="what the server is simulated to be, for virtual time: k80, rtx_2080, a100, h100, h200, or "
        "'{gflops: 5000}'; none: rtx_2080 if phones.device or phones.link is set",
    )


class Cluster(Section):
    """Where the actors run."""

    backend: Literal["ray", "inprocess"] = Field(
        "ray", description="ray, or inprocess: all in this process, without Ray, to the same bits"
    )
    client_actors: Literal["auto"] | Few = Field("auto", description="auto (the CPUs left, at least 1), or a number")
    cpus_per_client: Few = Field(1, description="CPUs, and torch threads, of each client")
    clients_per_node: Few | None = Field(
        None,
        description="clients on a node at most, and none beside a server; none: spread evenly, as the CPUs allow",
    )
    address: Address | None = Field(None, description="address of a running Ray; none: the one found, or a local one")
    wait_seconds: Positive = Field(600.0, le=1e8, description="seconds that actors may wait for room on the cluster")
    silent_seconds: Positive | None = Field(
        600.0,
        le=1e8,
        description="an actor whose process gives no sign of life for so many seconds is replaced. none: waited for",
    )
    autoscaled: bool = Field(False, description="nodes come when actors ask: wait for room that is not there yet")


class Checkpoint(Section):
    """Checkpoints at a round's end."""

    every: Count = Field(1, description="rounds from one checkpoint to the next")
    num_to_keep: Count | None = Field(2, description="how many of the newest checkpoints are kept; none: all")


BARE = {"": "auto", **dict.fromkeys(("true", "yes", "on"), "auto"), **dict.fromkeys(("false", "no", "off"), "never")}


class Run(Section):
    """The run as a whole."""

    name: FolderName | None = Field(None, description="folder under storage_path; none: model, schedule and time")
    storage_path: StoragePath = Field("~/ray_results", description="a local path, or a URI such as s3://bucket/runs")
    rounds: Count = Field(15, description="how many; in each, every phone that is drawn trains once")
    seed: int = Field(0, ge=0, lt=2**128, description="seed of every random draw")
    eval_every: Count = Field(1, description="rounds from one evaluation to the next")
    resume: ToResume = Field("never", description="go on with a run: never, auto, or the path of one; bare means auto")
    max_failures: int = Field(3, ge=-1, le=MOST, description="how many lost actors the run survives; -1: any number")
    max_hours: Annotated[Positive, Field(le=1e6)] | None = Field(
        None, description="hours of one start of the run; then it ends in order, and can be resumed. none: no limit"
    )
    on_bad_phone: Literal["stop", "skip"] = Field(
        "stop",
        description="what follows when a phone sends what it may not, or its data can't be read: "
        "stop the run, or skip: run the round again without it, and go on so",
    )
    private: bool = Field(
        False, description="what is written is its owner's alone (0700, 0600); else as the umask says"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="progress and warnings as text, or as json: an object a line, all on stderr"
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_resume(cls, values: Any) -> Any:
        bare = values.get("resume") if isinstance(values, dict) else None
        if isinstance(bare, bool | str) and str(bare).lower() in BARE:
            return {**values, "resume": BARE[str(bare).lower()]}
        return values

    @property
    def folder(self) -> Place:
        """The run's output folder; only once the name is known."""
        if self.name is None:
            raise ValueError("the run has no name yet")
        return place(self.storage_path) / self.name


class Config(Root):
    """All settings of a run. `Config(phones={"count": 100})`, `Config.from_yaml(path)`."""

    model: Model = Model()
    data: Data = Data()
    task: Task = Task()
    phones: Phones = Phones()
    schedule: Schedule = Schedule()
    aggregator: Aggregator = Aggregator()
    optimizer: Optimizer = Optimizer()
    server: Server = Server()
    cluster: Cluster = Cluster()
    checkpoint: Checkpoint = Checkpoint()
    run: Run = Run()

    @classmethod
    def from_yaml(cls, path: str | Place) -> Config:
        """Settings from a YAML file. Raises SettingsError."""
        return cls(**read_yaml(path))

    def to_yaml(self) -> str:
        """The settings as YAML; reading it back gives equal settings, but for credentials in URIs."""
        values = self.model_dump(mode="json")
        for name in ("storage_path", "resume"):
            values["run"][name] = without_credentials(values["run"][name])
        return yaml12.write(values)

    def with_values(self, **sections: dict[str, Any]) -> Config:
        """A validated copy with some fields replaced: `config.with_values(run={"name": "x"})`."""
        values = self.model_dump()
        for section, fields in sections.items():
            values[section] = {**values.get(section, {}), **fields}
        return Config(**values)
