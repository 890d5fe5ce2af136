"""Early writeback: tells the kernel to start writing a file's dirty pages, without waiting for them.

The flush that follows then finds little left to do. This is advice: it makes nothing durable, and an
error of the disk shows at that flush, as it does for pages that the kernel wrote by itself.
"""

import ctypes
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2


def _system_call() -> Callable[[int, int, int, int], int] | None:
    """sync_file_range(2), where the C library has it (Linux)."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is None:
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


_sync_file_range = _system_call()


def begin_writeback(descriptor: int, offset: int, length: int) -> None:
    """Start to write `length` bytes from `offset` on; call it in a thread, since a full queue of the
    disk makes it wait."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)
