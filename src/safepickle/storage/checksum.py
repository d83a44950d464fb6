"""A checksum that travels inside a pickle, and that any other unpickler skips.

The header is itself a few opcodes: push a string, pop it. So ``pickle.load`` reads a file that carries one, several
such pickles may follow each other in one file, and a reader that knows the header can check the bytes against it before
it runs any of them. It guards against damage, not against malice: whoever can change the bytes can change the digest.

The header stands first rather than last so that a truncated or damaged pickle is recognised before it is begun, also
when it comes from a pipe. Its text is ASCII, because `pickle.loads` decodes a string of this opcode.
"""

from __future__ import annotations

import io
from typing import IO, Any, Literal, TypeAlias

from safepickle.load_errors import ChecksumError

__all__ = ["HEADER_SIZE", "ChecksumPolicy", "Digest", "check_buffer", "check_file", "check_policy"]

ChecksumPolicy: TypeAlias = Literal["check", "require", "ignore"]

_OPENING = b"\x80\x02U\x71"  # PROTO 2, SHORT_BINSTRING of the 113 bytes that follow
_MAGIC = b"safepickle checksum blake2b-256 "
_CLOSING = b"0"  # POP
_DIGEST_BYTES = 32
HEADER_SIZE = len(_OPENING) + len(_MAGIC) + 16 + 1 + 2 * _DIGEST_BYTES + len(_CLOSING)
"""Size of every header, in bytes."""

_CHUNK = 2**20


class Digest:
    """The running digest of the bytes of one pickle."""

    def __init__(self) -> None:
        # Not at the top: it draws in OpenSSL, which few programs that import safepickle need.
        import hashlib

        self._hash = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._length = 0

    def update(self, data: Any) -> None:
        """Take in bytes, or any other contiguous buffer."""
        self._hash.update(data)
        self._length += memoryview(data).nbytes

    def header(self) -> bytes:
        """Return the header for the bytes taken in so far."""
        return b"%b%b%016x %b%b" % (_OPENING, _MAGIC, self._length, self._hash.hexdigest().encode(), _CLOSING)


def check_policy(policy: Any) -> None:
    """Raise ``ValueError`` unless `policy` is a word that loads know."""
    if policy not in ("check", "require", "ignore"):
        raise ValueError(f"checksum={policy!r} is not known: pass 'check', 'require' or 'ignore'")


def check_buffer(data: Any, policy: ChecksumPolicy) -> Any:
    """Check a buffer against the checksum at its start.

    Returns:
        The buffer to load from: `data` itself, or a view of what follows the header.

    Raises:
        ChecksumError: It does not match, or the policy is ``"require"`` and there is none.
    """
    if policy != "check":
        check_policy(policy)
    header = None if policy == "ignore" else _parse(bytes(data[:HEADER_SIZE]))
    if header is None:
        _miss(policy)
        return data
    pickled = memoryview(data)[HEADER_SIZE:]
    digest = Digest()
    digest.update(pickled[: header[0]])
    _compare(header, digest)
    return pickled


def check_file(file: IO[bytes], policy: ChecksumPolicy) -> IO[bytes]:
    """Check a file against the checksum at its position.

    Args:
        file: Open for reading. A file that cannot seek is checked only under ``"require"``: the pickle
            then has to be kept in memory.
        policy: ``"check"``, ``"require"`` or ``"ignore"``.

    Returns:
        The file to load from: `file` itself, at its pickle, or what was read of it.

    Raises:
        ChecksumError: It does not match, or the policy is ``"require"`` and there is none.
    """
    check_policy(policy)
    seekable = getattr(file, "seekable", bool)()
    if policy == "ignore" or (policy == "check" and not seekable):
        return file
    start = file.tell() if seekable else 0
    header = _parse(file.read(HEADER_SIZE))
    if header is None:
        _miss(policy)
        file.seek(start)
        return file
    kept = None if seekable else io.BytesIO()
    digest = Digest()
    left = header[0]
    while left and (chunk := file.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
        if kept is not None:
            kept.write(chunk)
    _compare(header, digest)
    if kept is None:
        file.seek(start + HEADER_SIZE)
        return file
    kept.seek(0)
    return kept


def _parse(start: bytes) -> tuple[int, str] | None:
    """Return length and digest of the header that `start` begins with, or None where there is none.

    Two of the three magic words in their places decide whether there is one, so that damage to the bytes around them,
    or to a word itself, is not overlooked.
    """
    if (start[4:14] == b"safepickle") + (start[15:23] == b"checksum") + (start[24:35] == b"blake2b-256") < 2:
        return None
    length, space, digest = start[len(_OPENING) + len(_MAGIC) : -len(_CLOSING)].partition(b" ")
    try:
        header = int(length, 16), digest.decode("ascii")
    except ValueError:
        raise ChecksumError("header") from None
    rebuilt = b"%b%b%016x %b%b" % (_OPENING, _MAGIC, header[0], digest, _CLOSING)
    if not space or len(digest) != 2 * _DIGEST_BYTES or rebuilt != start:
        raise ChecksumError("header")
    return header


def _miss(policy: ChecksumPolicy) -> None:
    if policy == "require":
        raise ChecksumError("missing")


def _compare(header: tuple[int, str], digest: Digest) -> None:
    expected_length, expected_digest = header
    if digest._length < expected_length:
        raise ChecksumError("truncated", digest._length, expected_length)
    if digest._hash.hexdigest() != expected_digest:
        raise ChecksumError("mismatch")
