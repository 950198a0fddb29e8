#!/usr/bin/env bash
# The calculator of deploy/examples/tools says what docs/tools.md says: results, errors for the model, one line each.
set -euo pipefail
command -v python3 >/dev/null || { echo "skipped: there is no python3"; exit 77; }
calculator=$SOURCE/deploy/examples/tools/calculator.py
ask() {
    printf '{"id": "7", "name": "calculator", "arguments": {"expression": "%s"}}\n' "$1" | python3 "$calculator"
}
expect() {
    found=$(ask "$1")
    [ "$found" = "{\"id\": \"7\", $2}" ] || { echo "$1: $found, expected $2"; exit 1; }
}
expect '17 * 23 + 5' '"content": "396"'
expect '6 / 4' '"content": "1.5"'
expect '8 / 4' '"content": "2"'
expect '-(2 ** 10) + sqrt(16)' '"content": "-1020"'
expect '1 / 0' '"error": "division by zero"'
expect '9 ** 9 ** 9' '"error": "the result is too large"'
ask '__import__("os")' 2>/dev/null && exit 1
ask 'open' | grep -q '"error": "only numbers'
ask '2 +' | grep -q '"error": "invalid syntax'
# Lines that follow a mistake are answered.
printf '{"id": "%s", "name": "c", "arguments": {%s}}\n' 1 '' 2 '"expression": "1+1"' | python3 "$calculator" >out
[ "$(grep -c . out)" = 2 ] && grep -q '"id": "2", "content": "2"' out || { cat out; exit 1; }
