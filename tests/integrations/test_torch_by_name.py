"""What torch keeps as modules of its own kinds, its operators, and functions that it compiled, in a new process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import safepickle
from nodes import round_trip

MODULES = [
    torch.ops,
    torch.ops.aten,
    torch.classes,
    torch.backends.cudnn,
    torch.backends.mkldnn,
    torch.backends.mps,
    torch.backends.quantized,
]
OPERATORS = [torch.ops.aten.add, torch.ops.aten.add.Tensor, torch.ops.aten.sin.default, torch.ops.higher_order.cond]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("found", [*MODULES, *OPERATORS], ids=str)
def test_goes_by_name(found: Any, protocol: int) -> None:
    assert round_trip([found], protocol)[0] is found


def test_settings_of_the_compiler_go_by_name() -> None:
    from torch._dynamo import config

    assert round_trip(config) is config


SCRIPT = """
    import sys, torch, safepickle

    @torch.compile(backend="eager")
    def function(x):
        return x.sin() + 1

    class Trainer:
        def __init__(self):
            self.weight = 3
            self.step = torch.compile(self._step, backend="eager")

        def _step(self, x):
            return x * self.weight

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.step = torch.compile(self._step, backend="eager")

        def _step(self, x):
            return self.linear(x)

        def forward(self, x):
            return self.step(x)

    def names(x):
        with torch.backends.cudnn.flags(enabled=False):
            return torch.ops.aten.sin(x), torch.classes.loaded_libraries, torch.backends.mkldnn.is_available()

    x = torch.ones(2)
    trainer, model = Trainer(), Model()
    compiled = torch.compile(Model(), backend="eager")
    wanted = [function(x), trainer.step(x), model(x), compiled(x), names(x)[0]]
    safepickle.dump([function, trainer, model, compiled, names, wanted], sys.argv[1])
    """
LOAD = """
    import sys, safepickle
    function, trainer, model, compiled, names, wanted = safepickle.load(sys.argv[1])
    import torch
    x = torch.ones(2)
    for found, expected in zip([function(x), trainer.step(x), model(x), compiled(x), names(x)[0]], wanted):
        torch.testing.assert_close(found, expected)
    trainer.weight = 5
    print(trainer.step(x).tolist())
    """


def test_what_was_compiled_runs_in_a_new_process(tmp_path: Path) -> None:
    target = str(tmp_path / "compiled.pickle")
    for program in (SCRIPT, LOAD):
        command = [sys.executable, "-c", textwrap.dedent(program), target]
        done = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[5.0, 5.0]"


def test_path_into_a_compiled_module_is_one_and_leads_there() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

    model = Model()
    model.linear.bad = (item for item in "ab")
    compiled = torch.compile(model, backend="eager")
    [found] = safepickle.explain([compiled]).unpicklable
    assert found.path == "$[0]._orig_mod.linear.bad"
    assert eval(found.path.replace("$", "root"), {"root": [compiled]}) is model.linear.bad


def test_path_into_a_compiled_function_is_one_and_leads_there() -> None:
    bad = (item for item in "ab")

    def function(x: Any) -> Any:
        return x, bad

    compiled = torch.compile(function, backend="eager")
    [found] = safepickle.explain([compiled]).unpicklable
    assert eval(found.path.replace("$", "root"), {"root": [compiled]}) is bad


def test_zero_tensor_gives_the_message_of_torch() -> None:
    zero = torch._efficientzerotensor((2,))
    with pytest.raises(RuntimeError, match="ZeroTensor is not serializable") as caught:
        safepickle.dumps({"gradient": zero})
    assert caught.value.pickle_path == "$['gradient']"  # type: ignore[attr-defined]
