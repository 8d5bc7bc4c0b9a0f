"""The few instructions of a pickle that describe a `state_dict`, followed without unpickling.

A pickle is a program for a stack machine, and Python's can call anything. This one knows numbers, text, tuples, lists,
dicts and tensors on storages; a name of anything else ends it. It calls nothing that the file names.
"""
import pickletools
from typing import Any, NamedTuple

from ..arrays import FormatError
from ..errors import UserError

__all__ = ["Storage", "Tensor", "follow"]

#: Storages' element types as NumPy's; "bf16" is the upper half of a float32.
STORAGES = {"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16", "LongStorage": "i8",
            "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"}
_PUSHED = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING",
           "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Storage(NamedTuple):
    """A flat run of elements in the file: element type, key, number of elements."""
    kind: str
    key: str
    elements: int


class Tensor(NamedTuple):
    """A view of a storage; `offset`, `shape` and `strides` in elements, as the file has them: unchecked."""
    storage: Storage
    offset: Any
    shape: Any
    strides: Any


class _Name(NamedTuple):
    """A name that the file wants called; one of `_CALLS` or of a storage's type."""
    full: str


def _rebuild_tensor(storage, offset, shape, strides, *rest):
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


_CALLS = {
    "collections.OrderedDict": lambda pairs=(): _dict({}, [item for pair in pairs for item in pair]),
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch.Size": tuple,
}


def _dict(target, items):
    """Put items (key, value, key, value, ...) into a dict."""
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError("items for something that is no dict")
    for key, value in zip(items[::2], items[1::2]):
        if not isinstance(key, (str, int)):
            raise ValueError(f"a dict's key that is a {type(key).__name__}")
        target[key] = value
    return target


def _name(path, module, name):
    full = f"{module}.{name}"
    if full not in _CALLS and not (module in ("torch", "torch.cuda") and name in STORAGES):
        raise UserError(f"{path}: expected a state_dict of tensors, found the Python object {full[:100]}, which is refused "
                        "(nothing was executed)")
    return _Name(full)


def follow(source, path):
    """Follow one pickle from the binary file object `source`, up to its STOP.

    Returns: (value, {key: Storage}).
    Raises: UserError when it names an object outside the list; FormatError when it is damaged.
    """
    machine = _Machine(path)
    start = source.tell()
    while True:
        place = source.tell()
        try:
            code = source.read(1).decode("latin-1")
            opcode = pickletools.code2op.get(code)
            name = opcode.name if opcode else repr(code)
            if name not in _KNOWN:
                raise ValueError(f"instruction {name}")
            argument = opcode.arg.reader(source) if opcode.arg else None
            if name == "STOP":
                return machine.stack.pop(), machine.storages
            machine.step(name, argument)
        except UserError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise FormatError(path, place, f"a state_dict's pickle (begun at byte {start})",
                              f"{type(error).__name__}: {error}"[:120]) from None


class _Machine:
    """The stack, the memo and the storages met so far."""

    def __init__(self, path):
        self.path, self.stack, self.memo, self.storages = path, [], {}, {}

    def step(self, name, argument):
        if name in _PUSHED:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            size = _TUPLES[name]
            if len(self.stack) < size:
                raise ValueError("an empty stack")
            self.stack[-size:] = [tuple(self.stack[-size:])]
        else:
            getattr(self, "do_" + name.lower())(argument)

    def above_mark(self):
        """Take what was pushed since the last mark, and the mark."""
        place = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        values = self.stack[place + 1:]
        del self.stack[place:]
        return values

    def do_proto(self, version):
        if version not in (2, 3, 4, 5):
            raise ValueError(f"protocol {version}")

    def do_frame(self, size):
        pass  # A hint for readers of streams.

    def do_mark(self, _):
        self.stack.append(_MARK)

    def do_tuple(self, _):
        self.stack.append(tuple(self.above_mark()))

    def do_empty_list(self, _):
        self.stack.append([])

    def do_empty_dict(self, _):
        self.stack.append({})

    def do_append(self, _):
        value = self.stack.pop()
        self._list().append(value)

    def do_appends(self, _):
        values = self.above_mark()
        self._list().extend(values)

    def _list(self):
        if not isinstance(self.stack[-1], list):
            raise ValueError("elements for something that is no list")
        return self.stack[-1]

    def do_setitem(self, _):
        value, key = self.stack.pop(), self.stack.pop()
        _dict(self.stack[-1], [key, value])

    def do_setitems(self, _):
        items = self.above_mark()
        _dict(self.stack[-1], items)

    def do_binput(self, index):
        self.memo[index] = self.stack[-1]

    do_long_binput = do_binput

    def do_memoize(self, _):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_binget(self, index):
        self.stack.append(self.memo[index])

    do_long_binget = do_binget

    def do_global(self, names):
        self.stack.append(_name(self.path, *names.split(" ", 1)))

    def do_stack_global(self, _):
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(_name(self.path, module, name))

    def do_reduce(self, _):
        arguments, call = self.stack.pop(), self.stack.pop()
        if not isinstance(call, _Name) or call.full not in _CALLS or not isinstance(arguments, tuple):
            raise ValueError("a call of something that cannot be called")
        self.stack.append(_CALLS[call.full](*arguments))

    def do_build(self, _):
        # The state of an OrderedDict: the versions of its modules, which no tensor needs.
        self.stack.pop()
        if not isinstance(self.stack[-1], dict):
            raise ValueError("a state for something that is no dict")

    def do_binpersid(self, _):
        what, kind, key, _, elements, *view = self.stack.pop()
        if what != "storage" or not isinstance(kind, _Name) or not isinstance(key, str) or type(elements) is not int \
                or elements < 0 or any(part is not None for part in view):
            raise ValueError("a reference that is no storage")
        storage = Storage(STORAGES[kind.full.rpartition(".")[2]], key, elements)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key!r} described twice, differently")
        self.stack.append(storage)


_KNOWN = _PUSHED | set(_CONSTANTS) | set(_TUPLES) | {"STOP"} | {
    name[3:].upper() for name in vars(_Machine) if name.startswith("do_")}
