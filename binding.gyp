{
  "includes": [ "addon/sources.gypi" ],
  "targets": [{
    "target_name": "vfio_user",
    "sources": [ "<@(addon_sources)" ],
    "defines": [ "<@(addon_defines)" ],
    "include_dirs": [ "<!(node -p \"require('node-addon-api').include_dir\")" ],
    "cflags!": [ "-fno-exceptions" ],
    "cflags_cc!": [ "-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20" ],
    "cflags_cc": [ "-std=c++20", "-fvisibility=hidden", "-Wall", "-Wextra" ]
  }]
}
