#!/usr/bin/env bash
# Create the virtual environment and install the package with pinned versions: install.sh PYTHON VENV
set -euo pipefail
python=$1 venv=$2

fail() { printf '%s\n' "$@" >&2; exit 1; }

[ -n "$python" ] || fail "make: Python 3.11 or 3.12 must be on the path; none was found." \
    "Install one (Debian: apt-get install python3 python3-venv) or name it: make init PYTHON=/path/to/python3.12"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' ||
    fail "make: Python must be 3.11 or 3.12; $("$python" --version 2>&1) came. Name another: make init PYTHON=/path/to/python3.12"
"$python" -c 'import ctypes; [ctypes.CDLL(n) for n in ("libGL.so.1", "libglib-2.0.so.0")]' 2>/dev/null ||
    fail "make: OpenCV needs libGL and glib, and this machine lacks one of them." \
         "Install them: apt-get install -y libgl1 libglib2.0-0 (or their like), then run make again"

if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" || fail "make: no virtual environment could be made; Debian keeps that apart: apt-get install python3-venv"
fi

log=$venv/install.log
echo "installing with $("$venv/bin/python" --version) into $venv: about 7 GB, a few minutes; log in $log"
show='{ print > file; fflush(file) }
    /^ *Downloading .*(whl|gz)/ { n++; if (n % 20 == 0) { printf "  %d packages fetched\n", n; fflush() } }
    /^Installing collected/ { print "  unpacking"; fflush() }'
if ! "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
        -c constraints.txt -e '.[dev]' 2>&1 | awk -v file="$log" "$show"; then
    tail -n 15 "$log" >&2
    fail "make: the installation failed; the last lines of $log are above"
fi
"$venv/bin/python" -m pip check
echo "ready: $("$venv/bin/rpa" --version)"
