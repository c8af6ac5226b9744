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

from ray_split.config import html, yaml12
from ray_split.config.default_models import with_default_loss, with_default_model
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
    NamesOrGiven,
    NotNegative,
    Positive,
    Section,
    Shape,
    StoragePath,
    ToResume,
    WholeNumbers,
    in_file,
    in_one_line,
    read_yaml,
    segments,
)
from ray_split.config.gateway import Gateway
from ray_split.config.language.lora import Lora
from ray_split.config.optimizer import Optimizers
from ray_split.config.phones import Phones
from ray_split.config.stop import Stop
from ray_split.config.user_code import by_value
from ray_split.config.validation import Root
from ray_split.errors import SettingsError
from ray_split.filesystem import Place, place, without_credentials


class Model(Section):
    """The network and where it is cut."""

    name: by_value.Name = Field(
        "digits_cnn",
        description="digits_cnn, tiny_cnn, cnn, cnn1d, lstm, char_lstm, mlp, unet, transformer, a model of torchvision "
        "or timm, "
        "hf:NAME-OR-FOLDER of transformers, or package.module:function; the default depends on data.name",
    )
    num_classes: int | None = Field(
        None,
        ge=1,
        le=10**7,
        description="how many classes, or values of a regression's label; none: as the data has it",
    )
    input_shape: Shape | None = Field(
        None, description="shape of a sample, as 1,28,28, for models that take it; none: as the data has it"
    )
    mask: str | None = Field(
        None,
        description="the argument of forward that is given the mask of sequences of different lengths; "
        "none: mask or attention_mask, if forward has one of these, else its second argument",
    )
    cuts: Names | None = Field(
        None,
        description="the last layer of A and the last layer of B, as a,b; none: those that suit the model. "
        "One alone: single split, and labels go to the server",
    )
    kwargs: Mapping = Field({}, description="passed to the model's function, as YAML")
    weights: FileOrName | None = Field(
        None, description="trained weights: a file (.safetensors, .pt), or a name that torchvision or timm has for them"
    )
    freeze: Names = Field([], description="segments that keep their first weights: any of a,b,c")
    lora: Lora = Lora()
    backprop: Literal["autograd", "auxiliary_labels"] = Field(
        "autograd",
        description="how a segment applies the gradient it receives: autograd or auxiliary_labels; both give the same",
    )

    _one_line = field_validator("name", mode="before")(in_one_line)

    @field_validator("freeze")
    @classmethod
    def _segments(cls, freeze: list[str]) -> list[str]:
        return segments(freeze)


class Partition(Section):
    """How the training samples are dealt to the phones."""

    name: by_value.Name = Field("iid", description="iid, dirichlet, shards, natural, or package.module:function")
    by: str | None = Field(
        None,
        description="natural: the kind of id (a writer, a user) that makes a phone; none: the only kind that there is; "
        "dirichlet, shards: length, to deal text by its length in place of a class",
    )
    alpha: Positive = Field(0.5, description="dirichlet: the smaller, the fewer classes a phone has")
    shards_per_phone: Count = Field(2, description="shards: how many pieces of the sorted samples a phone has")
    min_samples: Count = Field(1, description="how many samples every phone must have")

    @field_validator("by")
    @classmethod
    def _by_is_naturals(cls, by: str | None, info: ValidationInfo) -> str | None:
        name = info.data.get("name", "natural")
        if by is not None and name != "natural" and ":" not in name and (by != "length" or name == "iid"):
            do = "Remove data.partition.by, or set data.partition.name to natural"
            raise SettingsError("", by, do, f"can't be used with data.partition.name {name}")
        return by


EVALUATED_AT_ONCE = 256  # samples, where the model's outputs are not large


class Data(Section):
    """The data set and how it is read."""

    name: by_value.DataName = Field(
        "digits",
        description="digits, mnist_5k, cifar10, cifar100, mnist, fashion_mnist, image_folder, japanese_vowels, "
        "basic_motions, table, text, shakespeare, synthetic, fake_images, "
        "synthetic_regression, synthetic_segmentation, synthetic_tokens, "
        "or package.module:function",
    )
    path: LocalPath | None = Field(
        None, description="folder of a data set that lies in files, or the file of a table or text"
    )
    kwargs: Mapping = Field({}, description="passed to the data set's function, as YAML")
    batch_size: Count = Field(16, description="samples of a phone's local step")
    drop_last: bool = Field(
        False, description="whether the last batch of a phone's pass is left out if it is smaller than batch_size"
    )
    group_by_length: bool = Field(
        False,
        description="whether a phone's batches have samples of about the same length, so that less padding is computed",
    )
    accumulate: Count = Field(
        1,
        description="batches whose gradients are accumulated for a local step; each has its own forward and backward",
    )
    eval_batch_size: Literal["auto"] | Count = Field(
        "auto",
        description=f"batch size of validation and test; auto: {EVALUATED_AT_ONCE}, "
        "or fewer if the model's outputs are large",
    )
    decoders: Literal["auto"] | Annotated[int, Field(ge=0, le=64)] = Field(
        0,
        description="threads of each client that prepare its phones' next batches while it computes or waits: a "
        "number, or auto (1 where samples are read from files and threads may read them, else 0)",
    )
    augment: by_value.Name | None = Field(
        None,
        description="changes training images at random: flip, crop_flip, random_resized_crop, trivial_augment, "
        "or package.module:function",
    )
    mixup: Positive | None = Field(
        None, description="alpha of mixup: a phone's training samples and labels mixed in pairs; none: not mixed"
    )
    val_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the training samples that is for validation; always the same samples"
    )
    partition: Partition = Partition()


class Task(Section):
    """What is learned."""

    loss: by_value.Name = Field(
        "cross_entropy",
        description="cross_entropy, token_cross_entropy, binary_cross_entropy (several labels a sample), mse, l1, "
        "huber, or package.module:function",
    )
    metrics: NamesOrGiven | None = Field(
        None,
        description="for validation and test, beside loss and accuracy: any of macro_f1, balanced_accuracy, mean_iou, "
        "perplexity, mse, mae, r2, package.module:function; none: for a regression mse, mae and r2, but its loss",
    )
    class_weights: ClassWeights = Field(
        None, description="for a cross-entropy: a weight for each class; or balanced, by the training labels"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="for a cross-entropy: share of each label that is spread evenly over all classes, as in torch"
    )
    auxiliary_weight: NotNegative = Field(0.4, description="weight of an auxiliary head's loss, if a model has one")

    @property
    def metric_names(self) -> list[str]:
        """The metrics' names in the results: of 'package.module:function' the function."""
        return [name.rpartition(":")[2] for name in self.metrics or []]


class Schedule(Section):
    """Who exchanges when."""

    name: by_value.Name = Field(
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

    name: by_value.Name = Field(
        "mean",
        description="mean (by samples), or robust against hostile phones: median, trimmed_mean, norm_clipping, "
        "or package.module:function; adapter_products: the mean of adapters' products in place of their factors",
    )
    kwargs: Mapping = Field(
        {},
        description="trimmed_mean: trim, the share of the phones cut at each end (0.2); norm_clipping: max_norm, which "
        "no phone's update of a segment exceeds (not given: the median of the round's norms)",
    )


class Algorithm(Section):
    """What corrects the gradients of phones that train apart."""

    name: by_value.Name | None = Field(
        None, description="fedprox, scaffold, feddyn, moon, or package.module:function; none: nothing"
    )
    kwargs: Mapping = Field({}, description="fedprox: mu (0.01); feddyn: alpha (0.01); moon: mu (1), temperature (0.5)")


class ServerOptimizer(Section):
    """What a round's average does to the weights."""

    name: by_value.Name | None = Field(
        None,
        description="fedavgm, fedadam, fedyogi, fedadagrad, or package.module:function; "
        "none: the average becomes the weights",
    )
    lr: Positive | None = Field(None, description="the server's learning rate; none: 1 for fedavgm, 0.1 for the others")
    kwargs: Mapping = Field(
        {}, description="fedavgm: momentum (0.9); fedadam, fedyogi: beta_1 (0.9), beta_2 (0.99); all but fedavgm: tau"
    )


def _as_ray_shares(gpus: Any) -> Any:
    """Ray gives out whole GPUs, or ten-thousandths of one."""
    if isinstance(gpus, float) and gpus != round(gpus, 0 if gpus > 1 else 4):
        raise ValueError("a whole number, or a fraction of one GPU with at most 4 decimals")
    return gpus


class Server(Section):
    """The actor that hosts B."""

    num_gpus: (
        Literal["auto"] | Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False), AfterValidator(_as_ray_shares)]
    ) = Field("auto", description="auto (1 if the cluster has a GPU for each replica, 0 if it has none), or a number")
    num_cpus: Literal["auto"] | Few = Field(
        "auto", description="CPUs, and torch threads, of the server: auto (a rule over what it computes), or a number"
    )
    replicas: Few = Field(
        1, description="how many servers, each with these GPUs and CPUs: splitfed_v1, v2, v3 and parallel only"
    )
    lanes: Count = Field(
        8, description="cohorts that a server has under way at a time: more serve more clients and take more memory"
    )
    chunk: Literal["auto"] | Count | WholeNumbers = Field(
        "auto",
        description="phones of a cohort that a server computes in one go: auto (all; fewer from the round on in which "
        "its GPU has no room), a number, or numbers by the round from which they hold: '{0: 64, 3: 8}'",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="what B computes in: float32, or bfloat16 by torch's autocast; weights and optimizer stay float32",
    )
    memory_fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="share of a GPU's memory that the server may take; none: server.num_gpus, where that is below 1",
    )
    tf32: bool = Field(
        False, description="whether float32 products on a GPU may be rounded to TF32: faster, and gives other bits"
    )
    channels_last: bool = Field(
        False, description="B's images and convolutions are in memory with the channels last; for looped copies of B"
    )
    compile: bool = Field(
        False, description="B is compiled by torch.compile: starts slowly, gives other bits. Refused if B can't be"
    )
    activation_checkpointing: bool = Field(
        False,
        description="B's blocks keep only their inputs, and are computed again in backward: less memory, more "
        "time, the same bits; for looped copies of B",
    )
    device: DeviceSetting = Field(
        None,
        description="the device that the server stands for in virtual time: k80, rtx_2080, a100, h100, h200, or "
        "'{gflops: 5000}'; none: rtx_2080 if phones.device or phones.link is set",
    )

    @field_validator("chunk")
    @classmethod
    def _chunks(cls, chunk: str | int | dict[int, int]) -> str | int | dict[int, int]:
        if isinstance(chunk, dict) and any(round < 0 or phones < 1 for round, phones in chunk.items()):
            raise ValueError("a mapping from rounds (0 or more) to phones (1 or more)")
        return chunk


class Cluster(Section):
    """Where the actors run."""

    backend: Literal["ray", "inprocess"] = Field(
        "ray", description="ray, or inprocess: all in this process, without Ray, to the same bits"
    )
    client_actors: Literal["auto"] | Few = Field(
        "auto", description="how many: auto (as many as can compute at a time and the CPUs allow), or a number"
    )
    cpus_per_client: Literal["auto"] | Few = Field(
        "auto", description="CPUs, and torch threads, of each client: auto (a rule over what it computes), or a number"
    )
    client_gpus: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), AfterValidator(_as_ray_shares)] = Field(
        0.0,
        description="share of a GPU that each client has for A and C, at most 1; 0: A and C are on CPUs. With backend "
        "inprocess, above 0: on this process's GPU",
    )
    share_cpus: Literal["auto", "never", "always"] = Field(
        "auto",
        description="clients compute on the server's CPUs: auto (on one node, where server and clients take turns, or "
        "one of them has little to do), never or always",
    )
    clients_per_node: Few | None = Field(
        None,
        description="the most clients on a node, with none beside a server; none: spread evenly, as the CPUs allow",
    )
    address: Address | None = Field(None, description="address of a running Ray; none: the one found, or a local one")
    wait_seconds: Positive = Field(600.0, le=1e8, description="seconds that actors may wait for room on the cluster")
    silent_seconds: Positive | None = Field(
        600.0,
        le=1e8,
        description="an actor is replaced once its process gives no sign of life for so many seconds; none: never",
    )
    channel: Literal["auto", "calls", "direct"] = Field(
        "auto",
        description="how an exchange's messages go. calls: the driver submits each call; direct: the client calls the "
        "server; auto: direct on Ray, where each exchange is one client's with one server. All give the same bits",
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
    rounds: Count = Field(15, description="rounds; in each, every phone that is drawn trains once")
    seed: int = Field(0, ge=0, lt=2**128, description="seed of every random draw")
    eval_every: Count = Field(1, description="rounds from one evaluation to the next")
    resume: ToResume = Field("never", description="go on with a run: never, auto, or the path of one; bare means auto")
    test_every: Count | None = Field(
        None,
        description="rounds from one test to the next; none: whenever validation is the best so far, and at the end",
    )
    stop: Stop = Field(
        {},
        description="ends the run in order before its last round, as '{val_accuracy: 0.95, patience: 5}': once a "
        "column has reached a number, or after so many evaluated rounds without a better validation",
    )
    callbacks: NamesOrGiven = Field([], description="told how the run goes on: mlflow, wandb, or package.module:Class")
    max_failures: int = Field(3, ge=-1, le=MOST, description="how many lost actors the run survives; -1: any number")
    max_hours: Annotated[Positive, Field(le=1e6)] | None = Field(
        None, description="hours from each start of the run until it ends in order, to be resumed; none: no limit"
    )
    on_bad_phone: Literal["stop", "skip"] = Field(
        "stop",
        description="what follows when a phone sends what it may not, or its data can't be read: "
        "stop the run; or skip: run the round again without the phone, and go on without it",
    )
    min_phones: Count = Field(
        1, description="with remote phones: how many phones, simulated ones included, a round needs to begin"
    )
    wait_for_phones: Annotated[NotNegative, Field(le=1e6)] = Field(
        60.0, description="seconds that a round waits for its remote phones; then it begins without the missing ones"
    )
    sample: str = Field(
        "auto",
        description="the beginning of a text that a language model continues by 40 tokens at the run's end; "
        "auto: that of the first test sample; off: none is written",
    )
    private: bool = Field(
        False, description="whether only the owner may read what is written (0700, 0600); else as the umask says"
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="progress and warnings as text, or as json: one object a line, all on stderr"
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


def _with_data(values: dict[str, Any]) -> dict[str, Any]:
    """The sections, with data in the place of its section as the name of one: Config(data=frame)."""
    data = values.get("data")
    return {**values, "data": {"name": data}} if by_value.is_data(data) else values


class Config(Root):
    """All settings of a run. `Config(phones={"count": 100})`, `Config.from_yaml(path)`."""

    model: Model = Model()
    data: Data = Data()
    task: Task = Task()
    phones: Phones = Phones()
    schedule: Schedule = Schedule()
    aggregator: Aggregator = Aggregator()
    algorithm: Algorithm = Algorithm()
    server_optimizer: ServerOptimizer = ServerOptimizer()
    optimizer: Optimizers = Optimizers()
    server: Server = Server()
    cluster: Cluster = Cluster()
    gateway: Gateway = Gateway()
    checkpoint: Checkpoint = Checkpoint()
    run: Run = Run()

    @model_validator(mode="before")
    @classmethod
    def _suits_the_data(cls, values: Any) -> Any:
        return with_default_loss(with_default_model(_with_data(values))) if isinstance(values, dict) else values

    @classmethod
    def from_yaml(cls, path: str | Place) -> Config:
        """Settings from a YAML file. Raises SettingsError."""
        values = read_yaml(path)
        try:
            return cls(**values)
        except SettingsError as error:
            raise in_file(error, path) from error

    def to_yaml(self) -> str:
        """The settings as YAML; reading it back gives equal settings, but for credentials in URIs."""
        values = self.model_dump(mode="json")
        for name in ("storage_path", "resume"):
            values["run"][name] = without_credentials(values["run"][name])
        return yaml12.write(values)

    def _repr_html_(self) -> str:
        """For notebooks: what is not the default."""
        values, defaults = (each.model_dump(mode="json") for each in (self, Config()))
        return html.settings(values, defaults)

    def with_values(self, **sections: dict[str, Any]) -> Config:
        """A validated copy with some fields replaced: `config.with_values(run={"name": "x"})`."""
        values = self.model_dump()
        for section, fields in sections.items():
            values[section] = {**values.get(section, {}), **fields}
        return Config(**values)
