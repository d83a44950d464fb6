"""Values that are pickled as the recipe that builds them.

It knows nothing of how safepickle writes or reads. A dump asks `recipe_of` when the referent of a weak reference is
outside the pickle.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from safepickle.cpython import after_fork_in_child
from safepickle.messages import dotted_name
from safepickle.public import public
from safepickle.rebuild.mark import file_format
from safepickle.reduce_value import ReduceTuple

__all__ = ["Recomputed", "rebuild_recomputed", "recipe_name", "recipe_of", "recipes_exist"]

P = ParamSpec("P")
T = TypeVar("T")

# From the id of a built value to the recipe that built it. An entry goes with its recipe, and `recipe_of` checks that
# the recipe holds that very value still, so an id that Python has given to another object cannot be mistaken for it.
_recipes: weakref.WeakValueDictionary[int, Recomputed[Any]] = weakref.WeakValueDictionary()


_being_built: dict[int, Recomputed[Any]] = {}


class _NotBuilt:
    """The type of `_NOT_BUILT`: no value, which ``None`` could not stand for."""


_NOT_BUILT = _NotBuilt()


@public
class Recomputed(Generic[T]):
    """A value that is pickled as the recipe that builds it: a factory and its arguments.

    The value is built on first use and kept. Any pickler writes the factory and the arguments alone; after a load the
    value is built on first use, once, however many threads ask. Under plain `pickle` the factory must be importable;
    under safepickle it may be a lambda or a local function.

    Attributes:
        factory: What builds the value.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Examples:
        >>> table = safepickle.Recomputed(range, 1_000_000)
        >>> copy = safepickle.loads(safepickle.dumps(table))
        >>> copy.is_built
        False
        >>> copy.value
        range(0, 1000000)
    """

    __slots__ = ("__weakref__", "_builder", "_lock", "_value", "args", "factory", "kwargs")

    def __init__(self, factory: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Note the recipe; nothing is built yet.

        Args:
            factory: Called with the arguments when the value is first used.
            *args: Positional arguments of the factory.
            **kwargs: Keyword arguments of the factory.

        Raises:
            TypeError: The factory can't be called.
        """
        if not callable(factory):
            raise TypeError(
                f"Recomputed needs a factory that can be called, got {type(factory).__qualname__}. "
                "Pass a function that builds the value, followed by its arguments"
            )
        # Not declared in the class: its hints are looked up in `safepickle`, which has no `Callable`.
        self.factory: Callable[..., T]
        self.args: tuple[Any, ...]
        self.kwargs: dict[str, Any]
        self._builder: int | None
        self._value: T | _NotBuilt
        self.__setstate__((factory, args, kwargs))

    @property
    def value(self) -> T:
        """The value, built on first use.

        Raises:
            RuntimeError: The factory asked for the value that it is building.
            Exception: Whatever the factory raised, with a note that names the recipe. The next use tries again.
        """
        if not isinstance(self._value, _NotBuilt):
            return self._value
        with self._lock:
            if isinstance(self._value, _NotBuilt):
                self._value = self._build()
                _remember(self, self._value)
            return self._value

    @property
    def is_built(self) -> bool:
        """Whether the value is there, so that using it calls no factory."""
        return not isinstance(self._value, _NotBuilt)

    def refresh(self) -> None:
        """Drop the value, so that the next use builds it again."""
        with self._lock:
            if _recipes.get(id(self._value)) is self:
                del _recipes[id(self._value)]
            self._value = _NOT_BUILT

    def _build(self) -> T:
        if self._builder is not None:
            raise RuntimeError(
                f"{recipe_name(self)} cannot be built: its factory asks for the value that it is building. "
                "Build the value from the factory's arguments alone"
            )
        self._builder = threading.get_ident()
        _being_built[id(self)] = self
        try:
            return self.factory(*self.args, **self.kwargs)
        except Exception as error:
            error.add_note(f"raised while building {recipe_name(self)}; the next use of its value tries again")
            raise
        finally:
            del _being_built[id(self)]
            self._builder = None

    def __getstate__(self) -> tuple[Callable[..., T], tuple[Any, ...], dict[str, Any]]:
        return self.factory, self.args, self.kwargs

    def __setstate__(self, state: tuple[Callable[..., T], tuple[object, ...], dict[str, object]]) -> None:
        self.factory, self.args, self.kwargs = state
        self._value = _NOT_BUILT
        self._builder = None
        self._lock = threading.RLock()  # re-entrant, so that a factory that asks for its own value is told so

    def __reduce__(self) -> ReduceTuple:
        # The recipe is state, not arguments, so that a factory may be a method of the very object that holds this one.
        cls = type(self)
        return rebuild_recomputed, () if cls is Recomputed else (cls,), self.__getstate__()

    def __repr__(self) -> str:
        return f"<{recipe_name(self)}, {'built' if self.is_built else 'not built'}>"


def _after_fork() -> None:
    """Let a forked child build what another thread of its parent was building: that thread is not there."""
    for key, recomputed in list(_being_built.items()):
        if recomputed._builder != threading.get_ident():
            del _being_built[key]
            recomputed._builder = None
            recomputed._lock = threading.RLock()


after_fork_in_child(_after_fork)


def recipe_name(recomputed: Recomputed[Any]) -> str:
    """Name a recipe by its factory, without the arguments: they may be huge, secret, or fail to print.

    Args:
        recomputed: The recipe.

    Returns:
        ``Recomputed(package.module.factory)``.
    """
    factory = recomputed.factory
    named = factory if hasattr(factory, "__qualname__") else type(factory)
    return f"{type(recomputed).__name__}({dotted_name(named)})"


def recipe_of(value: object) -> Recomputed[Any] | None:
    """Find the living `Recomputed` that built and holds this very object.

    Args:
        value: Any object. It is compared by identity alone.

    Returns:
        The recipe, or None.
    """
    recomputed = _recipes.get(id(value))
    return recomputed if recomputed is not None and recomputed._value is value else None


def recipes_exist() -> bool:
    """Tell whether `recipe_of` can find a recipe for any value at all. Mostly it cannot."""
    return bool(_recipes)


def _remember(recomputed: Recomputed[Any], value: object) -> None:
    """Let `recipe_of` find the recipe of a value that weak references can point to; of others it is never asked."""
    with contextlib.suppress(TypeError):
        weakref.ref(value)
        _recipes[id(value)] = recomputed


@file_format
def rebuild_recomputed(cls: type[Recomputed[Any]] | None = None) -> Recomputed[Any]:
    """Build a `Recomputed`, or an instance of a subclass, that has no recipe yet; state follows."""
    return object.__new__(Recomputed if cls is None else cls)
