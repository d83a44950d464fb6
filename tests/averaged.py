"""The model that the tests of engines send there and back: importable, as it must be in the workers."""

from __future__ import annotations

import weakref

import torch


class Averaged(torch.nn.Module):
    """A model with parent pointers and a moving average that refers to it weakly."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.layer.parent = weakref.ref(self)
        self.average = {weakref.ref(each): each.detach().clone() for each in self.parameters()}

    def is_whole(self) -> bool:
        owned = {id(each) for each in self.parameters()}
        return self.layer.parent() is self and {id(reference()) for reference in self.average} == owned
