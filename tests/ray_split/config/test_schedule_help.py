"""What the settings tell of schedules is what their table has: config stands below it, and can't read it."""

from ray_split import config
from ray_split.schedules import SCHEDULES


def description(field: str) -> str:
    return str(config.Schedule.model_fields[field].description)


def test_the_help_has_every_schedule() -> None:
    ours, _, compared = description("name").partition("; for comparison ")
    assert {*ours.split(", "), *compared.split(", ")} == {*SCHEDULES}


def test_the_help_has_what_each_schedule_takes() -> None:
    takers: dict[str, list[str]] = {}
    for name, schedule in SCHEDULES.items():
        for kwarg, values in (schedule.takes or {}).items():
            takers.setdefault(f"{kwarg}: {' or '.join(values)}", []).append(name)
    assert description("kwargs") == "; ".join(f"{', '.join(names)}: {takes}" for takes, names in takers.items())
