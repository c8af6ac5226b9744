"""Importing what settings name from a file that may be a script, and so may train as it is imported.

The script that is running is not imported a second time. Elsewhere, in an actor say, it is; where it then would train
its import ends: what stands above is there, which is what the running script itself had when it began to train.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from pathlib import Path
from types import FrameType, ModuleType

from ray_split import logs
from ray_split.errors import told

GUARD = "put it under `if __name__ == '__main__':`"

logger = logs.get(__name__)
_here = threading.local()


class TrainsWhenImportedError(BaseException):
    """A module would train as it is imported. No Exception, so that the module's own handlers don't eat it."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(f"{module.__name__} trains when it is imported: {GUARD}")
        self.module = module


def module(name: str) -> ModuleType:
    """The module of this name. Raises what its import raises, and ImportError for one that would train."""
    if (script := _running(name)) is not None:
        return script
    before, _here.importing = getattr(_here, "importing", False), True
    try:
        return importlib.import_module(name)
    except TrainsWhenImportedError as stopped:
        if stopped.module.__name__ != name:
            raise ImportError(str(stopped)) from None
        logger.warning("%s; its import ends there", stopped)
        sys.modules[name] = stopped.module
        return stopped.module
    except SystemExit as ended:
        raise ImportError(f"it ends the process when it is imported, {told(ended)}: {GUARD}") from ended
    finally:
        _here.importing = before


def _running(name: str) -> ModuleType | None:
    """The script that is running, if the name stands for it and it was not imported too."""
    main = sys.modules["__main__"]
    if name in sys.modules or getattr(main, "__file__", None) is None:
        return sys.modules.get(name) if name == "__main__" else None
    if (spec := getattr(main, "__spec__", None)) is not None:
        return main if spec.name == name else None
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None  # importing it says what is wrong
    same = found is not None and found.origin is not None and Path(found.origin) == Path(str(main.__file__)).absolute()
    return main if same else None


def refuse_to_train_while_importing() -> None:
    """Raises TrainsWhenImportedError if this thread is importing what settings name."""
    if getattr(_here, "importing", False):
        raise TrainsWhenImportedError(_imported(sys._getframe()))


def _imported(frame: FrameType | None) -> ModuleType:
    """The module whose own lines are being run."""
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    assert frame is not None  # an import is under way
    return sys.modules[frame.f_globals["__name__"]]
