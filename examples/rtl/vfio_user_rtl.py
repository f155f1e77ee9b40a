"""The simulator's side of vfio-user's RTL protocol (docs/rtl.md), for cocotb or any simulator that Python drives.

It needs the standard library alone: copy it. A device has `access`, `reset` and `tick`, which may be coroutines that move
the pins, and `is_idle` and `time`:

    bridge = Bridge(os.environ["VFIO_USER_RTL_SOCKET"])
    await bridge.serve(MyDevice(dut, bridge))    # returns when the bridge says BYE, or has gone
"""

import socket
import struct
from dataclasses import dataclass
from typing import Optional, Protocol

WELCOME, READ, WRITE, RUN, RESET, BYE = 1, 2, 3, 4, 5, 6
HELLO, DMA_READ, DMA_WRITE, INTERRUPT = 0x11, 0x12, 0x13, 0x14
ANSWER = 0x80
OK, ERROR, TIMEOUT = 0, 1, 2
MOST_DMA_BYTES = 4096

_HEADER = struct.Struct("<IBBHQ")
_LARGEST = 4096 + 32


@dataclass
class Beat:
    """A part of an access that the bus carries at once."""

    is_write: bool
    region: int  # the BAR
    strobes: int  # a bit for each byte that is meant
    offset: int  # of the first lane
    data: int  # written, or where what was read goes
    cycles: int  # how many it may take


class Device(Protocol):
    """What moves the pins."""

    async def access(self, beat: Beat) -> int:
        """OK, ERROR, or TIMEOUT where the device is not ready in `beat.cycles`."""

    async def reset(self) -> None: ...

    async def tick(self) -> None:
        """One cycle of the clock. Host memory and interrupts that the device asks for are done in it."""

    def is_idle(self) -> bool:
        """Whether nothing would happen if the clock went on."""

    def time(self) -> int:
        """Simulated time in picoseconds."""


class Bridge:
    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(path)
        self._device: Optional[Device] = None

    def read_host(self, address: int, length: int) -> Optional[bytes]:
        """Reads at most MOST_DMA_BYTES of host memory; None where there is none."""
        status, data = self._host(DMA_READ, address, length)
        return data if status == OK and len(data) == length else None

    def write_host(self, address: int, data: bytes) -> bool:
        """Writes at most MOST_DMA_BYTES of host memory; False where that is not possible."""
        return self._host(DMA_WRITE, address, len(data), data)[0] == OK

    def interrupt(self, vector: int, level: bool) -> None:
        """Raises or lowers a vector."""
        self._send(INTERRUPT, struct.pack("<II", vector, int(level)))

    async def serve(self, device: Device) -> None:
        """Does what the bridge asks for, one thing after the other."""
        self._device = device
        self._send(HELLO, b"VRTL" + struct.pack("<I", 1))
        while (frame := self._receive()) is not None:
            kind, _, payload = frame
            if kind == BYE:
                return
            if kind != WELCOME:  # what the device is: it knows that itself
                await self._carry_out(device, kind, payload)

    async def _carry_out(self, device: Device, kind: int, payload: bytes) -> None:
        status, result = OK, b""
        if kind in (READ, WRITE):
            region, strobes, _, cycles, offset = struct.unpack_from("<BBHIQ", payload)
            data = struct.unpack_from("<Q", payload, 16)[0] if kind == WRITE else 0
            beat = Beat(kind == WRITE, region, strobes, offset, data, cycles)
            status = await device.access(beat)
            if kind == READ and status == OK:
                result = struct.pack("<Q", beat.data)
        elif kind == RUN:
            most, until_idle = struct.unpack("<II", payload)
            cycles = 0
            while cycles < most:
                await device.tick()
                cycles += 1
                if until_idle and device.is_idle():
                    break
            result = struct.pack("<II", cycles, int(device.is_idle()))
        elif kind == RESET:
            await device.reset()
        else:
            raise ValueError(f"the bridge sent a frame of unknown type {kind}")
        self._send(kind | ANSWER, result, status)

    def _host(self, kind: int, address: int, length: int, data: bytes = b"") -> tuple[int, bytes]:
        if not 1 <= length <= MOST_DMA_BYTES:
            raise ValueError(f"1 to {MOST_DMA_BYTES} bytes of host memory at once, not {length}")
        self._send(kind, struct.pack("<QII", address, length, 0) + data)
        answer = self._receive()
        if answer is None:
            raise ConnectionError("the bridge has gone")
        if answer[0] != kind | ANSWER:
            raise ValueError("the bridge did not answer DMA")
        return answer[1], answer[2]

    def _send(self, kind: int, payload: bytes, status: int = OK) -> None:
        header = _HEADER.pack(_HEADER.size + len(payload), kind, status, 0, self._device.time())
        self._socket.sendall(header + payload)

    def _receive(self) -> Optional[tuple[int, int, bytes]]:
        header = self._fill(_HEADER.size)
        if header is None:
            return None
        size, kind, status, _, _ = _HEADER.unpack(header)
        if not _HEADER.size <= size <= _LARGEST:
            raise ValueError(f"the bridge sent a frame of {size} bytes")
        payload = self._fill(size - _HEADER.size)
        return None if payload is None else (kind, status, payload)

    def _fill(self, length: int) -> Optional[bytes]:
        """None where the bridge has gone."""
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if part == b"":
                return None
            data += part
        return data
