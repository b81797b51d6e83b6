#!/usr/bin/env bash
# Before anything is fetched: are the five tools of the README here, in versions that work? Says what to do if not.
set -u
python=${PYTHON:-python3}
failed=0
complain() { printf 'setup: %s\n' "$1" >&2; failed=1; }

if ! command -v "$python" >/dev/null; then
    complain "no '$python' found. Install Python 3.11 or newer (Debian: apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    complain "'$python' is $("$python" --version 2>&1), 3.11 or newer is needed. Name another one: make PYTHON=/path/to/python3.11"
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    complain "'$python' cannot make virtual environments (Debian: apt install python3-venv)"
fi
if ! command -v java >/dev/null; then
    complain "no 'java' found, Kafka needs 17 or newer (Debian: apt install openjdk-17-jre-headless)"
else
    version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
    if [ -n "$version" ] && [ "$version" -lt 17 ]; then
        complain "'java' is version $version, Kafka needs 17 or newer (Debian: apt install openjdk-17-jre-headless)"
    fi
fi
command -v mvn >/dev/null || complain "no 'mvn' found, it fetches Kafka's jars (Debian: apt install maven)"
command -v git >/dev/null || complain "no 'git' found (Debian: apt install git)"
free=$(df -Pk . | awk 'NR == 2 {print int($4 / 1024)}')
if [ "$free" -lt 2048 ]; then
    complain "only $free MB are free on the disk of $PWD, setting up and running takes about 2048 MB: free some space, or clone to a larger disk"
fi
exit $failed
