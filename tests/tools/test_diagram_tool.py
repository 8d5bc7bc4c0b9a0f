"""tools/diagram.py: a picture of what the launcher would do, with every role in it."""
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(ROOT, "tools", "diagram.py")
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def words(path):
    return [text.text or "" for text in ET.parse(str(path)).getroot().iter(SVG + "text")]


def test_all_roles_and_channels_are_named(tmp_path):
    done = run("-o", tmp_path / "roles.svg")
    assert done.returncode == 0, done.stderr
    found = words(tmp_path / "roles.svg")
    for name in ("scheduler", "server 0", "server 1", "worker 0", "worker 1", "worker 2", "worker 3", "host node1", "host node2",
                 "host node3", "ssh", "channel", "checkpoints", "launcher (supervisor)"):
        assert name in found, name
    assert len([text for text in found if re.match(r"127\.0\.0\.1:\d+$", text)]) == 7
    assert len({text for text in found if text.startswith("open to the network: port ")}) == 3


def test_the_picture_in_docs_is_its_output(tmp_path):
    run("-o", tmp_path / "roles.svg")
    with open(os.path.join(ROOT, "docs", "roles.svg"), encoding="utf-8") as file:
        kept = file.read()
    assert kept == (tmp_path / "roles.svg").read_text(encoding="utf-8"), "run: python tools/diagram.py -o docs/roles.svg"


def test_light_and_dark(tmp_path):
    run("-o", tmp_path / "roles.svg")
    text = (tmp_path / "roles.svg").read_text(encoding="utf-8")
    light, dark = text.split("@media (prefers-color-scheme: dark)")
    for kind in re.findall(r'class="(?:open )?([\w-]+)', dark.split("</style>")[1]):
        name = re.sub("-stroke$", "", kind)
        assert f".{name} {{ fill:" in light and f".{name} {{ fill:" in dark.split("</style>")[0], name


@pytest.mark.parametrize("hosts, workers, servers, shown", [("a:1,b:1", 2, 1, 4), ("one:9", 9, 3, 13)])
def test_other_jobs(tmp_path, hosts, workers, servers, shown):
    done = run("-H", hosts, "-n", workers, "-s", servers, "-o", tmp_path / "a.svg")
    assert done.returncode == 0, done.stderr
    assert len([text for text in words(tmp_path / "a.svg") if text.startswith("127.0.0.1:")]) == shown


def test_wrong_use_is_one_line(tmp_path):
    done = run("-H", "a:1,b:1", "-n", 5, "-o", tmp_path / "a.svg")
    assert done.returncode == 1 and done.stderr.startswith("error: 5 workers (-n), but 2 slots") and done.stderr.count("\n") == 1
    assert not (tmp_path / "a.svg").exists()
    done = run("-o", "/no/such/folder/a.svg")
    assert done.returncode == 1 and done.stderr.startswith("error: cannot write /no/such/folder/a.svg: ")
