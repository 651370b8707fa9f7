"""Snapshots of a training: a few copies of its weights, in memory or on disk, the oldest making room."""

import copy
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unitygain.guard._tensors import Buffers, copied, forget_moments, held, here

log = logging.getLogger("unitygain.guard")
Content = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Weights at a position of the data: held in memory, or in a file."""

    position: int
    content: Content | None
    path: Path | None

    def read(self) -> Content | None:
        """Return the content, None if its file is gone or damaged.

        A file is read as tensors and plain values alone: it cannot run code.
        """
        if self.path is None:
            return self.content
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            log.error("the snapshot %s cannot be read: %s", self.path.name, error)
            return None


class Ring:
    """The last `keep` snapshots, newest last.

    Memory: `keep` copies of the trained parameters and the persistent buffers (of this rank's pieces), one
    more while a new one is taken; on the CPU, or on disk if there is a folder. Moments are not in them.

    Args:
        keep: How many.
        folder: Where to write them; None holds them in memory.
        rank: Goes into the names of the files, so that ranks do not meet.

    Raises:
        ValueError: If `keep` is below 1.
    """

    def __init__(self, keep: int, folder: str | os.PathLike[str] | None, rank: int) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}; hold at least 1 snapshot")
        self.keep = keep
        self._folder = None if folder is None else Path(folder)
        self._rank = rank
        self._held: list[Snapshot] = []

    def __len__(self) -> int:
        return len(self._held)

    @property
    def position(self) -> int:
        """Position of the newest, to which a rewind goes; 0 if there is none."""
        return self._held[-1].position if self._held else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held now."""
        return sum(s.path.stat().st_size if s.path else _size(s.content) for s in self._held)

    def read_newest(self) -> Content | None:
        """Return the content of the newest, None if it cannot be read."""
        return self._held[-1].read()

    def take(self, position: int, content: Content) -> bool:
        """Add a snapshot and let the oldest go; False if it could not be written."""
        path = None
        if self._folder is not None:
            path = self._folder / f"guard-{position}-rank{self._rank}.pt"
            try:
                write(path, {"position": position} | content)
            except OSError:
                return False
        self._held = [snapshot for snapshot in self._held if snapshot.position != position]
        self._held.append(Snapshot(position, None if path else content, path))
        while len(self._held) > self.keep:
            self._drop(0)
        return True

    def drop_newest(self) -> None:
        """Let the newest go: it led to the same trouble again, or cannot be read."""
        self._drop(-1)

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what is held: contents, or the names of files."""
        return [
            {"position": s.position, "content": s.content, "file": s.path.name if s.path else None}
            for s in self._held
        ]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Hold what `state` says; files that are gone are left out."""
        self._held = []
        for entry in state:
            path = None
            if entry["file"] is not None:
                # A state from elsewhere must not lead out of the folder.
                path = (self._folder or Path()) / Path(entry["file"]).name
                if not path.is_file():
                    continue
            self._held.append(Snapshot(int(entry["position"]), entry["content"], path))

    def _drop(self, place: int) -> None:
        path = self._held.pop(place).path
        if path is not None:
            path.unlink(missing_ok=True)


def write(path: Path, content: Content) -> None:
    """Write `content` so that `path` holds either all of it or what it held before, also after a crash.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except RuntimeError as error:  # how torch says that the disk is full
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        Path(partial).unlink(missing_ok=True)


def capture(model: nn.Module, optimizer: Optimizer, buffers: Buffers, also: Sequence[Any]) -> Content:
    """Copy the trained parameters, the buffers of the last good step, and the states of `also` to the CPU."""
    return {
        "parameters": copied(dict(held(model, optimizer)), "cpu"),
        "buffers": copied(buffers.kept, "cpu"),
        "also": [copy.deepcopy(thing.state_dict()) for thing in also],
    }


def restore(
    content: Content, model: nn.Module, optimizer: Optimizer, buffers: Buffers, also: Sequence[Any]
) -> None:
    """Put `content` back into the very tensors of the training, and let the optimizer begin anew."""
    for name, parameter in held(model, optimizer):
        if name in content["parameters"]:
            here(parameter).copy_(content["parameters"][name])
    buffers.restore(content["buffers"])
    buffers.keep()
    for thing, state in zip(also, content["also"], strict=True):
        thing.load_state_dict(copy.deepcopy(state))
    forget_moments(optimizer)
    optimizer.zero_grad(set_to_none=True)


def _size(content: Content | None) -> int:
    tensors = [*content["parameters"].values(), *content["buffers"].values()] if content else []
    return sum(tensor.nbytes for tensor in tensors)
