#!/usr/bin/env bash
# test_sandbox on a machine that refuses namespaces: one of our making where that can be had, else this one. Every
# escape must end in a refusal and be told as skipped (77), and no reward that needs a sandbox may open.
set -euo pipefail
tests=$BIN/test_sandbox
if unshare -Ur true 2>/dev/null; then
    # A user namespace in which no further one may be made.
    refuse=(unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$1"' sh)
else
    refuse=()
fi
"${refuse[@]}" "$tests" >out 2>&1 && code=0 || code=$?
[ "$code" = 77 ] || { cat out; exit 1; }
grep -q '^this machine does not isolate: the refusals are tested' out || { cat out; exit 1; }
[ "$(grep -c 'SKIP, refused as it must be: ' out)" -ge 15 ] || { cat out; exit 1; }
"${refuse[@]}" "$BIN/test_code" >out 2>&1 && code=0 || code=$?
[ "$code" = 77 ] || { cat out; exit 1; }
[ "$(grep -c 'SKIP, refused as it must be: the reward does not open' out)" -ge 3 ] || { cat out; exit 1; }
