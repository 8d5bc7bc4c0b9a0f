#!/bin/sh
# Install gluonzoo and run the smoke tests on every Python from 3.8 to 3.13 found here; print a table. Exit code 1 if any failed.
cd "$(dirname "$0")/.." || exit 1
pythons=$(sh tools/find_python.sh --all) || exit 1
table=$(mktemp) && trap 'rm -f "$table"' EXIT
failed=0
while read -r version path; do
    venv=".venv-$version"
    echo "== Python $version ($path)"
    if make --no-print-directory VENV="$venv" PYTHON="$path" "$venv/.installed-test" &&
        result=$("$venv/bin/python" -m pytest -q -m smoke -p no:cacheprovider 2>&1); then
        outcome=pass
    else
        outcome=FAIL failed=1
    fi
    summary=$(echo "$result" | tail -n 1)
    [ "$outcome" = pass ] || echo "$result" | tail -n 40
    versions=$("$venv/bin/python" -c 'import platform, numpy, gluonzoo, mxnet
print(platform.python_version(), "|", numpy.__version__, "|", mxnet.__version__)' 2>/dev/null || echo "$version | ? | ?")
    echo "| $versions | $outcome | $summary |" >>"$table"
done <<EOF
$pythons
EOF
echo
echo "| Python | NumPy | MXNet | smoke tests | result |"
echo "|---|---|---|---|---|"
cat "$table"
exit $failed
