"""How `safepickle.deepcopy` walks: `memo` (what one copy knows), `strong` and `weak` (how each type is copied).

Nothing here pickles: the rooms of the pickler and of the copier share the meaning of *kept* and no code path.
"""
