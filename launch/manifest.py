"""Plain values as YAML that people can read: mappings, lists, strings, numbers. No library is needed for that."""
import re

__all__ = ["document", "quoted"]

# Strings that no version of YAML takes for anything else; all others are quoted.
PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*\Z")
RESERVED = frozenset("true false yes no on off y n null".split())


def document(value, comments=()):
    """One YAML document of a mapping, with comments on top."""
    return "".join(f"# {line}".rstrip() + "\n" for line in comments) + "".join(_lines(value, 0))


def quoted(text):
    """A string as a YAML scalar: plain where that is safe, else between double quotes."""
    if PLAIN.match(text) and text.lower() not in RESERVED:
        return text
    return '"' + "".join(map(_character, text)) + '"'


def _character(one):
    if one in '"\\':
        return "\\" + one
    if " " <= one <= "~" or (one.isprintable() and one > "\u00a0" and one != "\ufeff"):
        return one
    code = ord(one)
    if 0xD800 <= code <= 0xDFFF:
        raise ValueError("bytes that are not UTF-8 cannot be written into a manifest")
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _scalar(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if value == {} or value == []:
        return str(value)
    return str(value)


def _lines(value, depth):
    """The lines of a mapping or list that is not empty."""
    pad = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if item and isinstance(item, (dict, list)):
                yield f"{pad}{quoted(key)}:\n"
                yield from _lines(item, depth + 1)
            elif isinstance(item, str) and _is_block(item):
                yield f"{pad}{quoted(key)}: |\n"
                yield from (f"{pad}  {line}\n" for line in item.splitlines())
            else:
                yield f"{pad}{quoted(key)}: {_scalar(item)}\n"
    else:
        for item in value:
            if item and isinstance(item, dict):
                first, *rest = _lines(item, depth + 1)
                yield f"{pad}- {first[len(pad) + 2:]}"
                yield from rest
            else:
                yield f"{pad}- {_scalar(item)}\n"


def _is_block(text):
    """Whether a string is plain lines, which read better as a block."""
    return text.count("\n") > 1 and re.match(r"(?:[!-~][ -~]*\n)+\Z", text) is not None
