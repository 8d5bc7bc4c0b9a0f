"""A long line between two network devices of this namespace: every frame takes so long (for kernels without netem).

    delay.py DEVICE DEVICE SECONDS READY     carry frames; the file READY is made when it works
    delay.py DEVICE ...                      have the kernel send whole frames with their checksums from these devices,
                                             as a program that carries them needs
"""
import collections
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import time

ALL, IGNORE_OUTGOING, SOL_PACKET = 3, 23, 263       # ETH_P_ALL, PACKET_IGNORE_OUTGOING
SIOCETHTOOL, OFFLOADS = 0x8946, (0x1F, 0x24, 0x17)  # ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_STXCSUM


def plain(device):
    """No checksums and no cutting into frames left to the device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            fcntl.ioctl(sock, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), ctypes.addressof(value)))


def opened(device):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    sock.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((device, 0))
    sock.setblocking(False)
    return sock


def carry(one, other, seconds, ready):
    """Carry frames both ways, for ever."""
    ends = {one: other, other: one}
    waiting = collections.deque()
    open(ready, "w").close()
    while True:
        left = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for end in select.select([one, other], [], [], left)[0]:
            due = time.monotonic() + seconds
            for _ in range(64):
                try:
                    waiting.append((due, ends[end], end.recv(65536)))
                except BlockingIOError:
                    break
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, end, frame = waiting.popleft()
            try:
                end.send(frame)
            except OSError:         # the other side is not up, or its queue is full: networks lose frames
                continue


if __name__ == "__main__":
    if len(sys.argv) == 5 and os.sep in sys.argv[4]:
        carry(opened(sys.argv[1]), opened(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
    for name in sys.argv[1:]:
        plain(name)
