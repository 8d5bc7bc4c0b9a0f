#!/bin/sh
# Print the newest Python from 3.8 to 3.13 that can make a virtual environment (with --all: every one, newest first),
# looking on PATH and in pyenv's folder. Lines are "VERSION PATH". Exit code 1 with advice when there is none.
probe='import sys, venv, ensurepip
v = sys.version_info
if (3, 8) <= v[:2] <= (3, 13) and sys.implementation.name == "cpython" and sys.prefix == sys.base_prefix:
    print("%d.%02d.%02d" % v[:3], "%d.%d" % v[:2], sys.executable)'
candidates() {
    for minor in 13 12 11 10 9 8; do command -v "python3.$minor"; done
    command -v python3
    command -v python
    for root in "${PYENV_ROOT:-$HOME/.pyenv}" "$HOME/.pyenv"; do
        for file in "$root"/versions/*/bin/python3; do [ -x "$file" ] && echo "$file"; done
    done
}
# One line a minor version, the newest patch of each.
found=$(candidates | sort -u | while read -r python; do "$python" -c "$probe" 2>/dev/null; done |
        sort -r | awk '!seen[$2]++ {print $2, $3}')
if [ -z "$found" ]; then
    echo "no Python from 3.8 to 3.13 with venv was found on PATH or in pyenv's folder." >&2
    echo "Get one with your system's packages (Debian: apt-get install python3 python3-venv), or: pyenv install 3.13" >&2
    exit 1
fi
if [ "$1" = "--all" ]; then echo "$found"; else echo "$found" | head -n 1; fi
