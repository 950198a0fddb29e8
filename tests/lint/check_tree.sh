#!/bin/sh
# Checks what the compiler does not: who includes whom, sizes, tabs, leftovers. Prints each finding as file:line: what,
# and fails if there is one. usage: check_tree.sh SOURCE_FOLDER
set -eu
cd "$1"
status=0

# The sources of the project: what git knows or would add, less what others wrote.
list() {
    if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
        git ls-files --cached --others --exclude-standard
    else
        find . -type f -not -path './build*' -not -path './.git/*' | sed 's|^\./||'
    fi | while read -r file; do
        if [ -f "$file" ]; then echo "$file"; fi
    done
}
sources=$(list | grep -E '\.(c|h|cu|cpp|hpp|sh|cmake|proto)$|CMakeLists\.txt$' || true)
code=$(echo "$sources" | grep -E '\.(c|h|cu|cpp|hpp)$' || true)
[ -n "$code" ] || { echo "no sources below $1"; exit 1; }

report() { # reads findings
    findings=$(cat)
    if [ -n "$findings" ]; then
        echo "$findings"
        status=1
    fi
}

# base < hub < config dataset net text tensor checkpoint < actor comm job_data sample < model:
# a layer includes itself and what stands left.
report <<EOF
$(grep -nE '^#include "[a-z_]+/' $code | awk -F: '
    BEGIN {
        split("base", a); rank["hub"] = 1.5; split("config dataset net text tensor checkpoint", b)
        split("actor comm job_data sample", c); split("model", d)
        for (i in a) rank[a[i]] = 1
        for (i in b) rank[b[i]] = 2
        for (i in c) rank[c[i]] = 3
        for (i in d) rank[d[i]] = 4
        split("controller data_source rollout_worker train_worker", p)
        for (i in p) process[p[i]] = 1
    }
    {
        split($3, quoted, "\""); split(quoted[2], to, "/"); target = to[1]
        split($1, from, "/"); layer = from[1] == "common" ? from[2] : from[1]
        if (from[1] == "tests") next
        if (layer in rank && target in process)
            print $1 ":" $2 ": common/ includes " target "/: process folders are leaves"
        else if (layer in process && target in process && layer != target)
            print $1 ":" $2 ": " layer " includes " target "/: process folders are leaves"
        else if (layer in rank && target in rank && layer != target && rank[target] >= rank[layer])
            print $1 ":" $2 ": layer " layer " includes " target "/, which is not to its left"
    }')
EOF

# The top level is what README says it is: a test that is run there must not leave its files behind.
rooms='proto|common|controller|data_source|rollout_worker|train_worker|tests|deploy|docs'
report <<EOF
$(list | sed 's|/.*||' | sort -u | grep -vxE "CMakeLists.txt|CMakePresets.json|README.md|$rooms|\..*" |
    sed 's|$|:1: does not belong on the top level|')
EOF

# deploy/quickstart.sh builds the target `programs`: all that the process folders make, as documents name it.
built=$(sed -n '/^add_custom_target(programs/,/)/p' CMakeLists.txt | tr '()\n' '   ')
report <<EOF
$(grep -nE '^add_executable\(' \
    $(echo "$sources" | grep -E '^(controller|data_source|rollout_worker|train_worker)/(.*/)?CMakeLists.txt$') |
    sed -E 's/add_executable\(([a-z_]+).*/\1/' |
    while IFS=: read -r file line program; do
        case " $built " in
        *" $program "*) ;;
        *) echo "$file:$line: $program is not in the target \`programs\` of CMakeLists.txt" ;;
        esac
    done)
EOF

# Sizes: a file fits a sitting, a function a screen, a line 100 columns (of characters, not bytes).
report <<EOF
$(for file in $sources; do
    lines=$(wc -l <"$file")
    if [ "$lines" -gt 900 ]; then echo "$file:$lines: file longer than 900 lines"; fi
done)
EOF
report <<EOF
$(awk 'FNR == 1 { start = 0 }
    /^{/ { start = FNR }
    /^}/ {
        size = FNR - start - 1
        if (start && size > 80) print FILENAME ":" start ": function of " size " lines, at most 80"
        start = 0
    }
    ' $code)
EOF
report <<EOF
$(LC_ALL=C.UTF-8 grep -nE '^.{121,}' $sources | sed -E 's/^([^:]*:[0-9]+):.*/\1: line longer than 120 columns/')
EOF
report <<EOF
$(LC_ALL=C.UTF-8 grep -nE '^.{101,}' $code | grep -vE '^[^:]*:[0-9]+:( *(/?\*|//)|.*(/\*|//|\*/))' |
    sed -E 's/^([^:]*:[0-9]+):.*/\1: line of code longer than 100 columns/')
EOF

report <<EOF
$(grep -nP '\t' $sources | sed -E 's/^([^:]*:[0-9]+):.*/\1: a tab/')
EOF
later="(^|[^A-Za-z])(TO""DO|FIX""ME|X""XX)([^A-Za-z]|$)"
report <<EOF
$(grep -nE "$later" $sources | sed -E 's/^([^:]*:[0-9]+):.*/\1: a note to do later/')
EOF

# Only when someone has the tool: its versions do not agree with each other.
if [ "${TROUPE_CHECK_FORMAT:-no}" = yes ] && command -v clang-format >/dev/null; then
    report <<EOF
$(clang-format --dry-run $code 2>&1 | grep -E '^[^ ]+:[0-9]+:[0-9]+: ' || true)
EOF
fi
exit $status
