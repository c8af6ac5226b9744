from pathlib import Path

import pytest
import yaml

from ray_split.config import Config
from ray_split.errors import SettingsError

BAD = [
    # sections, field, what is wrong, of what it must be
    ({"nonsense": {}}, "nonsense", "there is no section 'nonsense'", "The sections are model, data"),
    ({"phone": {"count": 3}}, "phone", "there is no section 'phone'", "Did you mean phones?"),
    ({"my-section": {}}, "my-section", "there is no section 'my-section'", "The sections are model, data"),
    ({"phones": {"cuont": 3}}, "phones.cuont", "there is no setting 'phones.cuont'", "Did you mean phones.count?"),
    (
        {"phones": {"local-steps": 3}},
        "phones.local-steps",
        "there is no setting 'phones.local-steps'",
        "Did you mean phones.local_steps?",
    ),
    (
        {"data": {"partition": {"nme": "iid"}}},
        "data.partition.nme",
        "there is no setting 'data.partition.nme'",
        "Did you mean data.partition.name?",
    ),
    ({"phones": 3}, "phones", "3", "a section, with its settings below it (count"),
    ({"schedule": "splitfed_v1"}, "schedule", "'splitfed_v1'", "a section, such as {\"name\": 'splitfed_v1'}"),
    ({"phones": None}, "phones", "is not set", "a section, with its settings below it (count"),
    ({"phones": {1: 2}}, "phones", "1", ""),
    ({"phones": {"count": "many"}}, "phones.count", "'many'", "a whole number"),
    ({"phones": {"count": 2.5}}, "phones.count", "2.5", "a whole number"),
    ({"phones": {"count": 0}}, "phones.count", "0", "at least 1"),
    ({"model": {"name": 3}}, "model.name", "3", "text"),
    ({"model": {"kwargs": "3"}}, "model.kwargs", "3", "a mapping, such as '{width: 3}'"),
    ({"model": {"kwargs": "{width: 3"}}, "model.kwargs", "{width: 3", "is not valid YAML"),
    ({"model": {"cuts": [[1]]}}, "model.cuts", "[1]", "text"),
    ({"model": {"freeze": "d"}}, "model.freeze", "'d'", "some of a, b and c, each at most once"),
    ({"model": {"freeze": ["a", "x"]}}, "model.freeze", "['a', 'x']", "some of a, b and c, each at most once"),
    ({"data": {"batch_size": 0}}, "data.batch_size", "0", "at least 1"),
    ({"data": {"val_fraction": 1}}, "data.val_fraction", "1", "less than 1"),
    (
        {"phones": {"local_epochs": 1, "local_steps": 5}},
        "phones.local_steps",
        "local_epochs",
        "can't be used together with phones.local_epochs. Remove one of the two",
    ),
    (
        {"phones": {"local_steps": 5, "local_epochs": 1}},
        "phones.local_steps",
        "local_epochs",
        "can't be used together with phones.local_epochs. Remove one of the two",
    ),
    ({"phones": {"per_round": 0}}, "phones.per_round", "0", "greater than 0"),
    ({"phones": {"per_round": -0.5}}, "phones.per_round", "-0.5", "greater than 0"),
    ({"phones": {"per_round": float("nan")}}, "phones.per_round", "nan", "greater than 0"),
    ({"phones": {"per_round": 2.5}}, "phones.per_round", "2.5", "a whole number of phones, or a fraction up to 1.0"),
    (
        {"phones": {"per_round": 21}},
        "phones.per_round",
        "21",
        "is 21, but there are only 20 phones. Use 20 or fewer, or raise phones.count",
    ),
    (
        {"phones": {"per_round": 4.0, "count": 3}},
        "phones.per_round",
        "4",
        "is 4, but there are only 3 phones. Use 3 or fewer, or raise phones.count",
    ),
    ({"phones": {"per_round": "some"}}, "phones.per_round", "'some'", "a number"),
    ({"phones": {"per_round": True}}, "phones.per_round", "true", "a number or a name, not true"),
    (
        {"phones": {"hostile": 21}},
        "phones.hostile",
        "21",
        "is 21, but there are only 20 phones. Use 20 or fewer, or raise phones.count",
    ),
    ({"phones": {"hostile": "1.5"}}, "phones.hostile", "1.5", "a whole number of phones, or a fraction up to 1.0"),
    ({"phones": {"hostile": -1}}, "phones.hostile", "-1", "at least 0"),
    ({"phones": {"hostile": None}}, "phones.hostile", "is not set", "but must be a number"),
    ({"phones": {"hostile_scale": float("inf")}}, "phones.hostile_scale", "inf", "finite number"),
    ({"aggregator": {"name": 3}}, "aggregator.name", "3", "text"),
    (
        {"aggregator": {"trim": 0.1}},
        "aggregator.trim",
        "there is no setting 'aggregator.trim'",
        "The settings of aggregator are name and kwargs",
    ),
    ({"phones": {"cohort": 0}}, "phones.cohort", "0", "auto or at least 1"),
    ({"phones": {"cohort": 2.5}}, "phones.cohort", "2.5", "auto or a whole number"),
    ({"phones": {"cohort": "all"}}, "phones.cohort", "'all'", "auto or a whole number"),
    ({"phones": {"stacked": "a,d"}}, "phones.stacked", "'a,d'", "some of a, b and c, each at most once"),
    ({"phones": {"stacked": ["all"]}}, "phones.stacked", "['all']", "some of a, b and c, each at most once"),
    ({"phones": {"held_out": 1}}, "phones.held_out", "1", "less than 1"),
    ({"phones": {"held_out": -0.1}}, "phones.held_out", "-0.1", "at least 0"),
    ({"data": {"partition": {"alpha": 0}}}, "data.partition.alpha", "0", "greater than 0"),
    ({"data": {"partition": {"alpha": float("inf")}}}, "data.partition.alpha", "inf", "finite number"),
    ({"data": {"partition": {"shards_per_phone": 0}}}, "data.partition.shards_per_phone", "0", "at least 1"),
    ({"data": {"partition": {"min_samples": 0}}}, "data.partition.min_samples", "0", "at least 1"),
    ({"optimizer": {"lr": float("nan")}}, "optimizer.lr", "nan", "finite number"),
    ({"optimizer": {"lr": float("inf")}}, "optimizer.lr", "inf", "finite number"),
    ({"optimizer": {"lr": 0}}, "optimizer.lr", "0", "greater than 0"),
    (
        {"optimizer": {"name": "lion"}},
        "optimizer.name",
        "'lion'",
        "there is no optimizer 'lion'. Choose sgd, adam, adamw",
    ),
    (
        {"optimizer": {"name": "adam", "momentum": 0.9}},
        "optimizer.momentum",
        "momentum",
        "can't be used with adam, which has no momentum",
    ),
    (
        {"optimizer": {"momentum": 0.9, "name": "adamw"}},
        "optimizer.momentum",
        "momentum",
        "can't be used with adamw, which has no momentum",
    ),
    ({"optimizer": {"weight_decay": -1}}, "optimizer.weight_decay", "-1", "at least 0"),
    ({"server": {"num_gpus": "half"}}, "server.num_gpus", "'half'", "auto or a number"),
    ({"server": {"num_gpus": -1}}, "server.num_gpus", "-1", "at least 0"),
    ({"cluster": {"client_actors": 0}}, "cluster.client_actors", "0", "auto or at least 1"),
    ({"cluster": {"backend": "spark"}}, "cluster.backend", "'spark'", "ray or inprocess"),
    ({"checkpoint": {"num_to_keep": 0}}, "checkpoint.num_to_keep", "0", "at least 1"),
    ({"run": {"name": "a/b"}}, "run.name", "'a/b' contains a slash", "Use a single folder name, such as a-b"),
    ({"run": {"name": ".."}}, "run.name", "'..'", "the name of a folder, such as my-run"),
    ({"run": {"name": ""}}, "run.name", "is empty", "the name of a folder, such as my-run"),
    ({"run": {"storage_path": ""}}, "run.storage_path", "is empty", "a local path"),
    ({"run": {"rounds": True}}, "run.rounds", "true", "a number or a name"),
    ({"run": {"seed": -1}}, "run.seed", "-1", "at least 0"),
    ({"run": {"max_failures": -2}}, "run.max_failures", "-2", "at least -1"),
    ({"run": {"name": "x" * 999 + "/"}}, "run.name", "'xxx", "contains a slash"),
]

CUSTOM = {
    "model": {"name": "mlp", "cuts": ["layers.0", "1"], "kwargs": {"width": 3, "deep": {"x": [1, 2.5]}}},
    "data": {"path": "/tmp/a b", "val_fraction": 0.25, "partition": {"name": "my.module:parts", "alpha": 0.1}},
    "phones": {"count": 7, "local_steps": 3, "per_round": 0.5, "cohort": 3, "stacked": ["a", "c"], "held_out": 0.1},
    "optimizer": {"name": "adam", "lr": 1e-5, "weight_decay": 1e-12},
    "server": {"num_gpus": 0.5},
    "cluster": {"client_actors": 3, "backend": "inprocess"},
    "checkpoint": {"num_to_keep": None},
    "run": {"name": "null", "storage_path": "~/é: #", "resume": "auto"},
}


def refusal(make, *arguments):
    with pytest.raises(SettingsError) as caught:
        make(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def written(folder, text):
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(("sections", "field", "shown", "allowed"), BAD, ids=[f"{f}={s}" for _, f, s, _ in BAD])
def test_a_bad_setting_is_one_line_of_field_value_and_what_it_must_be(sections, field, shown, allowed):
    error = refusal(lambda: Config(**sections))
    assert error.field == field
    assert shown in str(error) and allowed in str(error)
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("phones: {count: 0}", "phones.count: must be at least 1, not 0 (line 1 of "),
        ("phones:\n  count: [1,\n", "--config: "),
        ("phones:\n\tcount: 3\n", "--config: "),
        ("- phones\n", "--config: "),
        ("just words", "--config: "),
        ("!!python/object:os.system {}", "--config: "),
        (b"\xff\xfe\x00phones", "--config: "),
        ("3: {count: 2}", ""),
    ],
)
def test_a_bad_yaml_file_is_one_line(tmp_path, text, shown):
    path = written(tmp_path, text)
    error = refusal(Config.from_yaml, path)
    assert str(error).startswith(shown)
    assert error.field != "--config" or repr(str(path))[:100] in str(error)


def test_a_yaml_file_that_is_not_there_is_one_line(tmp_path):
    error = refusal(Config.from_yaml, tmp_path / "none.yaml")
    assert (error.field, error.value) == ("--config", str(tmp_path / "none.yaml"))
    assert "there is no file" in str(error)
    assert "is a folder" in str(refusal(Config.from_yaml, tmp_path))


def test_an_empty_yaml_file_means_the_defaults(tmp_path):
    assert Config.from_yaml(written(tmp_path, "")) == Config()


@pytest.mark.parametrize("sections", [{}, CUSTOM], ids=["defaults", "custom"])
def test_yaml_read_back_gives_equal_settings(tmp_path, sections):
    config = Config(**sections)
    assert Config.from_yaml(written(tmp_path, config.to_yaml())) == config
    assert Config(**yaml.safe_load(config.to_yaml())).to_yaml() == config.to_yaml()


def test_yaml_takes_numbers_as_people_write_them(tmp_path):
    config = Config.from_yaml(written(tmp_path, "optimizer: {lr: 1e-3}\nmodel: {cuts: [1, 2]}\n"))
    assert config.optimizer.lr == 0.001
    assert config.model.cuts == ["1", "2"]


@pytest.mark.parametrize(
    ("resume", "means"),
    [(True, "auto"), ("true", "auto"), ("", "auto"), (False, "never"), ("auto", "auto"), ("runs/x", "runs/x")],
)
def test_bare_resume_means_auto(resume, means):
    assert Config(run={"resume": resume}).run.resume == means


def test_lists_and_mappings_may_be_strings():
    config = Config(model={"cuts": "a, b.1", "freeze": "[a,c]", "kwargs": "{width: 3, deep: true}"})
    assert config.model.cuts == ["a", "b.1"]
    assert config.model.freeze == ["a", "c"]
    assert config.model.kwargs["width"] == 3


@pytest.mark.parametrize(
    ("value", "means"),
    [
        (None, None),
        (10, 10),
        ("10", 10),
        (20, 20),
        (0.1, 0.1),
        ("0.1", 0.1),
        (1, 1),
        (1.0, 1.0),
        ("1.0", 1.0),
        (20.0, 20),
    ],
)
def test_per_round_is_a_number_of_phones_or_a_fraction(value, means):
    per_round = Config(phones={"per_round": value}).phones.per_round
    assert (per_round, type(per_round)) == (means, type(means))


@pytest.mark.parametrize(
    ("field", "value", "means"),
    [
        ("cohort", "auto", "auto"), ("cohort", 32, 32), ("cohort", "32", 32), ("cohort", 1, 1),
        ("stacked", None, None), ("stacked", "a,c", ["a", "c"]), ("stacked", ["b"], ["b"]), ("stacked", "", []),
        ("held_out", None, None), ("held_out", 0, 0.0), ("held_out", "0.3", 0.3),
    ],
)  # fmt: skip
def test_what_phones_may_be(field, value, means):
    assert getattr(Config(phones={field: value}).phones, field) == means


def test_with_values_is_a_validated_copy():
    config = Config(**CUSTOM)
    changed = config.with_values(phones={"count": 9}, run={"seed": 4})
    assert (changed.phones.count, changed.phones.local_steps, changed.run.seed) == (9, 3, 4)
    assert changed.run.name == "null"
    assert changed.with_values(phones={"count": 7}, run={"seed": 0}) == config
    assert (config.phones.count, config.run.seed) == (7, 0)
    changed.model.kwargs["width"] = 99
    assert config.model.kwargs["width"] == 3


def test_with_values_refuses_as_config_does():
    assert refusal(lambda: Config().with_values(phones={"count": 0})).field == "phones.count"
    assert refusal(lambda: Config().with_values(phones={"cuont": 1})).field == "phones.cuont"
    assert refusal(lambda: Config().with_values(phnes={"count": 1})).field == "phnes"


def test_configs_share_no_section():
    changed = Config()
    changed.model.kwargs["width"] = 3
    assert Config().model.kwargs == {}


def test_a_config_is_changed_by_a_validated_copy_only():
    settings = Config()
    with pytest.raises(ValueError, match="frozen"):
        settings.run.rounds = 99
    assert settings.with_values(run={"rounds": 99}).run.rounds == 99
    assert settings.run.rounds == 15


def test_the_folder_is_known_once_the_name_is(tmp_path):
    assert Config(run={"name": "x", "storage_path": str(tmp_path)}).run.folder == tmp_path / "x"
    assert Config(run={"name": "x", "storage_path": "~/runs"}).run.folder == Path.home() / "runs" / "x"
    with pytest.raises(ValueError, match="no name yet"):
        _ = Config().run.folder
