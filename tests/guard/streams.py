"""A file that is no more than `pickle.load` asks for."""

from __future__ import annotations

import io


class Stream:
    """A file that can only be read on."""

    def __init__(self, data: bytes) -> None:
        file = io.BytesIO(data)
        self.read, self.readline = file.read, file.readline
