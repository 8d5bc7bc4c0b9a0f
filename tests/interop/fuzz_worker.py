"""Reads mutated files of weights; run as a program, so that a crash of the process is seen from outside.

fuzz_worker.py SEED COUNT FOLDER: prints a JSON object of {format: [loaded, refused]}. Ends with an error when a file raised
anything but UserError, executed code, or made the process take memory out of proportion.
"""
import io
import json
import os
import random
import resource
import struct
import sys
import zipfile

import gluonzoo  # noqa: F401
from gluonzoo import arrays
from gluonzoo.errors import UserError
from gluonzoo.interop import read

import numpy as np
from caffe_files import caffemodel
from weight_files import safetensors, sample, torch_legacy, torch_zip

NUMBERS = (-1, 0, 1, 0x7FFFFFFF, 1 << 31, 1 << 40, (1 << 63) - 1)
#: What a mutation puts in now and then: instructions and names that an attacker would.
SPICE = (b"cos\nmkdir\n", b"cbuiltins\neval\n", b"\x93", b"R", b"b", b"\x81", b"q\x00", b"h\x00", b"(", b"t.", b"ctorch\nload\n",
         b'"F32"', b"-1", b"1e999", b"[[", b"9" * 30, b"NaN", b"\xff\xfe")


def torch_packages(folder):
    """Files of the real packages, where they are installed."""
    try:
        import torch
    except ImportError:
        return {}
    found = {}
    for name, new in (("torch_new", True), ("torch_old", False)):
        path = os.path.join(folder, name)
        torch.save({"state_dict": {"w": torch.ones(3, 2), "n": torch.tensor(3)}, "epoch": 2}, path,
                   _use_new_zipfile_serialization=new)
        with open(path, "rb") as file:
            found[name] = file.read()
    return found


def bases(folder):
    """{format: a sound file}."""
    values = sample()
    path = os.path.join(folder, "base")
    arrays.save(path, {key: array for key, array in values.items() if array.ndim})
    with open(path, "rb") as file:
        found = {"params": file.read()}
    found["zip"] = torch_zip(values, wrap=lambda state: {"state_dict": state, "epoch": 3})
    found["legacy"] = torch_legacy(values)
    try:
        import safetensors as _  # noqa: F401
        found["safetensors"] = safetensors(values)
    except ImportError:
        pass
    try:
        import google.protobuf  # noqa: F401
        layers = [("conv1", "Convolution", [values["conv.weight"], values["norm.running_var"]])]
        found.update({f"caffe{generation}": caffemodel(layers, generation) for generation in (1, 2)})
    except ImportError:
        pass
    found.update(torch_packages(folder))
    return found


def mutate(rng, content):
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(content)) if content else 0
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            size = rng.choice((4, 8))
            content[place:place + size] = struct.pack("<q", rng.choice(NUMBERS))[:size]
        elif kind == 2:
            del content[place:place + rng.randint(1, 40)]
        elif kind == 3:
            content[place:place] = rng.choice(SPICE)
        elif kind == 4:
            content[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        elif kind == 5:
            content[place:place] = content[:rng.randint(1, 200)]
        else:
            del content[place:]
    return bytes(content)


def mutate_member(rng, content):
    """A zip archive with sound checksums around a mutated member: else they would catch nearly everything."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(made, "w") as other:
        names = archive.namelist()
        chosen = rng.choice(names[:1] * 8 + names)
        for name in names:
            raw = archive.read(name)
            other.writestr(name, mutate(rng, raw) if name == chosen else raw)
    return made.getvalue()


def main():
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    os.chdir(folder)
    rng, base = random.Random(seed), bases(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names, results = sorted(base), {}
    for name in names:
        path = f"sound.{name}"
        with open(path, "wb") as file:
            file.write(base[name])
        assert read(path).arrays
        results[name] = [0, 0]
    present = set(os.listdir(folder)) | {"case.bin"}
    for index in range(count):
        name = names[index % len(names)]
        zipped = base[name][:2] == b"PK" and rng.random() < 0.7
        content = mutate_member(rng, base[name]) if zipped else mutate(rng, base[name])
        with open("case.bin", "wb") as file:
            file.write(content)
        try:
            found = read("case.bin").arrays
            assert all(isinstance(array, np.ndarray) and array.nbytes <= 16 * len(content) for array in found.values())
            results[name][0] += 1
        except UserError:
            results[name][1] += 1
        except BaseException:
            print(f"seed {seed}, file {index}, {name}", file=sys.stderr)
            raise
    assert set(os.listdir(folder)) <= present, "a file was made: something was executed"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200 * 1024, f"{grown} KiB more memory for files of a few KiB"
    print(json.dumps(results))


main()
