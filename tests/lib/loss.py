"""Frames lost at random on a network interface, in both directions: two BPF programs that live as long as this object.

Needs tcx (Linux 6.6) and CAP_BPF with CAP_NET_ADMIN in the interface's namespace; raises OSError where that is not to be had.
Source: bpf(2), include/uapi/linux/bpf.h.
"""
# SPDX-License-Identifier: BSD-3-Clause
import ctypes
import os
import platform
import socket
import struct

SYS_BPF = {"x86_64": 321}[platform.machine()]
PROG_LOAD, LINK_CREATE = 5, 28
SCHED_CLS = 3
TCX_INGRESS, TCX_EGRESS = 46, 47
TCX_NEXT, TCX_DROP = -1, 2
GET_PRANDOM_U32 = 7
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = _libc.syscall(SYS_BPF, command, buffer, len(buffer))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf({command}): {os.strerror(error)}")
    return result


def _instruction(code, register=0, offset=0, value=0):
    return struct.pack("<BBhi", code, register, offset, value)


class Loss:
    """Drops `per_mille` of the frames that come in and go out at `interface` of the namespace this process is in."""

    def __init__(self, interface, per_mille):
        bound = (2**32 * per_mille) // 1000
        code = b"".join((
            _instruction(0x85, value=GET_PRANDOM_U32),
            _instruction(0xA6, offset=2, value=bound - 2**32 if bound >= 2**31 else bound),  # r0 below it, unsigned 32 bits: two further
            _instruction(0xB7, value=TCX_NEXT),
            _instruction(0x95),
            _instruction(0xB7, value=TCX_DROP),
            _instruction(0x95),
        ))
        self._instructions = ctypes.create_string_buffer(code, len(code))
        self._license = ctypes.create_string_buffer(b"GPL")
        self._files = []
        for direction in (TCX_INGRESS, TCX_EGRESS):
            load = struct.pack("<IIQQIIQII16sII", SCHED_CLS, len(code) // 8, ctypes.addressof(self._instructions), ctypes.addressof(self._license),
                               0, 0, 0, 0, 0, b"loss", 0, direction)
            program = _bpf(PROG_LOAD, load)
            self._files.append(program)
            self._files.append(_bpf(LINK_CREATE, struct.pack("<IIII", program, socket.if_nametoindex(interface), direction, 0)))

    def close(self):
        for file in self._files:
            os.close(file)
        self._files = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
