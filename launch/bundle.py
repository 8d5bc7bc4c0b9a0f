"""The launcher's own modules, shipped to another machine: all it needs there is a Python.

``command`` is what a shell there shall run, ``payload`` what goes into its standard input first. The modules are
imported from memory and nothing is written anywhere; behind the payload the stream belongs to the program.
"""
import ast
import functools
import importlib.util
import json
import zlib

__all__ = ["command", "payload"]

# Runs on the other machine before anything is known of it. One line, and none of the characters that a login shell,
# be it sh, csh or fish, gives a meaning to even between quotes. A buffer of one byte reads no byte too many.
PROGRAM = ("import io,json,zlib;gluonzoo=io.BufferedReader(io.FileIO(0,closefd=False),1);"
           "gluonzoo=json.loads(zlib.decompress(gluonzoo.read(int(gluonzoo.readline()))).decode());"
           "exec(gluonzoo[str()])")

# The next step; old Pythons must be able to read it, or they could not say that they are old.
LOADER = '''
import sys

if sys.version_info < (3, 8):
    import socket
    sys.exit("gluonzoo needs Python 3.8 or newer on %s, found %s" % (socket.gethostname(), sys.version.split()[0]))

import importlib.machinery
import importlib


class Memory:
    """Finds and loads modules from a dictionary of sources."""

    def __init__(self, sources):
        self.sources = sources

    def find_spec(self, name, path=None, target=None):
        if name not in self.sources:
            return None
        is_package = any(other.startswith(name + ".") for other in self.sources)
        return importlib.machinery.ModuleSpec(name, self, origin=self.file_name(name), is_package=is_package)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        spec = module.__spec__
        exec(compile(self.sources[spec.name], spec.origin, "exec"), module.__dict__)

    def get_source(self, name):
        """The source, which tracebacks ask for."""
        return self.sources[name]

    def file_name(self, name):
        """How tracebacks call it: no file of this machine."""
        return "<gluonzoo>/" + name.replace(".", "/") + ".py"


def show(*error):
    """An uncaught error, with the lines of source that Python's own way looks for in files only."""
    import traceback
    traceback.print_exception(*error)


sys.meta_path.insert(0, Memory({name: source for name, source in gluonzoo.items() if name}))
sys.excepthook = show
'''

START = "sys.exit(importlib.import_module(%r).main(sys.argv[1:], **%r))\n"


def command(python="python3"):
    """What to run on the other machine, as a list of words that need quoting once for a shell.

    ``-I``: neither a ``random.py`` in the home folder nor PYTHONPATH takes the place of the library's modules.
    """
    return [python, "-I", "-c", PROGRAM]


def payload(main="launch.agent", **options):
    """What goes into the standard input of that command first.

    Args: main: module whose function ``main`` is called with a list, the words behind the command's, and ``options``
        (plain values); its result is the exit code.
    """
    sources = dict(_needed(main))
    sources[""] = LOADER + START % (main, options)
    data = zlib.compress(json.dumps(sources).encode("ascii"), 9)
    return b"%d\n" % len(data) + data


@functools.lru_cache(maxsize=None)      # the same for every host
def _needed(main):
    """Sources by name of a module and of all it imports from its own package, the package itself included."""
    package = main.partition(".")[0]
    sources, queue = {}, [package, main]
    while queue:
        name = queue.pop()
        if name not in sources:
            source = _source(name)
            if source is not None:
                sources[name] = source
                queue += _imports(source, package)
    return sources


def _source(name):
    """The source of a module, from a file or from memory; None when there is no such module."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.loader.get_source(name)


def _imports(source, package):
    """Names that may be modules of the package among those that a source imports, wherever it does."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append(node.module)
            if node.module == package:      # ``from launch import ports``: a module, or a name of the package's
                found += [f"{package}.{alias.name}" for alias in node.names]
    return [name for name in found if name == package or name.startswith(package + ".")]
