"""Many calls of C functions in one, so that neither Python nor its lock stands between two of them.

A network of 60 calls, each 20 microseconds long, would otherwise wait for Python 60 times; and beside a thread of Python's that
computes, such as one that decodes images, each return from C waits for the interpreter's lock up to five milliseconds.
"""
import ctypes
import mmap
import platform
import sys

import numpy as np

__all__ = ["Calls", "address_of", "task_address"]

#: x86-64, System V: for each of `count` rows (function, a, b, c, d) at `rows`, call function(a, b, c, d) until one returns other
#: than zero, which is the result.
_LOOP = bytes.fromhex("53 4154 4155"        # push rbx, r12, r13: the stack is aligned for calls
                      "4889fb 4989f4"       # rbx = rows, r12 = count
                      "31c0"                # the result is zero
                      "4d85e4 741f"         # next: no row is left: end
                      "488b7b08 488b7310 488b5318 488b4b20"  # the arguments
                      "ff13"                # call
                      "85c0 7509"           # other than zero: end
                      "4883c328 49ffcc ebdc"  # the next row
                      "415d 415c 5b c3")    # end: restore and return
#: As MXNet's engine calls: task(not read, where), of {rows, count, failed} there; failed(where, result) unless that is zero.
_TASK = bytes.fromhex("56"                  # push where
                      "488b3e 488b7608"     # rows, count
                      "e80b000000"          # call the loop, which follows
                      "5f"                  # pop where
                      "85c0 7501 c3"        # zero: return
                      "89c6 ff6710") + _LOOP  # failed(where, result) in this one's place
_code = None


def _machine_code():
    """(the loop as a C function, the task's address), or None where this processor or system runs no code that a program made."""
    global _code
    if _code is None:
        _code = False
        if platform.machine() in ("x86_64", "AMD64") and sys.platform.startswith("linux"):
            try:
                page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            except OSError:  # A system that forbids it.
                return None
            page.write(_TASK)
            task = ctypes.addressof(ctypes.c_char.from_buffer(page))
            loop = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(task + len(_TASK) - len(_LOOP))
            _code = loop, task, page
    return _code or None


def task_address():
    """The address of a C function for MXNet's engine that makes calls; None where there is none (`Calls` then does it slower)."""
    code = _machine_code()
    return code[1] if code else None


def address_of(function):
    """The address of a function of a ctypes library."""
    return ctypes.cast(function, ctypes.c_void_p).value


class Calls:
    """Rows of (function's address, up to four whole numbers or addresses), called in order until one does not return zero.

    `rows` is their table, (count, 5): an argument may be changed between two runs.
    """

    def __init__(self, rows):
        self.rows = np.zeros((len(rows), 5), dtype=np.uint64)
        for place, row in zip(self.rows, rows):
            place[:len(row)] = row
        code = _machine_code()
        self._run = code[0] if code else None

    def __len__(self):
        return len(self.rows)

    def __call__(self):
        """Returns: 0, or what the function returned that ended it."""
        if self._run is not None:
            return self._run(self.rows.ctypes.data, len(self.rows))
        for function, *arguments in self.rows.tolist():
            status = _FOUR(function)(*arguments)
            if status:
                return status
        return 0


_FOUR = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)
