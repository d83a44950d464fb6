"""Classes, functions and modules that have moved, vanished or changed since a pickle was written."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import textwrap
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import safepickle
from nodes import round_trip
from safepickle.rebuild import Stub

OLD = """
import enum

class Net:
    def __init__(self):
        self.weights = [1, 2]

class Slotted:
    __slots__ = ("left", "right")

class Layers(list):
    pass

class Registry(dict):
    pass

class Number(int):
    pass

class Outer:
    class Inner:
        pass

class Mode(enum.Enum):
    TRAIN = 1

class Own:
    def __getstate__(self):
        return ("any", "state")
    def __setstate__(self, state):
        self.got = state

class Called:
    def __init__(self, a, b):
        self.ab = (a, b)
    def __reduce__(self):
        return Called, self.ab

class Keywords:
    def __new__(cls, *, depth):
        made = super().__new__(cls)
        made.depth = depth
        return made
    def __getnewargs_ex__(self):
        return (), {"depth": self.depth}

def loss(value):
    return value * 2
"""

Build = Callable[..., types.ModuleType]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Return what writes a module and imports it; at the end, all of them are gone."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def build(name: str, source: str = OLD) -> types.ModuleType:
        import importlib

        path = tmp_path.joinpath(*name.split("."))
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.relative_to(tmp_path).parents:
            if str(parent) != ".":
                (tmp_path / parent / "__init__.py").touch()
                made.append(".".join(parent.parts))
        path.with_suffix(".py").write_text(source, encoding="utf-8")
        made.append(name)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield build
    for name in made:
        sys.modules.pop(name, None)


def forget(name: str) -> None:
    """Make a module vanish."""
    import importlib

    module = sys.modules.pop(name)
    Path(str(module.__file__)).unlink()
    parent, _, last = name.rpartition(".")
    if parent:
        delattr(sys.modules[parent], last)
    importlib.invalidate_caches()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "aliases",
    [
        {"oldlib.nets.Net": "newlib.models.Net"},
        {"oldlib.nets": "newlib.models"},
        {"oldlib.nets:Net": "newlib.models:Net"},
    ],
)
def test_a_class_that_moved_is_found_by_an_alias(build: Build, protocol: int, aliases: dict[str, str]) -> None:
    data = safepickle.dumps([build("oldlib.nets").Net(), 5], protocol)
    forget("oldlib.nets")
    new = build("newlib.models")
    restored = safepickle.loads(data, aliases=aliases)
    assert type(restored[0]) is new.Net
    assert restored[0].weights == [1, 2]
    assert type(safepickle.load(io.BytesIO(data), aliases=aliases)[0]) is new.Net
    assert type(safepickle.backend(aliases=aliases).loads(data)[0]) is new.Net


def test_packages_functions_and_nested_classes_move(build: Build) -> None:
    old = build("oldlib.deep.nets")
    data = safepickle.dumps([old.loss, old.Outer.Inner(), old.Net])
    forget("oldlib.deep.nets")
    new = build("newlib.deep.nets")
    loss, inner, cls = safepickle.loads(data, aliases={"oldlib": "newlib"})
    assert loss is new.loss
    assert type(inner) is new.Outer.Inner
    assert cls is new.Net
    renamed = build("newlib.other", OLD.replace("class Outer", "class Wrapper"))
    aliases = {"oldlib": "newlib", "oldlib.deep.nets.Outer": "newlib.other.Wrapper"}
    assert type(safepickle.loads(data, aliases=aliases)[1]) is renamed.Wrapper.Inner


def test_the_longest_alias_wins_and_names_only_begin_at_dots(build: Build) -> None:
    data = safepickle.dumps([build("oldlib.nets").Net(), build("oldlibrary").Net()])
    new = build("newlib.nets")
    special = build("special", "class Other: pass")
    restored = safepickle.loads(data, aliases={"oldlib": "newlib", "oldlib.nets.Net": "special.Other"})
    assert type(restored[0]) is special.Other
    assert type(restored[1]) is sys.modules["oldlibrary"].Net
    assert type(safepickle.loads(data, aliases={"oldlib": "newlib"})[0]) is new.Net


def test_an_alias_may_be_the_class_itself(build: Build) -> None:
    data = safepickle.dumps(build("oldlib.nets").Net())
    forget("oldlib.nets")

    class Local:
        weights: Any = None

    assert safepickle.loads(data, aliases={"oldlib.nets.Net": Local}).weights == [1, 2]
    new = build("newlib.nets")
    assert type(safepickle.loads(data, aliases={"oldlib.nets": new})) is new.Net


def test_aliases_come_before_the_allow_list(build: Build) -> None:
    old = build("oldlib.nets")
    data = safepickle.dumps(old.Net())
    new = build("newlib.nets")
    aliases = {"oldlib.nets": "newlib.nets"}
    restored = safepickle.loads(data, aliases=aliases, allow=["newlib.nets:Net"])
    assert type(restored) is new.Net
    with pytest.raises(safepickle.NotAllowedError, match=r"newlib\.nets:Net"):
        safepickle.loads(data, aliases=aliases, allow=["oldlib.nets:Net"])
    with pytest.raises(safepickle.NotAllowedError, match=r"os:system|posix:system"):
        safepickle.loads(data, aliases={"oldlib.nets.Net": "os.system"}, allow=["oldlib.nets:Net"])


@pytest.mark.parametrize(
    ("aliases", "error", "message"),
    [
        ({"a b": "c"}, ValueError, "'a b' is no dotted name"),
        ({"a": "c d"}, ValueError, "'c d', which is to stand for 'a', is no dotted name"),
        ({3: "c"}, TypeError, "dotted names, not of type int"),
        ({"a": 3}, TypeError, "what is to stand for 'a' is of type int"),
    ],
)
def test_aliases_that_are_none_are_refused(aliases: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        safepickle.loads(b"N.", aliases=aliases)
    with pytest.raises(error, match=message):
        safepickle.backend(aliases=aliases)


def test_an_unknown_word_for_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="missing='ignore' is not known: pass 'raise' or 'stub'"):
        safepickle.loads(b"N.", missing="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["loads", "load", "path", "unpickler", "backend"])
def test_a_missing_class_is_an_error_that_says_where_and_what_is_near(build: Build, tmp_path: Path, how: str) -> None:
    old = build("oldlib.nets")
    layers = old.Layers([old.Outer(), old.Net()])
    data = safepickle.dumps({"model": [layers]})
    forget("oldlib.nets")
    build("oldlib.nets", OLD.replace("class Net", "class Nets"))
    build("oldlib.moved")
    path = tmp_path / "model.pickle"
    path.write_bytes(data)
    load: Any = {
        "loads": lambda: safepickle.loads(data),
        "load": lambda: safepickle.load(io.BytesIO(data)),
        "path": lambda: safepickle.load(path),
        "unpickler": lambda: safepickle.Unpickler(io.BytesIO(data)).load(),
        "backend": lambda: safepickle.backend(missing="raise").load(io.BytesIO(data)),
    }[how]
    with pytest.raises(
        AttributeError, match=r"cannot load oldlib\.nets\.Net: the module oldlib\.nets has no Net"
    ) as caught:
        load()
    assert isinstance(caught.value, safepickle.UnpicklingError)
    error: Any = caught.value
    assert (error.module, error.global_name) == ("oldlib.nets", "Net")
    assert error.near == ("oldlib.nets.Nets", "oldlib.moved.Net")
    assert data[error.offset : error.offset + 1] == pickle.STACK_GLOBAL
    assert (error.pickle_path, error.needed_by) == ("$['model'][0][1]", "oldlib.nets.Layers")
    assert "for $['model'][0][1], in an object of class oldlib.nets.Layers" in str(error)
    assert 'aliases={"oldlib.nets.Net": "oldlib.nets.Nets"}' in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_a_missing_module_is_an_error_that_names_what_is_near(build: Build) -> None:
    data = safepickle.dumps(build("oldlib.networks").Net())
    forget("oldlib.networks")
    build("oldlib.network")
    with pytest.raises(ModuleNotFoundError, match=r"there is no module oldlib\.networks") as caught:
        safepickle.loads(data)
    assert isinstance(caught.value, safepickle.UnpicklingError)
    error: Any = caught.value
    assert error.near == ("oldlib.network",)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("protocol", range(6))
def test_the_error_finds_the_place_at_every_protocol(build: Build, protocol: int) -> None:
    old = build("oldlib.nets")
    other = build("newlib.nets")
    net = other.Net()
    net.parts = {"head": {3: (old.Net(), 1)}, "function": old.loss}
    data = safepickle.dumps([net], protocol)
    forget("oldlib.nets")
    with pytest.raises(ModuleNotFoundError, match=r"there is no module oldlib\.nets") as caught:
        safepickle.loads(data)
    error: Any = caught.value
    assert (error.pickle_path, error.needed_by) == ("$[0].parts['head'][3][0]", "newlib.nets.Net")
    build("oldlib.nets", OLD.replace("def loss", "def losses"))
    with pytest.raises(AttributeError, match=r"has no loss") as caught_too:
        safepickle.loads(data)
    error = caught_too.value
    assert (error.pickle_path, error.needed_by) == ("$[0].parts['function']", "newlib.nets.Net")


def test_a_torch_like_persistent_id_and_buffers_do_not_hide_the_place(build: Build) -> None:
    class Pickler(safepickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("stored", len(obj)) if type(obj) is bytearray else None

    class Unpickler(safepickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            return bytearray(pid[1])

    buffers: list[Any] = []
    file = io.BytesIO()
    graph = [bytearray(8), pickle.PickleBuffer(b"abc"), build("oldlib.nets").Net()]
    Pickler(file, buffer_callback=buffers.append).dump(graph)
    forget("oldlib.nets")
    file.seek(0)
    with pytest.raises(ModuleNotFoundError, match=r"for \$\[2\]\. "):
        Unpickler(file, buffers=buffers).load()


def test_errors_of_the_objects_themselves_are_left_alone() -> None:
    class Broken:
        def __setstate__(self, state: Any) -> None:
            raise AttributeError("from the object")

        def __getstate__(self) -> Any:
            return 1

    with pytest.raises(AttributeError, match=r"^from the object$") as caught:
        round_trip(Broken())
    assert not isinstance(caught.value, safepickle.UnpicklingError)


def test_a_dependency_that_is_missing_is_named_by_pythons_own_error(build: Build) -> None:
    module = build("needing")
    data = safepickle.dumps(module.Net())
    Path(str(module.__file__)).write_text("import no_such_dependency_at_all\n" + OLD, encoding="utf-8")
    del sys.modules["needing"]
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_dependency_at_all'$"):
        safepickle.loads(data)


def everything(old: Any) -> dict[str, Any]:
    """Return an object of each kind that a vanished module can leave in a pickle."""
    net = old.Net()
    slotted = old.Slotted()
    slotted.left = net
    layers = old.Layers([1, 2])
    layers.name = "layers"
    registry = old.Registry(a=net)
    return {
        "net": net,
        "again": net,
        "weak": weakref.ref(net),
        "slotted": slotted,
        "layers": layers,
        "registry": registry,
        "number": old.Number(7),
        "inner": old.Outer.Inner(),
        "own": old.Own(),
        "called": old.Called(1, 2),
        "keywords": old.Keywords(depth=3),
        "mode": old.Mode.TRAIN,
        "loss": old.loss,
        "cls": old.Net,
    }


def check_real(restored: dict[str, Any], module: Any) -> None:
    """Hold what `everything` builds to be what it was."""
    assert type(restored["net"]) is module.Net
    assert restored["net"].weights == [1, 2]
    assert restored["again"] is restored["net"]
    assert restored["weak"]() is restored["net"]
    assert restored["slotted"].left is restored["net"]
    assert not hasattr(restored["slotted"], "right")
    assert type(restored["layers"]) is module.Layers
    assert restored["layers"] == [1, 2]
    assert restored["layers"].name == "layers"
    assert restored["registry"] == {"a": restored["net"]}
    assert restored["number"] == 7
    assert type(restored["inner"]) is module.Outer.Inner
    assert restored["own"].got == ("any", "state")
    assert restored["called"].ab == (1, 2)
    assert restored["keywords"].depth == 3
    assert restored["mode"] is module.Mode.TRAIN
    assert restored["loss"] is module.loss
    assert restored["cls"] is module.Net


@pytest.mark.parametrize("protocol", range(6))
def test_placeholders_keep_the_state_and_are_pickled_again_to_the_same_meaning(build: Build, protocol: int) -> None:
    module = build("oldlib.nets")
    source = everything(module)
    if protocol < 2:
        # copyreg refuses these itself.
        del source["slotted"], source["keywords"]
    data = safepickle.dumps(source, protocol)
    forget("oldlib.nets")

    stubs = safepickle.loads(data, missing="stub")
    assert type(stubs["net"]) is stubs["cls"]
    assert (stubs["cls"].__module__, stubs["cls"].__qualname__) == ("oldlib.nets", "Net")
    assert stubs["net"].weights == [1, 2]
    assert isinstance(stubs["net"], Stub)
    assert stubs["again"] is stubs["net"]
    assert stubs["weak"]() is stubs["net"]
    assert stubs["layers"].name == "layers"
    assert stubs["called"].__stub__.arguments == (1, 2)
    assert stubs["own"].__stub__.state == ("any", "state")
    assert stubs["registry"].__stub__.pairs == [("a", stubs["net"])] or protocol < 2
    assert repr(stubs["net"]) == "<safepickle.Stub of oldlib.nets.Net: weights>"
    assert repr(stubs["cls"]) == "<safepickle.Stub of oldlib.nets.Net, which is missing>"

    again = safepickle.dumps(stubs, protocol)
    assert set(safepickle.loads(again)) == set(source)
    real = safepickle.loads(again, aliases={"oldlib.nets": build("newlib.nets")})
    if protocol < 2:
        real |= {"slotted": check_slotted(sys.modules["newlib.nets"], real), "keywords": types.SimpleNamespace(depth=3)}
    check_real(real, sys.modules["newlib.nets"])
    if protocol >= 2:
        check_real(safepickle.loads(again, aliases={"oldlib": "newlib"}), sys.modules["newlib.nets"])
        back = build("oldlib.nets")
        check_real(pickle.loads(again), back)


def check_slotted(module: Any, real: dict[str, Any]) -> Any:
    """Stand in for what protocols 0 and 1 cannot pickle."""
    slotted = module.Slotted()
    slotted.left = real["net"]
    return slotted


def test_placeholders_can_be_edited_before_they_are_pickled_again(build: Build) -> None:
    data = safepickle.dumps(build("oldlib.nets").Net())
    forget("oldlib.nets")
    stub = safepickle.loads(data, missing="stub")
    stub.weights = [9]
    stub.extra = "new"
    restored = safepickle.loads(safepickle.dumps(stub), aliases={"oldlib.nets": build("newlib.nets")})
    assert vars(restored) == {"weights": [9], "extra": "new"}


def test_what_exists_is_loaded_as_itself_beside_placeholders(build: Build) -> None:
    data = safepickle.dumps([build("oldlib.nets").Net(), build("newlib.nets").Net()])
    forget("oldlib.nets")
    stub, real = safepickle.loads(data, missing="stub")
    assert isinstance(stub, Stub)
    assert type(real) is sys.modules["newlib.nets"].Net


def test_a_guarded_load_gives_placeholders_of_allowed_names_alone(build: Build) -> None:
    data = safepickle.dumps(build("oldlib.nets").Net())
    forget("oldlib.nets")
    stub = safepickle.loads(data, missing="stub", allow=["oldlib.nets:Net"])
    assert stub.weights == [1, 2]
    assert isinstance(stub, Stub)
    with pytest.raises(safepickle.NotAllowedError, match=r"oldlib\.nets:Net"):
        safepickle.loads(data, missing="stub", allow=[])


def test_a_placeholder_pickled_again_is_no_way_around_the_guard(build: Build) -> None:
    data = safepickle.dumps(build("oldlib.nets").Net())
    forget("oldlib.nets")
    again = safepickle.dumps(safepickle.loads(data, missing="stub"))
    with pytest.raises(safepickle.NotAllowedError, match=r'allow=\["oldlib\.nets:Net"\]'):
        safepickle.loads(again, allow=[])
    assert isinstance(safepickle.loads(again, allow=["oldlib.nets:Net"]), Stub)
    with pytest.raises(ValueError, match="rebuild_global"):
        safepickle.loads(again, allow=["safepickle.rebuild:rebuild_global"])


def test_a_checkpoint_of_a_module_that_is_gone_can_be_rescued_in_a_fresh_process(tmp_path: Path) -> None:
    (tmp_path / "project.py").write_text(
        "class Trainer:\n    def __init__(self):\n        self.step, self.loss = 7, [0.5]\n", encoding="utf-8"
    )
    save = "import sys, project, safepickle; safepickle.dump(project.Trainer(), sys.argv[1])"
    rescue = """
        import sys, safepickle
        trainer = safepickle.load(sys.argv[1], missing="stub")
        print(trainer.step, trainer.loss, type(trainer).__module__)
        safepickle.dump(trainer, sys.argv[1] + ".again")
        """
    check = "import sys, project, safepickle; print(safepickle.load(sys.argv[1] + '.again').step, project.__name__)"
    target = str(tmp_path / "model")

    def run(program: str) -> str:
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program), target]
        path = os.pathsep.join([str(tmp_path), str(Path(safepickle.__file__).parents[1])])
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": path},
            encoding="utf-8",
        )
        return done.stdout.strip()

    run(save)
    (tmp_path / "project.py").rename(tmp_path / "gone")
    assert run(rescue) == "7 [0.5] project"
    (tmp_path / "gone").rename(tmp_path / "project.py")
    assert run(check) == "7 project"
