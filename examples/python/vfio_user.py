"""Drives a PCI device that a vfio-user server offers, from Python: `vfio-user rpc` behind a small typed class.

Needs Python 3.9 and nothing else; the program `vfio-user` is looked for on PATH, or named by VFIO_USER. With pytest the
fixture `vfio_device` opens the device that VFIO_USER_DEVICE names (and VFIO_USER_MAP, its register map), and closes it.

    with Device("/run/dev.sock", map="dma.svd") as device:
        device.registers["LENGTH"] = 64
        device.irq_enable("msix", 2)
        device.write_register("CTRL.START", 1)
        device.irq_wait("msix", 0, timeout_ms=100)
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import threading
from types import TracebackType
from typing import Any, Iterator, Mapping, Optional, Sequence, Type, Union

Region = Union[str, int]


class VfioUserError(Exception):
    """What the device, its server or the command line refused. `code` is stable: ETIMEDOUT, ERR_OUT_OF_RANGE, …"""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} [{code}]")
        self.code = code
        self.message = message


class VfioUserTimeout(VfioUserError):
    """Something did not come within its deadline."""


class Registers:
    """Registers and fields by their names: `device.registers["STATUS.READY"]`."""

    def __init__(self, device: "Device") -> None:
        self._device = device

    def __getitem__(self, name: str) -> int:
        return self._device.read_register(name)

    def __setitem__(self, name: str, value: int) -> None:
        self._device.write_register(name, value)


class DmaBuffer:
    """Memory that the device can reach at `iova`."""

    def __init__(self, device: "Device", number: int, iova: int, size: int) -> None:
        self._device = device
        self._number = number
        self.iova = iova
        self.size = size

    def read(self, offset: int = 0, length: Optional[int] = None) -> bytes:
        count = self.size - offset if length is None else length
        found = self._device.call("dmaRead", buffer=self._number, offset=offset, length=count)
        return base64.b64decode(str(found))

    def write(self, data: bytes, offset: int = 0) -> None:
        text = base64.b64encode(data).decode("ascii")
        self._device.call("dmaWrite", buffer=self._number, offset=offset, data=text)

    def free(self) -> None:
        self._device.call("dmaFree", buffer=self._number)


class Device:
    """A device, behind a process of its own that ends with it. Calls may come from several threads."""

    def __init__(
        self,
        endpoint: str,
        *,
        map: Optional[str] = None,
        options: Sequence[str] = (),
        enable: bool = True,
        command: Optional[Sequence[str]] = None,
    ) -> None:
        program = list(command or shlex.split(os.environ.get("VFIO_USER", "vfio-user")))
        names = [] if map is None else ["--map", map]
        self._process = subprocess.Popen(
            [*program, "rpc", *options, *names, "--", endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        # Of requests: the pipe may be full, and answers must be taken meanwhile.
        self._writing = threading.Lock()
        self._lock = threading.Lock()
        self._answered = threading.Condition(self._lock)
        self._answers: dict[int, Mapping[str, Any]] = {}
        self._last = 0
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.registers = Registers(self)
        try:
            self.info: Mapping[str, Any] = self.call("open", enable=enable)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Device":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the device and ends its process. Idempotent."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def call(self, method: str, **params: Any) -> Any:
        """Any method of docs/rpc.md. Raises VfioUserError."""
        given = {name: value for name, value in params.items() if value is not None}
        with self._lock:
            self._last += 1
            number = self._last
        self._send(json.dumps({"id": number, "method": method, "params": given}) + "\n")
        with self._lock:
            self._answered.wait_for(lambda: number in self._answers or self._ended)
            answer = self._answers.pop(number, None)
        if answer is None:
            raise VfioUserError("ERR_VFIO_USER_CLOSED", "vfio-user rpc ended before it answered")
        if "error" in answer:
            code, message = str(answer["error"]["code"]), str(answer["error"]["message"])
            raise (VfioUserTimeout if code == "ETIMEDOUT" else VfioUserError)(code, message)
        return answer["result"]

    def read(self, region: Region, offset: int, width: int = 4) -> int:
        return _integer(self.call("read", region=region, offset=offset, width=width))

    def write(self, region: Region, offset: int, value: int, width: int = 4) -> None:
        self.call("write", region=region, offset=offset, width=width, value=_json(value))

    def read_bytes(self, region: Region, offset: int, length: int) -> bytes:
        found = self.call("readBytes", region=region, offset=offset, length=length)
        return base64.b64decode(str(found))

    def write_bytes(self, region: Region, offset: int, data: bytes) -> None:
        text = base64.b64encode(data).decode("ascii")
        self.call("writeBytes", region=region, offset=offset, data=text)

    def wait_for(
        self,
        region: Region,
        offset: int,
        value: int,
        *,
        mask: Optional[int] = None,
        width: int = 4,
        timeout_ms: int = 5000,
    ) -> int:
        """Reads until the bits of `mask` are `value`; what was read last."""
        bits = None if mask is None else _json(mask)
        params = {"region": region, "offset": offset, "width": width, "mask": bits}
        return _integer(self.call("waitFor", **params, value=_json(value), timeoutMs=timeout_ms))

    def read_register(self, name: str) -> int:
        return _integer(self.call("read", register=name))

    def write_register(self, name: str, value: int) -> None:
        """Writes a register or a field; other fields of a field's register stay as they are."""
        self.call("write", register=name, value=_json(value))

    def modify(self, register: str, **fields: int) -> None:
        """Writes these fields, and leaves the others of the register as they are."""
        self.call("modify", register=register, fields={name: _json(value) for name, value in fields.items()})

    def wait_register(self, name: str, value: int, *, timeout_ms: int = 5000) -> None:
        self.call("waitFor", register=name, value=_json(value), timeoutMs=timeout_ms)

    def reset(self) -> None:
        self.call("reset")

    def irq_enable(self, type: str, count: int = 1) -> int:
        """Enables `intx`, `msi` or `msix`; how many vectors there are."""
        return int(self.call("irqEnable", type=type, count=count))

    def irq_disable(self, type: str) -> None:
        self.call("irqDisable", type=type)

    def irq_wait(self, type: str, vector: int = 0, *, timeout_ms: int = 5000) -> int:
        """How many interrupts have come, one at least. Raises VfioUserTimeout where none comes in time."""
        return int(self.call("irqWait", type=type, vector=vector, timeoutMs=timeout_ms))

    def irq_take(self, type: str, vector: int = 0) -> int:
        """How many interrupts have come since they were taken last."""
        return int(self.call("irqTake", type=type, vector=vector))

    def dma_alloc(self, size: int, *, address_bits: Optional[int] = None) -> DmaBuffer:
        made = self.call("dmaAlloc", size=size, addressBits=address_bits)
        return DmaBuffer(self, int(made["buffer"]), _integer(made["iova"]), int(made["size"]))

    def _send(self, line: str) -> None:
        stdin = self._process.stdin
        with self._writing:
            if self._ended or stdin is None or stdin.closed:
                raise VfioUserError("ERR_VFIO_USER_CLOSED", "vfio-user rpc has ended")
            try:
                stdin.write(line)
                stdin.flush()
            except (BrokenPipeError, ValueError) as error:
                raise VfioUserError("ERR_VFIO_USER_CLOSED", "vfio-user rpc has ended") from error

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                answer = json.loads(line)
                with self._lock:
                    if isinstance(answer.get("id"), int):
                        self._answers[answer["id"]] = answer
                    self._answered.notify_all()
        except ValueError:
            # What came is no answer, or the pipe was closed: nobody is to wait for more.
            pass
        finally:
            with self._lock:
                self._ended = True
                self._answered.notify_all()


def _integer(value: Union[int, str]) -> int:
    return int(value, 0) if isinstance(value, str) else int(value)


def _json(value: int) -> Union[int, str]:
    """JSON's numbers hold 53 bits for the program that reads them."""
    return value if value < 2**53 else hex(value)


try:
    import pytest
except ImportError:
    pass
else:

    @pytest.fixture
    def vfio_device() -> Iterator[Device]:
        """The device that VFIO_USER_DEVICE names, open for one test."""
        endpoint = os.environ.get("VFIO_USER_DEVICE")
        if endpoint is None:
            pytest.skip("VFIO_USER_DEVICE names no device")
        with Device(endpoint, map=os.environ.get("VFIO_USER_MAP")) as device:
            yield device
