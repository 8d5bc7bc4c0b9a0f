"""Modules shipped through standard input: nothing but a Python on the other side, and not a byte too many read."""
import os
import re
import shlex
import shutil
import subprocess
import sys

from launch import bundle

import pytest

OLD = os.path.expanduser("~/.pyenv/versions/3.6.15/bin/python3")
PACKAGE = {
    "__init__": '"""A package."""\nVALUE = "of the package"\n',
    "first": """
from shipped import VALUE, second
from shipped.third import NAME as THIRD


def main(argv, **options):
    import os, sys
    if options.get("fail"):
        second.fail()
    sys.stdout.write("%s %s %s %s %s\\n" % (VALUE, second.NAME, THIRD, second.later(), argv + sorted(options.items())))
    sys.stdout.write(os.read(0, 100).decode())
    sys.stdout.flush()
    return 7
""",
    "second": "NAME = 'second \u00e4'\ndef later():\n    import shipped.fourth\n    return shipped.fourth.__name__\n"
              "def fail():\n    raise RuntimeError('as asked')\n",
    "third": "import os, json\nNAME = 'third'\n",
    "fourth": "",
    "unused": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "code" / "shipped"
    folder.mkdir(parents=True)
    for name, text in PACKAGE.items():
        (folder / (name + ".py")).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder.parent))
    bundle._needed.cache_clear()
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "shipped"]:
        del sys.modules[name]


def run(data, argv=None, cwd="/", env=None):
    return subprocess.run(argv or bundle.command(sys.executable), input=data, capture_output=True, cwd=cwd, timeout=20,
                          env=env)


def test_modules_arrive_and_the_rest_of_the_stream_is_theirs(package):
    data = bundle.payload("shipped.first", colour="blue", number=3)
    shutil.rmtree(package)
    done = run(data + b"frames that follow\n")
    assert done.stderr == b"" and done.returncode == 7
    assert done.stdout.decode() == ("of the package second ä third shipped.fourth [('colour', 'blue'), ('number', 3)]\n"
                                    "frames that follow\n")


def test_only_what_is_needed_is_shipped(package):
    assert sorted(bundle._needed("shipped.first")) == ["shipped", "shipped.first", "shipped.fourth", "shipped.second",
                                                       "shipped.third"]


def test_words_behind_the_command(package):
    done = run(bundle.payload("shipped.first"), bundle.command(sys.executable) + ["7", "a b"])
    assert done.stdout.decode() == "of the package second ä third shipped.fourth ['7', 'a b']\n"


def test_a_stream_that_comes_in_pieces(package):
    data = bundle.payload("shipped.first")
    popen = subprocess.Popen(bundle.command(sys.executable), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for at in list(range(0, 12)) + [200]:
        popen.stdin.write(data[at:at + 1] if at < 12 else data[12:])
        popen.stdin.flush()
    out, _ = popen.communicate(b"rest", timeout=20)
    assert out.endswith(b"\nrest") and popen.returncode == 7


def test_tracebacks_show_names_and_lines(package):
    data = bundle.payload("shipped.first", fail=True)
    shutil.rmtree(package)
    done = run(data)
    assert done.returncode == 1
    text = done.stderr.decode()
    assert 'File "<gluonzoo>/shipped/second.py", line 6, in fail' in text and "raise RuntimeError('as asked')" in text


def test_the_home_folder_and_pythonpath_do_not_get_in_the_way(package, tmp_path):
    for name in ("json", "zlib", "io", "socket", "importlib"):
        (tmp_path / (name + ".py")).write_text("raise SystemExit('not this one')")
    done = run(bundle.payload("shipped.first") + b"\n", cwd=str(tmp_path), env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 7, done.stderr


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "csh", "tcsh", "fish", "ksh"])
def test_login_shells_leave_the_command_as_it_is(package, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    line = " ".join(shlex.quote(word) for word in bundle.command(sys.executable))
    done = run(bundle.payload("shipped.first") + b"\n", [shell, "-c", line])
    assert done.returncode == 7, done.stderr


def test_the_command_has_only_harmless_characters():
    python, *words = bundle.command("python3")
    assert python == "python3" and all(re.match(r"[A-Za-z0-9 ,;.:=()\[\]_-]+\Z", word) for word in words)


@pytest.mark.skipif(not os.path.exists(OLD), reason="no Python 3.6 here")
def test_an_old_python_says_so():
    done = run(bundle.payload(), bundle.command(OLD))
    assert done.returncode == 1 and done.stdout == b""
    assert re.match(r"gluonzoo needs Python 3\.8 or newer on \S+, found 3\.6\.15\n\Z", done.stderr.decode())


def test_what_old_pythons_must_read_is_plain():
    """Annotations, f-strings and the like came later; a Python that is not here may meet them."""
    assert not re.search(r"\bf[\"']|:=|->|\bnonlocal\b|print", bundle.LOADER.replace("print_exception", ""))
    compile(bundle.PROGRAM, "program", "exec")
    compile(bundle.LOADER, "loader", "exec", dont_inherit=True)


@pytest.mark.parametrize("data", [b"", b"12", b"99999\nabc", b"Welcome\n"])
def test_a_stream_that_is_none(data):
    done = run(data)
    assert done.returncode == 1 and done.stdout == b""


def test_the_agent_fits_into_a_packet():
    """What the launcher sends to each host at each start."""
    assert len(bundle.payload()) < 60000
