"""Where a Case comes from: the user's code, or a folder of a Hugging Face model."""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from unitygain.cli import _huggingface, _load, _target
from unitygain.cli._faults import plain
from unitygain.cli._progress import Voice
from unitygain.cli._request import Request

if TYPE_CHECKING:
    from unitygain._case import Case


class Code:
    """A callable in a module or a file.

    Args:
        text: The target as given.

    Raises:
        Fault: If it names no callable.
    """

    def __init__(self, text: str | None) -> None:
        self.target = _target.parse(text)

    def importable(self) -> contextlib.AbstractContextManager[None]:
        """Let the module find its neighbours while the command runs."""
        return _target.importable(self.target)

    def load(self, voice: Voice) -> tuple["Case", dict[str, str]]:
        """Return the Case and what the report has to say about where it is from."""
        module = self.target.module
        near = self.target.is_file and not Path(module).is_absolute() and Path(module).parts[0] != ".."
        shown = plain(f"./{Path(module)}" if near else module)
        voice.doing = f"importing {shown}"
        voice.say(f"importing {shown}")
        return _load.load(self.target), {"target": shared_name(str(self.target))}

    def owned(self) -> list[str]:
        """Return the folder of the user's code, which counts as theirs even where it is installed."""
        module = sys.modules.get(self.target.module.partition(".")[0])
        file = self.target.module if self.target.is_file else getattr(module, "__file__", None)
        return [os.path.dirname(os.path.realpath(file))] if file else []


class Folder:
    """A folder of a Hugging Face model.

    Args:
        path: The folder.
        request: What the input is to be.

    Raises:
        Fault: If the folder is not what it should be, as far as can be seen without torch.
    """

    def __init__(self, path: str, request: Request) -> None:
        self.path = _huggingface.look(path)
        self.request = request

    def importable(self) -> contextlib.AbstractContextManager[None]:
        """Nothing of a folder is imported."""
        return contextlib.nullcontext()

    def load(self, voice: Voice) -> tuple["Case", dict[str, str]]:
        """Return the Case, and say what was chosen for it."""
        voice.doing = f"loading {plain(self.path)}"
        case, facts = _huggingface.load(self.path, self.request)
        for name, fact in facts.items():
            voice.say(f"note: {name}: {fact}")
        return case, {"target": f"hf:{shared_name(plain(self.path))}", **facts}

    def owned(self) -> list[str]:
        """Return the folder of transformers: what it raises is the model's, not ours."""
        spec = importlib.util.find_spec("transformers")
        return [os.path.dirname(spec.origin)] if spec and spec.origin else []


def shared_name(target: str) -> str:
    """Return the target for a report that others read: of an absolute path only the last name."""
    return os.path.basename(target) if os.path.isabs(target) else target
