"""Whether what the settings were given by value can go to the actors: seen before any is started."""

from __future__ import annotations

from ray import cloudpickle

from ray_split import config
from ray_split.config.user_code import by_value
from ray_split.errors import SettingsError, told


def check_sent(settings: config.Config) -> None:
    """Raises SettingsError for a function or an object that Ray can't pickle, or not make again from that."""
    for field, name in by_value.names(by_value.for_actors(settings)):
        if isinstance(name, by_value.ByValue):
            try:
                cloudpickle.loads(cloudpickle.dumps(name))
            except Exception as error:  # what people's objects raise
                wrong = (
                    f"{by_value.spoken(name)} can't be sent to the actors, because pickling it failed: {told(error)}"
                )
                do = "Put it into a module, and name it as package.module:function"
                raise SettingsError(field, name, do, wrong) from error
