{
  "variables": {
    "addon_sources": [
      "addon/main.cc",
      "addon/arguments.cc",
      "addon/available-memory.cc",
      "addon/copy.cc",
      "addon/environment.cc",
      "addon/event-fd.cc",
      "addon/eventfd-adder.cc",
      "addon/fd-syscalls.cc",
      "addon/listener.cc",
      "addon/mapping.cc",
      "addon/memory.cc",
      "addon/peer-inode.cc",
      "addon/polled-fd.cc",
      "addon/small-file.cc",
      "addon/socket.cc",
      "addon/socket-wait.cc",
      "addon/vfio.cc"
    ],
    "addon_defines": [
      "NAPI_VERSION=9",
      "NAPI_CPP_EXCEPTIONS",
      "NODE_ADDON_API_DISABLE_DEPRECATED",
      "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
    ]
  }
}
