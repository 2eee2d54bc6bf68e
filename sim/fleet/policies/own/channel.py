"""Messages between ersatz and a scheduler's process, over a pair of sockets.

ersatz pickles what it tells. What it hears is JSON, for a pickle could make it run anything.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
import time
from typing import Any

MOST_BYTES = 16 * 2**20  # of an answer
_LENGTH = struct.Struct("!I")


class ChannelError(Exception):
    """The other end does not answer, or not with a message; says why, as a clause."""


class Channel:
    """One end. `limit_s`: how long the other may take to hear or to answer; 0: for ever."""

    def __init__(self, end: socket.socket, limit_s: float = 0.0) -> None:
        self.end, self.limit_s = end, limit_s

    def tell(self, message: object) -> None:
        """Send what ersatz has to say."""
        self._send(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def hear(self) -> Any:
        """Receive what ersatz has to say."""
        return pickle.loads(self._receive(1 << 40))

    def answer(self, message: object) -> None:
        """Send an answer to ersatz; raises `TypeError` or `ValueError` for what JSON cannot hold."""
        self._send(json.dumps(message, separators=(",", ":")).encode())

    def answered(self) -> dict[str, Any]:
        """Receive an answer; raises `ChannelError`."""
        raw = self._receive(MOST_BYTES)
        try:
            message = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ChannelError(f"answered nonsense: {error}") from None
        if not isinstance(message, dict):
            raise ChannelError("answered nonsense: no message")
        return message

    def _send(self, data: bytes) -> None:
        self.end.settimeout(self.limit_s or None)
        try:
            self.end.sendall(_LENGTH.pack(len(data)) + data)
        except TimeoutError:
            raise ChannelError(f"hangs: it does not listen for {self.limit_s:g} s") from None
        except OSError:
            raise ChannelError("ended") from None

    def _receive(self, most: int) -> bytes:
        until = time.monotonic() + self.limit_s
        (length,) = _LENGTH.unpack(self._take(_LENGTH.size, until))
        if length > most:
            raise ChannelError(f"answered {length:,} bytes; expected at most {most:,}")
        return self._take(length, until)

    def _take(self, size: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            self.end.settimeout(max(until - time.monotonic(), 1e-3) if self.limit_s else None)
            try:
                part = self.end.recv(min(size - len(data), 2**20))
            except TimeoutError:
                raise ChannelError(f"hangs: no answer in {self.limit_s:g} s") from None
            except OSError:
                part = b""
            if not part:
                raise ChannelError("ended")
            data += part
        return bytes(data)
