"""What a person asks of a checkpoint first: parameters, optimizers, how far the training has come.

Recognised by the keys and names that torch and Lightning use, whoever wrote them: no more than a good guess.
"""

from __future__ import annotations

import math
import operator
import re
import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from safepickle.guard.inspect_backend import Symbol
from safepickle.guard.rules import ValueInfo
from safepickle.guard.torch_inspect import Run
from safepickle.report.inspection import ElementCount, OptimizerEntry
from safepickle.report.tensor_views import view_of, view_of_scalar
from safepickle.tracing.naming import Edge, attribute_edge
from safepickle.tracing.shortcuts import MODULE_MEMBERS, is_module_state

__all__ = ["Checkpoint", "ElementCounts", "is_buffer", "is_progress", "one_number", "written_by"]

_MOST_OPTIMIZERS: Final = 100
_CONTAINERS: Final = (dict, list, tuple, set, frozenset, deque)

_BUFFERS: Final = re.compile(
    r"(?:\b(?:running_mean|running_var|num_batches_tracked)|\b(?:\w+_)?rng(?:_\w+)?)(?:'\])?(?:\[\d+\])?$"
)
_PROGRESS: Final = frozenset(
    (
        "epoch",
        "epochs",
        "current_epoch",
        "step",
        "steps",
        "current_step",
        "global_step",
        "iteration",
        "iterations",
        "iter",
        "num_updates",
    )
)
_NAME: Final = re.compile(r"\.(\w+)|\['(\w+)'\]")

_OPTIMIZERS: Final = (
    ("LBFGS", {"history_size"}),
    ("SGD", {"momentum", "dampening", "nesterov"}),
    ("NAdam", {"betas", "momentum_decay"}),
    ("AdamW", {"betas", "amsgrad", "decoupled_weight_decay"}),
    ("Adam", {"betas", "amsgrad"}),
    ("RAdam", {"betas", "decoupled_weight_decay"}),
    ("Adamax", {"betas", "foreach"}),
    ("SparseAdam", {"betas", "eps", "maximize"}),
    ("RMSprop", {"alpha", "centered"}),
    ("Adagrad", {"lr_decay", "initial_accumulator_value"}),
    ("Adadelta", {"rho", "eps"}),
    ("ASGD", {"lambd", "t0"}),
    ("Rprop", {"etas", "step_sizes"}),
    ("Adafactor", {"beta2_decay"}),
    ("Muon", {"ns_steps"}),
)
"""torch's optimizers, each with options that it alone has among those that follow."""

_NUMBERS: Final = {
    "bool": "?", "int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q",
    "uint64": "Q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip


class ElementCounts:
    """How many elements there are of each type."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}

    def add(self, dtype: str, shape: tuple[int, ...], nbytes: int) -> None:
        """Count the elements of a tensor."""
        counts = self._counts.setdefault(dtype, [0, 0, 0])
        counts[:] = map(operator.add, counts, (math.prod(shape), 1, nbytes))

    def entries(self) -> list[ElementCount]:
        """Return the counts, the commonest type first."""
        counted = [ElementCount(dtype, *counts) for dtype, counts in self._counts.items()]
        return sorted(counted, key=lambda count: -count.elements)


class Checkpoint:
    """What a walk has found of a training so far.

    Args:
        run: What the walk goes through; the file is open.

    Attributes:
        parameters: How many elements the parameters have.
        optimizers: Optimizers and their states.
        passed_over: Ids of the objects whose numbers are not shown: there is one for every parameter.
    """

    def __init__(self, run: Run) -> None:
        self.parameters = ElementCounts()
        self.optimizers: list[OptimizerEntry] = []
        self.passed_over: set[int] = set()
        self._run = run
        self._live: set[int] = set()
        self._met: set[int] = set()
        self._buffers: set[int] = set()
        self._counted: set[Any] = set()
        self._places: set[Any] = set()

    def count(self, symbol: Symbol, info: ValueInfo, path: str) -> str:
        """Count a tensor, and return its role."""
        nbytes = info.nbytes or 0
        for place, entry in enumerate(self.optimizers):
            if _leads_through(path, entry.path):
                self.optimizers[place] = replace(entry, tensors=entry.tensors + 1, nbytes=entry.nbytes + nbytes)
                return "optimizer"
        if id(symbol) in self._buffers or is_buffer(path):
            return "buffer"
        place = self._place(symbol)
        if place not in self._counted:
            self._counted.add(place)
            self.parameters.add(info.dtype, info.shape, nbytes)
        return "parameter"

    def comes_late(self, value: Any) -> bool:
        """Tell whether a value is an optimizer: the parameters in it are better known by where the model has them."""
        return id(value) in self._live

    def look_at(self, value: Any, path: Callable[[], str]) -> frozenset[Edge]:
        """Note an optimizer, and a module's buffers; return the edges to what is of no interest in its internals."""
        if type(value) is OrderedDict:
            return self._look_at_state_dict(value)
        state = value.state if type(value) is Symbol else value
        if type(state) is not dict:
            return frozenset()
        is_optimizer = len(self.optimizers) < _MOST_OPTIMIZERS and _is_optimizer_state(state)
        if is_optimizer:
            named = type(value) is Symbol and value.grant is not None
            kind = value.grant.name.rpartition(".")[2] if named else _optimizer_kind(state)
            if named:
                self._live.add(id(value))
            self.optimizers.append(OptimizerEntry(path(), kind, self._step(state["state"]), 0, 0))
            self.passed_over.update(id(group["params"]) for group in state["param_groups"])
        if type(value) is not Symbol:
            return frozenset()
        is_module = is_module_state(state)
        if is_module and self._is_new(state["_buffers"]):
            self._buffers.update(map(id, dict.values(state["_buffers"])))
        if not is_module and not is_optimizer:
            return frozenset()
        return frozenset(attribute_edge(name) for name, item in state.items() if _is_internal(name, item, is_module))

    def _look_at_state_dict(self, value: OrderedDict[Any, Any]) -> frozenset[Edge]:
        """Pass over what torch notes in the state dict of a module beside its tensors: a version for each layer."""
        metadata = vars(value).get("_metadata")
        if not isinstance(metadata, dict):
            return frozenset()
        if self._is_new(metadata):
            self.passed_over.update(map(id, dict.values(metadata)))
        return frozenset({"._metadata"})

    def _is_new(self, container: Any) -> bool:
        """Tell whether a container is met for the first time: the file may show a long one again and again."""
        known = id(container) in self._met
        self._met.add(id(container))
        return not known

    def _step(self, states: Any) -> float | None:
        """Read how many steps an optimizer has made from the states of its parameters, which all say the same."""
        if not isinstance(states, dict):
            return None
        self.passed_over.update(map(id, states.values()))
        for state in states.values():
            step = state.get("step") if type(state) is dict else None
            number: Any = self.number(step) if type(step) is Symbol else step
            if type(number) in (int, float):
                return float(number)
        return None

    def is_shared(self, symbol: Symbol) -> bool:
        """Tell whether a tensor shows the elements of one that was there before."""
        if symbol.info is None or symbol.info.kind != "tensor":
            return False
        place = self._place(symbol)
        if place in self._places:
            return True
        self._places.add(place)
        return False

    def number(self, symbol: Symbol) -> int | float | bool | None:
        """Read the number that a scalar of numpy or what has no dimensions holds, or return None."""
        if symbol.info is None or symbol.info.shape or id(symbol) in self._buffers:
            return None
        view = view_of_scalar(symbol) or view_of(symbol, self._run)
        if view is None or view.shape or view.negative or view.data is None or view.data.read is None:
            return None
        return one_number(view.data.read(view.offset * view.itemsize, view.itemsize), view.dtype)

    def _place(self, symbol: Symbol) -> Any:
        """Return where the elements of a tensor are: storage and offset, or what nothing shares with it."""
        view = view_of(symbol, self._run)
        return id(symbol) if view is None else (view.storage, view.offset)


def _leads_through(path: str, owner: str) -> bool:
    while path.startswith("list("):
        path = path.removeprefix("list(")
    return path.startswith(owner) and path[len(owner) : len(owner) + 1] in ("[", ".")


def _is_internal(name: Any, item: Any, is_module: bool) -> bool:
    """Tell whether an attribute of a module or an optimizer is its own business: its dictionaries, hooks not set."""
    if type(name) is not str:
        return False
    if is_module and (name in MODULE_MEMBERS or name == "training"):
        return True
    return name.startswith("_") and (item is None or type(item) is bool or (isinstance(item, _CONTAINERS) and not item))


def _is_optimizer_state(value: Any) -> bool:
    """Tell whether a dict is laid out as the state of a torch optimizer."""
    if type(value) is not dict or "param_groups" not in value or "state" not in value:
        return False
    groups = value["param_groups"]
    return type(groups) is list and all(type(group) is dict and "params" in group for group in groups)


def _optimizer_kind(state: dict[Any, Any]) -> str:
    """Tell by the options of its first group which of torch's optimizers wrote a state; ``""`` for another one."""
    options = set(state["param_groups"][0]) if state["param_groups"] else set()
    kind = next((name for name, own in _OPTIMIZERS if own <= options), "")
    # AdamW says since torch 2.7 that it is one; before that the two were written alike.
    if kind == "AdamW" and not state["param_groups"][0]["decoupled_weight_decay"]:
        return "Adam"
    return "Adam or AdamW" if kind == "Adam" else kind


def written_by(root: Any) -> dict[str, str]:
    """Say which framework laid a checkpoint out, and its version, where it says so."""
    version = root.get("pytorch-lightning_version") if type(root) is dict else None
    return {"Lightning": version} if type(version) is str else {}


def is_buffer(name: str) -> bool:
    """Tell by its name whether a tensor is none of the parameters: torch's statistics, the state of a generator."""
    return _BUFFERS.search(name, max(0, len(name) - 80)) is not None


def is_progress(edge: Edge) -> bool:
    """Tell whether a key or an attribute is one that says how far a training has come."""
    name = _NAME.fullmatch(edge) if isinstance(edge, str) else None
    return name is not None and (name[1] or name[2]) in _PROGRESS


def one_number(data: Any, dtype: str) -> int | float | bool | None:
    """Read one little-endian number, or return None for what is none."""
    if dtype not in _NUMBERS or type(data) is not bytes or struct.calcsize("<" + _NUMBERS[dtype]) != len(data):
        return None
    code = "<" + _NUMBERS[dtype]
    number: int | float | bool = struct.unpack(code, data)[0]
    if dtype in ("float16", "float32"):
        # 0.1 rather than 0.10000000149011612, where that is the same number.
        shortest = float(f"{number:.7g}")
        return shortest if struct.pack(code, shortest) == data else number
    return number
