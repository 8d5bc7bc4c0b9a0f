"""Whole numbers in few bits, and the positions of the elements of a sparse array."""
import numpy as np

__all__ = ["pack", "unpack", "packed_size", "gaps", "positions", "best_gap_bits"]

#: Numbers packed at a time; a multiple of 8, so that every part ends with a byte.
_PART = 1 << 20


def packed_size(count, bits):
    """Bytes of so many numbers of so many bits each."""
    return -(-count * bits // 8)


def pack(numbers, bits):
    """Numbers below 2 ** bits one after another, lowest bit first, as bytes; the last byte is filled with zeros.

    Shape: numbers (n,) uint8, bits 1 to 8 -> (packed_size(n, bits),) uint8.
    """
    if bits == 8:
        return np.ascontiguousarray(numbers, np.uint8)
    places = np.arange(bits, dtype=np.uint8)
    parts = [np.packbits((numbers[start:start + _PART, None] >> places) & 1, bitorder="little")
             for start in range(0, len(numbers), _PART)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)


def unpack(raw, count, bits):
    """The numbers that `pack` packed. Shape: (packed_size(count, bits),) uint8 -> (count,) uint8."""
    if bits == 8:
        return np.array(raw[:count], np.uint8)
    numbers = np.empty(count, np.uint8)
    weights = (1 << np.arange(bits)).astype(np.uint8)
    for start in range(0, count, _PART):
        here = min(_PART, count - start)
        part = raw[start * bits // 8:start * bits // 8 + packed_size(here, bits)]
        digits = np.unpackbits(part, count=here * bits, bitorder="little").reshape((here, bits))
        numbers[start:start + here] = (digits * weights).sum(axis=1, dtype=np.uint8)
    return numbers


def gaps(places, bits):
    """The distances between the elements of a sparse array, in so many bits each.

    A number c below 2 ** bits - 1 stands for c zeros and then an element; the largest one, for that many zeros and no element
    yet. Source: Han, Mao, Dally, "Deep Compression", 2016, section 2, figure 2. Differences: there what bridges a long gap
    carries an element of value 0 along.

    Args: places: flat positions of the elements, rising. Shape: (n,) -> (m,) uint8 with m >= n.
    """
    step = (1 << bits) - 1
    zeros = np.diff(places, prepend=-1) - 1
    bridges = zeros // step
    ends = np.cumsum(bridges + 1) - 1
    numbers = np.full(int(ends[-1]) + 1 if len(ends) else 0, step, np.uint8)
    numbers[ends] = zeros % step
    return numbers


def positions(numbers, bits):
    """The flat positions (n,) int64 that `gaps` stored in numbers (m,)."""
    step = (1 << bits) - 1
    found = numbers < step
    ends = np.cumsum(numbers.astype(np.int64) + found)
    return ends[found] - 1


def best_gap_bits(places):
    """(bits, count of numbers) with which `gaps` takes the fewest bytes."""
    zeros = np.diff(places, prepend=-1) - 1
    counts = {bits: len(zeros) + int((zeros // ((1 << bits) - 1)).sum()) for bits in range(1, 9)}
    bits = min(counts, key=lambda bits: packed_size(counts[bits], bits))
    return bits, counts[bits]
