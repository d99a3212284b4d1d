"""A VLAN's interface over another one, for kernels that have none: frames go between the two by a process, which puts the tags in and takes them out.

What the kernel's `ip link add link LOWER name NAME type vlan id NUMBER` would do, by packet sockets: also for segments that are not cut yet, and sums that are not filled in.
"""
# SPDX-License-Identifier: BSD-3-Clause
import contextlib
import fcntl
import os
import select
import signal
import socket
import struct

import bed as beds

ETH_P_ALL, ETH_P_8021Q = 3, 0x8100
SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
TP_STATUS_VLAN_VALID = 1 << 4
TUNSETIFF, TUNSETOFFLOAD, IFF_TAP_RAW_VNET = 0x400454CA, 0x400454D0, 0x0002 | 0x1000 | 0x4000
TUN_F_CSUM_TSO4_TSO6 = 1 | 2 | 4
VNET, CSUM_START = 10, 6  # struct virtio_net_hdr
MOST = VNET + 18 + 65536


def tagged(frame, number):
    """With its struct virtio_net_hdr, in which the begin of what is summed up moves."""
    head = bytearray(frame[:VNET])
    struct.pack_into("=H", head, CSUM_START, struct.unpack_from("=H", head, CSUM_START)[0] + (4 if head[0] & 1 else 0))
    return bytes(head) + frame[VNET:VNET + 12] + struct.pack("!HH", ETH_P_8021Q, number) + frame[VNET + 12:]


def number_of(ancillary):
    """Of the VLAN that a received frame was of; the kernel has taken its tag away."""
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, _ = struct.unpack("=IIIHHHH", data[:20])
            if status & TP_STATUS_VLAN_VALID:
                return tci & 0xfff
    return None


def carry(lower, upper, number):
    while True:
        for ready in select.select((lower, upper), (), ())[0]:
            with contextlib.suppress(OSError):  # a device that is down, or full
                if ready is upper:
                    lower.send(tagged(os.read(upper, MOST), number))
                else:
                    frame, ancillary, _, _ = lower.recvmsg(MOST, 64)
                    if number_of(ancillary) == number:
                        os.write(upper, frame)


class Vlan:
    """`name` with `address`, over `lower` in `space`, until it is closed."""

    def __init__(self, space, lower, number, name, address, mtu=1500):
        ready_read, ready_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                beds.die_with_parent()
                space.enter()
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                below = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                for option in (PACKET_AUXDATA, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING):
                    below.setsockopt(SOL_PACKET, option, 1)
                below.bind((lower, ETH_P_ALL))
                upper = os.open("/dev/net/tun", os.O_RDWR)
                fcntl.ioctl(upper, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP_RAW_VNET & 0xffff))
                fcntl.ioctl(upper, TUNSETOFFLOAD, TUN_F_CSUM_TSO4_TSO6)
                os.write(ready_write, b"1")
                carry(below, upper, number)
            finally:
                os._exit(1)
        os.close(ready_write)
        made = os.read(ready_read, 1)
        os.close(ready_read)
        if not made:
            raise OSError(f"no interface {name} over {lower}")
        space.run("ip", "address", "add", address, "dev", name)
        space.run("ip", "link", "set", name, "mtu", str(mtu), "up")

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
