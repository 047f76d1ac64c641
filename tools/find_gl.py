"""Prints which off-screen GL works here, EGL or OSMesa; exits 1 where neither does. Standard library only."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Callable

EGL_PLATFORM_DEVICE = 0x313F


def egl() -> bool:
    """True where a device initialises: a library that loads may still have no driver behind it."""
    lib = ctypes.CDLL("libEGL.so.1")
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    lib.eglGetProcAddress.restype = pointer
    lib.eglInitialize.argtypes = [pointer] * 3

    def extension(name: bytes, *kinds: type) -> ctypes._CFuncPtr:
        return ctypes.CFUNCTYPE(*kinds)(lib.eglGetProcAddress(name))

    query = extension(b"eglQueryDevicesEXT", integer, integer, pointer, pointer)
    display = extension(b"eglGetPlatformDisplayEXT", pointer, integer, pointer, pointer)
    devices, count = (pointer * 16)(), integer()
    query(len(devices), devices, ctypes.byref(count))
    displays = [display(EGL_PLATFORM_DEVICE, device, None) for device in devices[: count.value]]
    return any(lib.eglInitialize(d, None, None) for d in displays)


def osmesa() -> bool:
    """True where the library is there; it needs no driver."""
    name = ctypes.util.find_library("OSMesa")
    return name is not None and bool(ctypes.CDLL(name))


def works(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except (AttributeError, OSError):
        return False


if __name__ == "__main__":
    for name, look in {"EGL": egl, "OSMesa": osmesa}.items():
        if works(look):
            print(name)
            sys.exit(0)
    sys.exit(1)
