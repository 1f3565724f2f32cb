#!/usr/bin/env bash
# Sees to the system libraries that MuJoCo's off-screen rendering needs: installs them where missing and allowed,
# else names them. Does nothing on systems without apt.
set -euo pipefail
packages=(libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6)

have() { ldconfig -p 2>/dev/null | grep -q "$1"; }
if have libEGL.so.1 && have libOSMesa.so; then exit 0; fi
if ! command -v apt-get >/dev/null; then
  echo "note: off-screen rendering needs libEGL and libOSMesa; install your system's packages for them" >&2
  exit 0
fi
if [ "$(id -u)" = 0 ]; then sudo=(); elif sudo -n true 2>/dev/null; then sudo=(sudo -n); else
  echo "error: off-screen rendering needs system libraries and this user may not install them." >&2
  echo "       run: sudo apt-get install ${packages[*]}" >&2
  exit 1
fi
echo "installing ${packages[*]}"
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
