#!/bin/bash
# Names that docs/ uses and that are defined elsewhere: every key (`train.lr`), value and source file that is named
# exists, every link leads to a file and a heading that are there, and metrics.jsonl has just the figures that
# docs/metrics.md lists.
# usage: check_docs.sh SOURCE
set -eu
cd "$1"

# quoted FILE: what stands in single backticks, one a line.
quoted() { sed '/^```/,/^```/d' "$1" | grep -o '`[^`]*`' | tr -d '`' | sort -u; }

# Keys, their values, and the names that other systems have for them.
known_keys() { cat common/config/keys/*.c common/config/job_foreign.c proto/*.proto; }

# check_keys FILE: `section.key` is one of job.yaml, or the name of a call.
check_keys() {
    quoted "$1" | sed 's/[:=].*//' |
        grep -xE '(algorithm|train|rollout|eval|data|model|checkpoint|cluster)\.[a-z][a-z0-9_]*' |
        grep -vE '\.(c|h|md|proto|yaml|jsonl|py|sh)$' | while read -r key; do
        grep -qwF -- "$key" <<< "$KEYS" || echo "$1 names $key, which job.yaml does not have"
    done
}

# check_words FILE: in a page about keys every name with an underscore is one, or a value, or the source's.
check_words() {
    quoted "$1" | sed 's/[:=].*//' | grep -xE '[a-z][a-z0-9]*(_[a-z0-9]+)+' | while read -r word; do
        grep -qwF -- "$word" <<< "$KEYS" || echo "$1 names $word, which no key or value is called"
    done
}

# check_files FILE: `folder/name.c` is there.
check_files() {
    quoted "$1" |
        grep -xE '(common|controller|data_source|deploy|docs|proto|rollout_worker|tests|train_worker)/[^ *<]*' |
        while read -r file; do
            [ -e "${file%/}" ] || echo "$1 names $file, which is not there"
        done
}

# headings FILE: what links into it may name, as GitHub makes it of a heading.
headings() {
    sed '/^```/,/^```/d' "$1" | sed -n 's/^##* //p' | tr '[:upper:]' '[:lower:]' | sed "s/[^a-z0-9 _-]//g; s/ /-/g"
}

# check_links FILE [FOLDER]: its links lead somewhere, seen from FOLDER in place of its own.
check_links() {
    local folder=${2:-$(dirname "$1")} to file
    sed '/^```/,/^```/d' "$1" | grep -oE '\]\([^)]*\)' | sed 's/^](//; s/)$//' | grep -v '^[a-z]*://' | sort -u |
        while read -r to; do
            file=$folder/${to%%#*}
            [ "${to%%#*}" ] || file=$1
            [ -e "$file" ] || { echo "$1 links to $to, which is not there"; continue; }
            [ "${to#*#}" = "$to" ] || headings "$file" | grep -qxF -- "${to#*#}" ||
                echo "$1 links to $to, and that page has no such heading"
        done
}

# listed FILE: the figures in the first column of its tables, as they stand in metrics.jsonl. `_low` goes on with the
# first name of its cell, `/max` and `grad_norm` stand for its last part.
listed() {
    awk -F'|' '/^\| `/ {
        count = split($2, part, "`"); base = part[2]; folder = base; sub("/[^/]*$", "", folder)
        for (i = 2; i <= count; i += 2) {
            name = part[i]
            if (i > 2 && name ~ /^_/) name = base name
            else if (i > 2 && name ~ /^\//) name = folder name
            else if (i > 2 && name !~ /\//) name = folder "/" name
            if (name !~ /@/) print name
        }
    }' "$1" | sort -u
}

FIGURES='(train|rollout|rewards|perf|tools|critic-train)/[a-z0-9_/%]*'

# written: the figures that the source puts into metrics.jsonl.
written() {
    cat controller/view/*.c | grep -oE "\"$FIGURES\"" | tr -d '"' |
        sed 's|^rewards/%s|rewards/NAME|; s/%s/REASON/' | sort -u
}

# check_figures FILE: it lists what is written, and nothing else.
check_figures() {
    listed "$1" | grep -E '^(train|rollout|rewards|perf|tools|critic-train)/' | while read -r name; do
        grep -qxF -- "$name" <<< "$WRITTEN" || echo "$1 lists $name, which is not in metrics.jsonl"
    done
    { listed "$1"; quoted "$1"; } > "$scratch/listed"
    while read -r name; do
        grep -qxF -- "$name" "$scratch/listed" || echo "$1 does not list $name"
    done <<< "$WRITTEN"
    listed "$1" | sed -n 's|^eval/||p' | while read -r name; do
        grep -qF "\"${name/NAME/%s}\"" controller/view/eval_report.c common/config/eval_set.c ||
            echo "$1 lists eval/$name, which is not in metrics.jsonl"
    done
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
KEYS=$(known_keys)
WRITTEN=$(written)

# It finds what is wrong: a key, a name, a file, two figures, three links.
cat docs/metrics.md - > "$scratch/metrics.md" << 'WRONG'
| `train/log_probs_differ`, `_max` | | |
WRONG
printf '`algorithm.no_key` `no_such_name` `train_worker/no_file.c`\n' > "$scratch/algorithms.md"
printf '[a](no_page.md) [b](metrics.md#no-heading) [c](#nor-here) [d](metrics.md) [e](https://a.b/c)\n' \
    >> "$scratch/algorithms.md"
found=$(check_keys "$scratch/algorithms.md"; check_words "$scratch/algorithms.md"
    check_files "$scratch/algorithms.md"; check_links "$scratch/algorithms.md" docs
    check_figures "$scratch/metrics.md")
[ "$(wc -l <<< "$found")" -eq 8 ] || { echo "of 8 wrong names it finds: $found"; exit 1; }

for page in README.md docs/*.md; do
    check_keys $page
    check_files $page
    check_links $page
done > "$scratch/wrong"
check_words docs/algorithms.md >> "$scratch/wrong"
check_figures docs/metrics.md >> "$scratch/wrong"
cat "$scratch/wrong"
[ ! -s "$scratch/wrong" ]
