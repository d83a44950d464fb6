"""The table of weak types: every room that has to know a type knows it."""

from __future__ import annotations

import pytest

from nodes import Node
from safepickle.weak_types import WEAK_TYPES, find_weak_type, weak_type_of
from weak_type_checks import WeakTypeChecks, name_of


@pytest.mark.parametrize("weak", [weak for weak in WEAK_TYPES if weak.module == "weakref"], ids=name_of)
class TestStandardTypes(WeakTypeChecks):
    pass


def test_an_ordinary_class_has_no_weak_type_and_says_so():
    assert find_weak_type(Node) is None
    with pytest.raises(TypeError, match=r"nodes\.Node is not a weak type"):
        weak_type_of(Node)


def test_a_class_that_borrows_the_name_of_a_weak_type_is_none_of_them():
    borrowed = type("WeakIdRef", (), {"__module__": "torch.utils.weak"})
    assert find_weak_type(borrowed) is None
