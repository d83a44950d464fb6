"""How Keras objects are pickled, and how to choose.

Keras objects need nothing switched on: `safepickle.dumps` finds them by their module. There are two routes.

``"graph"``, the default, pickles the object graph itself. Custom classes travel as every other class does (by name
where the other side can import it, else by value), no ``get_config`` is called, and everything reachable survives:
attributes outside the config, weak references, layers shared by several models, the state of optimizer, metrics and
seed generators. It leans on the inside of Keras, so write and read with the same minor version of Keras and the same
backend.

``"archive"`` leaves each object to Keras's own ``__reduce__``: a ``.keras`` archive of config and weights. It loads
under another backend and other versions of Keras, and carries what a config can say and no more.

Where the inside of the installed Keras is not what the graph route expects, objects take the archive with a
`KerasFallbackWarning`.
"""

from __future__ import annotations

from safepickle.errors import KerasFallbackWarning
from safepickle.load_errors import KerasVersionWarning
from safepickle.rebuild.keras_internals import misfit
from safepickle.reducers.keras import Route, current_route, use_route

__all__ = ["KerasFallbackWarning", "KerasVersionWarning", "Route", "current_route", "misfit", "use_route"]
