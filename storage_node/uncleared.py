"""Memory for bytes that a system call is about to write: without first writing zeros into it."""

from typing import Any

import cffi

CLEARED_SIZE_BYTES_MAX = 16 << 10
"""Up to here a bytearray is made sooner than it matters."""

_ffi = cffi.FFI()
_new: Any = _ffi.new_allocator(should_clear_after_alloc=False)


def buffer_of(size_bytes: int) -> bytearray | memoryview:
    """A writable buffer of that size. What it holds is not defined until it has been written."""
    if size_bytes <= CLEARED_SIZE_BYTES_MAX:
        return bytearray(size_bytes)
    return memoryview(_ffi.buffer(_new("unsigned char[]", size_bytes)))
