"""The edu device of `vfio-user emulate edu`, or QEMU's: run by pytest, with VFIO_USER_DEVICE set."""

from __future__ import annotations

import pytest

from vfio_user import Device, VfioUserError, VfioUserTimeout, vfio_device

__all__ = ["vfio_device"]


def test_identification(vfio_device: Device) -> None:
    assert (vfio_device.info["vendorId"], vfio_device.info["deviceId"]) == (0x1234, 0x11E8)
    assert vfio_device.registers["ID"] & 0xFF == 0xED
    vfio_device.registers["LIVENESS"] = 0x12345678
    assert vfio_device.registers["LIVENESS"] == 0xEDCBA987


def test_interrupt_within_its_deadline(vfio_device: Device) -> None:
    vfio_device.irq_enable("msi", 1)
    vfio_device.write_register("RAISE", 1)
    assert vfio_device.irq_wait("msi", timeout_ms=5000) >= 1
    vfio_device.registers["ACKNOWLEDGE"] = 1
    with pytest.raises(VfioUserTimeout):
        vfio_device.irq_wait("msi", timeout_ms=50)


def test_dma(vfio_device: Device) -> None:
    buffer = vfio_device.dma_alloc(4096, address_bits=28)
    buffer.write(b"hello, device")
    for name, value in (("DMA_SOURCE", buffer.iova), ("DMA_TARGET", 0x40000), ("DMA_COUNT", 13)):
        vfio_device.write_register(name, value)
    vfio_device.write_register("DMA_COMMAND.START", 1)
    vfio_device.wait_register("DMA_COMMAND.START", 0)
    buffer.write(bytes(13))
    for name, value in (("DMA_SOURCE", 0x40000), ("DMA_TARGET", buffer.iova), ("DMA_COUNT", 13)):
        vfio_device.write_register(name, value)
    vfio_device.modify("DMA_COMMAND", START=1, FROM_DEVICE=1)
    vfio_device.wait_for("bar0", 0x98, 0, mask=1)
    assert buffer.read(0, 13) == b"hello, device"
    buffer.free()


def test_errors_have_codes(vfio_device: Device) -> None:
    with pytest.raises(VfioUserError) as refused:
        vfio_device.read("bar0", 1 << 40)
    assert refused.value.code == "ERR_OUT_OF_RANGE"
    with pytest.raises(VfioUserError) as unknown:
        vfio_device.call("raed")
    assert unknown.value.code == "ERR_VFIO_USER_RPC"
