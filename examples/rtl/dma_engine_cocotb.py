"""The DMA engine in cocotb (on Icarus Verilog), behind vfio-user. engine.ts says how it is started."""

import os

import cocotb
from cocotb.triggers import Timer
from cocotb.utils import get_sim_time

from vfio_user_rtl import ERROR, OK, TIMEOUT, Beat, Bridge

QUARTER = 2500  # of a period, in picoseconds: 100 MHz


class DmaEngine:
    def __init__(self, dut, bridge: Bridge) -> None:
        self.dut = dut
        self.bridge = bridge
        self.irq = 0
        for name in ("clk", "reset", "bus_valid", "bus_write", "bus_word", "bus_strobes", "bus_wdata"):
            getattr(dut, name).value = 0
        for name in ("dma_ready", "dma_rdata", "dma_error"):
            getattr(dut, name).value = 0

    async def access(self, beat: Beat) -> int:
        """Valid until the edge at which ready is seen."""
        if beat.region != 0 or beat.offset >= 4096:
            return ERROR
        self.dut.bus_valid.value = 1
        self.dut.bus_write.value = int(beat.is_write)
        self.dut.bus_word.value = beat.offset // 4
        self.dut.bus_strobes.value = beat.strobes & 0xF
        self.dut.bus_wdata.value = beat.data & 0xFFFF_FFFF
        status = TIMEOUT
        for _ in range(beat.cycles):
            await self.tick()
            if self.ready:
                status, beat.data = OK, self.rdata
                break
        self.dut.bus_valid.value = 0
        return status

    async def reset(self) -> None:
        self.dut.reset.value = 1
        await self.tick()
        await self.tick()
        self.dut.reset.value = 0

    async def tick(self) -> None:
        await Timer(QUARTER, "ps")  # what was set has settled
        in_reset = bool(self.dut.reset.value)
        self.ready = bool(self.dut.bus_ready.value)
        self.rdata = 0 if in_reset else int(self.dut.bus_rdata.value)
        if not in_reset and self.dut.dma_valid.value:
            self.host_memory()
        await Timer(QUARTER, "ps")
        self.dut.clk.value = 1
        await Timer(2 * QUARTER, "ps")
        self.dut.clk.value = 0
        self.dut.dma_ready.value = 0
        irq = int(self.dut.irq.value)
        for vector in range(2):
            if (irq ^ self.irq) >> vector & 1:
                self.bridge.interrupt(vector, bool(irq >> vector & 1))
        self.irq = irq

    def host_memory(self) -> None:
        """What the device asks for is there at the next edge: host memory takes no simulated time."""
        address, length = int(self.dut.dma_address.value), int(self.dut.dma_bytes.value)
        if self.dut.dma_write.value:
            data = int(self.dut.dma_wdata.value).to_bytes(8, "little")
            is_there = self.bridge.write_host(address, data[:length])
        else:
            data = self.bridge.read_host(address, length)
            is_there = data is not None
            self.dut.dma_rdata.value = int.from_bytes(data or b"", "little")
        self.dut.dma_ready.value = 1
        self.dut.dma_error.value = int(not is_there)

    def is_idle(self) -> bool:
        return not self.dut.busy.value and self.irq == 0

    def time(self) -> int:
        return int(get_sim_time("ps"))


@cocotb.test()
async def bridge(dut):
    """Not a test: it serves the device until the bridge is done."""
    link = Bridge(os.environ["VFIO_USER_RTL_SOCKET"])
    await link.serve(DmaEngine(dut, link))
