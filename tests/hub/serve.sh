# Shared by scripts that read from a Hub: a server that answers as it does, over the folder `server`. Source it after
# e2e/lib.sh.
command -v python3 > /dev/null || { echo "no python3 to serve"; exit 77; }
hub_commit=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa

# start_server: and names it to whoever is started from here on.
start_server() {
    mkdir -p server hold
    rm -f hold/input ports
    mkfifo hold/input
    python3 "$SOURCE/tests/hub/hub_server.py" server < hold/input > ports &
    server=$!
    exec 9> hold/input
    for _ in $(seq 200); do
        [ ! -s ports ] || break
        sleep 0.05
    done
    read -r port _ < ports || fail "the server did not start"
    export HF_ENDPOINT=http://127.0.0.1:$port HF_HOME=$PWD/home
}

stop_server() {
    exec 9>&-
    wait "$server" || true
}
trap 'kill "$server" 2> /dev/null || true' EXIT

# serve_repo NAME: its commit is main, and its files are those in $files.
serve_repo() {
    files=server/repos/$1/$hub_commit
    mkdir -p "$files"
    echo "{\"branches\": {\"main\": \"$hub_commit\"}}" > "server/repos/$1/refs.json"
}

# disturb RULE...: what the server does wrong, from here on.
disturb() {
    local IFS=,
    echo "[$*]" > server/faults.new
    mv server/faults.new server/faults.json
}

# asked PART: how many requests had it.
asked() { grep -c -- "$1" server/requests.jsonl || true; }
