// The DMA engine in Verilator, behind vfio-user:
//
//   verilator --cc --exe --build --trace dma_engine.v dma_engine_sim.cc
//   obj_dir/Vdma_engine SOCKET [WAVEFORM.vcd]
#include <verilated.h>
#include <verilated_vcd_c.h>

#include <cstdio>
#include <memory>

#include "Vdma_engine.h"
#include "vfio_user_rtl.h"

/** Half a period of the clock, in picoseconds: 100 MHz. */
static constexpr uint64_t kHalfPeriod = 5000;

class DmaEngine : public rtl::Device {
 public:
  DmaEngine(rtl::Bridge& bridge, const char* waveform) : bridge_(bridge), top_(&context_) {
    if (waveform == nullptr) return;
    context_.traceEverOn(true);
    trace_ = std::make_unique<VerilatedVcdC>();
    top_.trace(trace_.get(), 99);
    trace_->open(waveform);
  }
  ~DmaEngine() override {
    if (trace_) trace_->close();
  }

  /** Valid until the edge at which ready is seen. */
  rtl::Status access(rtl::Beat& beat) override {
    if (beat.region != 0 || beat.offset >= 4096) return rtl::ERROR;
    top_.bus_valid = 1;
    top_.bus_write = beat.isWrite;
    top_.bus_word = uint16_t(beat.offset / 4);
    top_.bus_strobes = beat.strobes & 0xf;
    top_.bus_wdata = uint32_t(beat.data);
    rtl::Status status = rtl::TIMEOUT;
    for (uint32_t cycle = 0; cycle < beat.cycles && status == rtl::TIMEOUT; ++cycle) {
      top_.eval();
      if (top_.bus_ready) {
        status = rtl::OK;
        beat.data = top_.bus_rdata;
      }
      tick();
    }
    top_.bus_valid = 0;
    return status;
  }

  void reset() override {
    top_.reset = 1;
    tick();
    tick();
    top_.reset = 0;
  }

  void tick() override {
    top_.eval();
    hostMemory();
    half(1);
    half(0);
    top_.dma_ready = 0;
    for (uint32_t vector = 0; vector < 2; ++vector) {
      const uint32_t bit = 1u << vector;
      if (((top_.irq ^ irq_) & bit) != 0) bridge_.interrupt(vector, (top_.irq & bit) != 0);
    }
    irq_ = top_.irq;
  }

  bool isIdle() const override { return !top_.busy && top_.irq == 0; }
  uint64_t time() const override { return time_; }

 private:
  /** What the device asks for is there at the next edge: host memory takes no simulated time. */
  void hostMemory() {
    if (!top_.dma_valid || top_.reset) return;
    uint8_t bytes[8] = {};
    bool isThere = false;
    if (top_.dma_write) {
      for (int i = 0; i < 8; ++i) bytes[i] = uint8_t(top_.dma_wdata >> (8 * i));
      isThere = bridge_.writeHost(top_.dma_address, bytes, top_.dma_bytes);
    } else {
      isThere = bridge_.readHost(top_.dma_address, bytes, top_.dma_bytes);
      top_.dma_rdata = 0;
      for (int i = 0; i < 8; ++i) top_.dma_rdata |= uint64_t(bytes[i]) << (8 * i);
    }
    top_.dma_ready = 1;
    top_.dma_error = !isThere;
  }

  void half(int level) {
    time_ += kHalfPeriod;
    top_.clk = uint8_t(level);
    top_.eval();
    if (trace_) trace_->dump(time_);
  }

  rtl::Bridge& bridge_;
  VerilatedContext context_;
  Vdma_engine top_;
  std::unique_ptr<VerilatedVcdC> trace_;
  uint64_t time_ = 0;
  uint32_t irq_ = 0;
};

int main(int argc, char** argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s SOCKET [WAVEFORM.vcd]\n", argv[0]);
    return 2;
  }
  try {
    rtl::Bridge bridge(argv[1]);
    DmaEngine engine(bridge, argc > 2 ? argv[2] : nullptr);
    bridge.serve(engine);
    return 0;
  } catch (const std::exception& error) {
    fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
}
