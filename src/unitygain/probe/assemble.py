"""Turns what a probe saw into a Record: names the sites, finds the trunk, gathers the numbers."""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from unitygain._types import Site, Skipped
from unitygain.probe.flow import STATISTICS as FLOW
from unitygain.probe.ledger import UNSEEN, Ledger, dtype_name, reduce
from unitygain.probe.ops import OPERATIONS
from unitygain.probe.record import Numbers, Place, Record
from unitygain.probe.reentrant import inside_function
from unitygain.probe.sites import Call, Select, Trunk, find_trunk, name_calls, selects
from unitygain.stats import STATISTICS

GRADIENT = {"output": "grad", "entry": "entry_grad", "exit": "exit_grad", "input": "input_grad"}
GRADIENT |= {"sequence": "sequence_grad", "logits": "logits_grad"}
Wanted = Mapping[str, tuple[str, ...]]
Key = tuple[Call, str]


def read_wanted(collect: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the statistics by signal of names such as ``grad.rms``; ValueError if one is not known."""
    wanted: dict[str, list[str]] = defaultdict(list)
    signals = {*GRADIENT, *GRADIENT.values(), "parameter", "parameter_grad"}
    special = {**OPERATIONS, "flow": FLOW}
    inside = [f"{signal}.{name}" for signal, names in special.items() for name in names]
    for key in dict.fromkeys(collect):
        signal, _, statistic = key.partition(".")
        if statistic not in (STATISTICS if signal in signals else special.get(signal, ())):
            raise ValueError(
                f"collect has {key!r}; write signal.statistic with a signal of {', '.join(sorted(signals))} "
                f"and a statistic of {', '.join(STATISTICS)}, or one of {', '.join(inside)}"
            )
        wanted[signal].append(statistic)
    return {signal: tuple(names) for signal, names in wanted.items()}


@dataclass
class Sighting:
    """Everything that a probe saw: the calls, and for each signal the ledger's row per (call, leaf)."""

    calls: list[Call] = field(default_factory=list)
    rows: dict[str, dict[Key, int]] = field(default_factory=lambda: defaultdict(dict))
    skipped: dict[str, str] = field(default_factory=dict)
    facts: dict[str, float | str] = field(default_factory=dict)
    reentrant: dict[Call, None] = field(default_factory=dict)
    lifted: bool = False

    def began(self, call: Call) -> None:
        """Note a call that begins, and whether it runs inside a custom autograd function."""
        self.calls.append(call)
        if call.parent in self.reentrant:
            self.reentrant[call] = None
        elif inside_function():
            self.reentrant[call] = None
            self.facts.setdefault("checkpoint", (call.parent and call.parent.path) or "(model)")

    def comes_once(self, ledger: Ledger) -> Callable[[Call], bool]:
        """Return whether a call's input gets its gradient, and not by a derivative of a derivative."""
        entries = self.rows["entry"]

        def once(call: Call) -> bool:
            row = entries.get((call, ""))
            if row is None or not ledger.described[row][2] or row in ledger.differentiated:
                return False
            kept = ledger.backward[row].values()
            return not kept or any(numbers is not UNSEEN for numbers in kept)

        return once

    def forget(self) -> None:
        """Part the calls, which name each other and their modules: only a collection would free the model."""
        for call in self.calls:
            call.parent = None
            call.children.clear()


def assemble(model: nn.Module, sighting: Sighting, ledger: Ledger, wanted: Wanted, select: Select) -> Record:
    """Return the Record of a sighting; reads the parameters and their gradients as they are."""
    sites = name_calls(sighting.calls)
    order = {call: index for index, call in enumerate(sighting.calls)}
    chosen = {call for call in sighting.calls if selects(select, call.path, call.module)}
    trunk = find_trunk([call for call in sighting.calls if call in chosen], sighting.comes_once(ledger))
    record = _Draft(wanted, dict(sighting.skipped))
    last = max((call for call, _ in sighting.rows["logits"]), key=order.__getitem__, default=None)
    sighting.rows["logits"] = {key: row for key, row in sighting.rows["logits"].items() if key[0] is last}
    for signal in GRADIENT:
        rows = junctions(signal, trunk, sighting) if signal in {"entry", "exit"} else sighting.rows[signal]
        for (call, leaf), row in sorted(rows.items(), key=lambda item: order[item[0][0]]):
            if call in chosen or signal in {"input", "logits"}:
                record.add(signal, call, dataclasses.replace(sites[call], leaf=leaf), ledger, row)
    record.values["entry.goes_past"] = {sites[call]: (1.0,) for call in going_past(trunk, sighting.calls)}
    record.values["call.reentrant"] = {sites[call]: (float(sighting.lifted),) for call in sighting.reentrant}
    record.add_parameters(model)
    if not trunk.blocks:
        record.skipped["gain over depth"] = (
            "no module that repeats was found; of bare parameters a list of matrices is followed"
        )
    notes = tuple(Skipped(what, reason) for what, reason in record.skipped.items())
    return Record(
        places=tuple(record.places),
        blocks=tuple(sites[call] for call in trunk.blocks),
        end=sites[trunk.end] if trunk.end else None,
        values=record.values,
        skipped=notes,
        facts=dict(sighting.facts),
    )


def junctions(signal: str, trunk: Trunk, sighting: Sighting) -> dict[Key, int]:
    """Return the ledger's rows at the blocks; what leaves a block is what enters the next one."""
    entries, exits = sighting.rows["entry"], sighting.rows["exit"]
    if signal == "entry":
        return {(call, ""): entries[call, ""] for call in trunk.blocks if (call, "") in entries}
    followers = (*trunk.blocks[1:], trunk.end)
    rows = {}
    for call, follower in zip(trunk.blocks, followers, strict=True) if trunk.blocks else ():
        row = entries.get((follower, "")) if follower else exits.get((call, ""))
        if row is not None:
            rows[call, ""] = row
    return rows


def going_past(trunk: Trunk, calls: Sequence[Call]) -> list[Call]:
    """Return the blocks whose input a module reads again behind the block, as each layer reads the first one.

    The gradient there is the sum over all its readers, and none of the block's own. Not so where the very
    same tensor enters the next block, which is a branch of its own.
    """
    order = {call: index for index, call in enumerate(calls)}
    last_read = {tensor: index for index, call in enumerate(calls) for tensor in call.inputs}
    found = []
    for call, follower in itertools.pairwise(trunk.blocks):
        entering = call.inputs[:1]
        if entering and entering != follower.inputs[:1] and last_read[entering[0]] >= order[follower]:
            found.append(call)
    return found


class _Draft:
    """The places and numbers of a record in the making."""

    def __init__(self, wanted: Wanted, skipped: dict[str, str]) -> None:
        self.wanted = wanted
        self.skipped = skipped
        self.places: list[Place] = []
        self.values: dict[str, dict[Site, Numbers]] = {}

    def add(self, signal: str, call: Call, site: Site, ledger: Ledger, row: int) -> None:
        """Add one observed tensor and its gradient."""
        shape, dtype, differentiable = ledger.described[row]
        self.places.append(Place(site, signal, type(call.module).__name__, shape, dtype))
        self._store(signal, site, ledger.forward[row])
        self._store(GRADIENT[signal], site, ledger.backward[row])
        if signal == "output" and self.wanted.get("grad"):
            if not differentiable and not ledger.backward[row]:
                self.skipped[f"gradient at {site}"] = "its output does not require a gradient"
            elif all(numbers is UNSEEN for numbers in ledger.backward[row].values()):
                self.skipped[f"gradient at {site}"] = "none reached it: the loss does not depend on it"

    def add_parameters(self, model: nn.Module) -> None:
        """Add every parameter once, by its first name, and its gradient as it stands."""
        aliases: dict[int, list[str]] = defaultdict(list)
        for name, parameter in model.named_parameters(remove_duplicate=False):
            aliases[id(parameter)].append(name)
        for name, parameter in model.named_parameters():
            if isinstance(parameter, UninitializedParameter):
                self.skipped[f"parameter {name}"] = "it is lazy and no forward pass has given it a shape"
                continue
            tied = [alias for alias in aliases[id(parameter)] if alias != name]
            note = f"tied to {', '.join(tied)}" if tied else ""
            kind = type(parameter).__name__
            self.places.append(
                Place(Site(name), "parameter", kind, tuple(parameter.shape), dtype_name(parameter), note)
            )
            self._reduce("parameter", name, parameter)
            if parameter.grad is not None:
                self._reduce("parameter_grad", name, parameter.grad)
            elif self.wanted.get("parameter_grad") and parameter.requires_grad:
                self.skipped[f"gradient of parameter {name}"] = "it is None: none reached the parameter"

    def _reduce(self, signal: str, name: str, tensor: Tensor) -> None:
        kept: dict[str, Tensor] = {}
        reduce(tensor, self.wanted.get(signal, ()), kept, None)
        self._store(signal, Site(name), kept)

    def _store(self, signal: str, site: Site, kept: Mapping[str, Tensor]) -> None:
        for name in self._seen(signal, kept):
            self.values.setdefault(f"{signal}.{name}", {})[site] = tuple(kept[name].reshape(-1).tolist())

    def _seen(self, signal: str, kept: Mapping[str, Tensor]) -> Iterable[str]:
        return [name for name in self.wanted.get(signal, ()) if kept.get(name, UNSEEN) is not UNSEEN]
