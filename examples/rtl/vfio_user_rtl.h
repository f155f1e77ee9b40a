// The simulator's side of vfio-user's RTL protocol (docs/rtl.md), for any simulator that C++ drives. It has no dependencies
// but POSIX sockets: copy it.
//
//   class MyDevice : public rtl::Device { ... };   // moves the pins
//   rtl::Bridge bridge(socketPath);
//   MyDevice device(bridge);
//   bridge.serve(device);                          // returns when the bridge says BYE, or has gone
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace rtl {

enum Type : uint8_t {
  WELCOME = 0x01,
  READ = 0x02,
  WRITE = 0x03,
  RUN = 0x04,
  RESET = 0x05,
  BYE = 0x06,
  HELLO = 0x11,
  DMA_READ = 0x12,
  DMA_WRITE = 0x13,
  INTERRUPT = 0x14,
  ANSWER = 0x80,
};

enum Status : uint8_t { OK = 0, ERROR = 1, TIMEOUT = 2 };

/** A part of an access that the bus carries at once. */
struct Beat {
  bool isWrite;
  uint8_t region;   // the BAR
  uint8_t strobes;  // a bit for each byte that is meant
  uint64_t offset;  // of the first lane
  uint64_t data;    // written, or where what was read goes
  uint32_t cycles;  // how many it may take
};

/** What moves the pins. */
class Device {
 public:
  virtual ~Device() = default;
  virtual Status access(Beat& beat) = 0;
  virtual void reset() = 0;
  /** One cycle of the clock. Host memory and interrupts that the device asks for are done in it. */
  virtual void tick() = 0;
  /** Whether nothing would happen if the clock went on. */
  virtual bool isIdle() const = 0;
  /** Simulated time in picoseconds. */
  virtual uint64_t time() const = 0;
};

class Bridge {
 public:
  static constexpr uint32_t kMostDmaBytes = 4096;

  explicit Bridge(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (fd_ < 0 || path.size() >= sizeof(address.sun_path)) throw std::runtime_error("no socket " + path);
    memcpy(address.sun_path, path.c_str(), path.size());
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
      throw std::runtime_error("connect " + path + ": " + strerror(errno));
  }
  ~Bridge() { close(fd_); }
  Bridge(const Bridge&) = delete;
  Bridge& operator=(const Bridge&) = delete;

  /** Reads host memory; false where there is none. At most kMostDmaBytes. */
  bool readHost(uint64_t address, uint8_t* bytes, uint32_t length) {
    Frame answer = host(DMA_READ, address, nullptr, length);
    if (answer.status != OK || answer.payload.size() != length) return false;
    memcpy(bytes, answer.payload.data(), length);
    return true;
  }

  /** Writes host memory; false where that is not possible. At most kMostDmaBytes. */
  bool writeHost(uint64_t address, const uint8_t* bytes, uint32_t length) {
    return host(DMA_WRITE, address, bytes, length).status == OK;
  }

  /** Raises or lowers a vector. */
  void interrupt(uint32_t vector, bool level) {
    std::vector<uint8_t> payload;
    put(payload, vector, 4);
    put(payload, level ? 1 : 0, 4);
    send(INTERRUPT, OK, payload);
  }

  /** Does what the bridge asks for, one thing after the other. */
  void serve(Device& device) {
    device_ = &device;
    std::vector<uint8_t> hello = {'V', 'R', 'T', 'L', 1, 0, 0, 0};
    send(HELLO, OK, hello);
    Frame frame;
    while (receive(frame) && frame.type != BYE) carryOut(device, frame);
  }

 private:
  struct Frame {
    uint8_t type = 0;
    uint8_t status = 0;
    std::vector<uint8_t> payload;
  };
  static constexpr size_t kHeader = 16;
  static constexpr size_t kLargest = 4096 + 32;

  void carryOut(Device& device, const Frame& frame) {
    std::vector<uint8_t> result;
    Status status = OK;
    switch (frame.type) {
      case WELCOME:
        return;  // what the device is: it knows that itself
      case READ:
      case WRITE: {
        Beat beat = {frame.type == WRITE,
                     uint8_t(get(frame, 0, 1)),
                     uint8_t(get(frame, 1, 1)),
                     get(frame, 8, 8),
                     0,
                     uint32_t(get(frame, 4, 4))};
        if (beat.isWrite) beat.data = get(frame, 16, 8);
        status = device.access(beat);
        if (!beat.isWrite && status == OK) put(result, beat.data, 8);
        break;
      }
      case RUN: {
        const uint32_t most = uint32_t(get(frame, 0, 4));
        const bool untilIdle = get(frame, 4, 4) != 0;
        uint32_t cycles = 0;
        while (cycles < most) {
          device.tick();
          ++cycles;
          if (untilIdle && device.isIdle()) break;
        }
        put(result, cycles, 4);
        put(result, device.isIdle() ? 1 : 0, 4);
        break;
      }
      case RESET:
        device.reset();
        break;
      default:
        throw std::runtime_error("the bridge sent a frame of unknown type " + std::to_string(frame.type));
    }
    send(uint8_t(frame.type | ANSWER), status, result);
  }

  Frame host(uint8_t type, uint64_t address, const uint8_t* bytes, uint32_t length) {
    if (length == 0 || length > kMostDmaBytes)
      throw std::runtime_error("1 to 4096 bytes of host memory at once");
    std::vector<uint8_t> payload;
    put(payload, address, 8);
    put(payload, length, 4);
    put(payload, 0, 4);
    if (bytes != nullptr) payload.insert(payload.end(), bytes, bytes + length);
    send(type, OK, payload);
    Frame answer;
    if (!receive(answer)) throw std::runtime_error("the bridge has gone");
    if (answer.type != (type | ANSWER)) throw std::runtime_error("the bridge did not answer DMA");
    return answer;
  }

  void send(uint8_t type, uint8_t status, const std::vector<uint8_t>& payload) {
    std::vector<uint8_t> bytes;
    put(bytes, kHeader + payload.size(), 4);
    put(bytes, type, 1);
    put(bytes, status, 1);
    put(bytes, 0, 2);
    put(bytes, device_->time(), 8);
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t sent = ::send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (sent < 0 && errno != EINTR) throw std::runtime_error(std::string("send: ") + strerror(errno));
      if (sent > 0) done += size_t(sent);
    }
  }

  /** False where the bridge has gone. */
  bool receive(Frame& frame) {
    uint8_t header[kHeader];
    if (!fill(header, kHeader)) return false;
    const uint64_t size = number(header, 4);
    if (size < kHeader || size > kLargest)
      throw std::runtime_error("the bridge sent a frame of a size that none has");
    frame.type = header[4];
    frame.status = header[5];
    frame.payload.resize(size - kHeader);
    return fill(frame.payload.data(), frame.payload.size());
  }

  bool fill(uint8_t* bytes, size_t length) {
    while (length > 0) {
      const ssize_t got = recv(fd_, bytes, length, 0);
      if (got == 0) return false;
      if (got < 0 && errno != EINTR) throw std::runtime_error(std::string("recv: ") + strerror(errno));
      if (got > 0) {
        bytes += got;
        length -= size_t(got);
      }
    }
    return true;
  }

  static uint64_t number(const uint8_t* bytes, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) value |= uint64_t(bytes[i]) << (8 * i);
    return value;
  }
  static uint64_t get(const Frame& frame, size_t at, size_t width) {
    if (at + width > frame.payload.size())
      throw std::runtime_error("the bridge sent a frame that is too short");
    return number(frame.payload.data() + at, width);
  }
  static void put(std::vector<uint8_t>& bytes, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++) bytes.push_back(uint8_t(value >> (8 * i)));
  }

  int fd_;
  Device* device_ = nullptr;
};

}  // namespace rtl
