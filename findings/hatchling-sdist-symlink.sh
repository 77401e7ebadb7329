#!/bin/sh
# hatchling 1.33.0: where a folder that sorts before src/ holds a symbolic link to src/, the source
# distribution has the files of src/ under the link's path only. The real src/ is left out without
# a word, and a wheel that is built from that archive is empty. With a link in a folder that sorts
# after src/ all is well: its walk takes the real folder for one that it has seen already.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check hatchling==1.33.0 build==1.3.0

archive() {  # FOLDER: what an sdist holds when FOLDER/other/src is a link to src
    rm -rf "$place/project"
    mkdir -p "$place/project/src/thing" "$place/project/$1/other"
    cd "$place/project"
    echo 'x = 1' > src/thing/__init__.py
    ln -s ../../src "$1/other/src"
    printf '%s\n' '[build-system]' 'requires = ["hatchling"]' 'build-backend = "hatchling.build"' \
        '[project]' 'name = "thing"' 'version = "1"' > pyproject.toml
    "$place/venv/bin/python" -m build --no-isolation --sdist . >/dev/null 2>&1
    tar tzf dist/thing-1.tar.gz
}

before=$(archive packages)
after=$(archive zpackages)
echo "a link in packages/, which sorts before src/:"; echo "$before"
echo "a link in zpackages/, which sorts after it:"; echo "$after"
if echo "$before" | grep -qx 'thing-1/src/thing/__init__.py'; then
    echo "CHANGED: src/ is in the archive now"; exit 1
fi
echo "$before" | grep -qx 'thing-1/packages/other/src/thing/__init__.py'
echo "$after" | grep -qx 'thing-1/src/thing/__init__.py'
echo "as described: src/ itself is missing from the first archive"
