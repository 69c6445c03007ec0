# What the clients' `run` scripts share: installing what a client needs into $work, once.
# Source this file; it sets `interop` (the folder of all clients), `work` and `limit` (the seconds that a run may take).
set -uo pipefail
interop=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"
limit=600
[ -n "${SHORT:-}" ] && limit=240

# cannot WHAT LOG: ends the script as one whose client cannot be installed here.
cannot() {
    tail -n 40 "$2" >&2
    echo "skip all: $1 (see $2)"
    exit 77
}

# version NUMBER...: what the matrix calls this client.
version() { echo "version $*"; }

# lock NAME: clients that run side by side install and build one after the other what they share. Held until `unlock`.
lock() {
    exec {lock}>"$work/$1.lock"
    flock "$lock"
}
unlock() { exec {lock}>&-; }

# Is what is installed in a folder what these files ask for? `installed FOLDER FILE...` then writes down that it is.
is_current() {
    local folder=$1
    shift
    cat "$@" | cmp -s - "$folder/.installed"
}
installed() {
    local folder=$1
    shift
    cat "$@" >"$folder/.installed"
}

# All Python clients live in one virtual environment; sets `python`. Called with the name of the package that is wanted.
python_clients() {
    local list="$interop/requirements.txt" log="$work/python-install.log"
    python="$work/python/bin/python"
    export PYTHONPATH="$interop/shared" PYTHONDONTWRITEBYTECODE=1
    version "$(sed -n "s/^$1==//p" "$list")"
    lock python
    if ! is_current "$work/python" "$list"; then
        { python3 -m venv --clear "$work/python" && "$work/python/bin/pip" install --quiet -r "$list"; } >"$log" 2>&1 ||
            cannot "the Python clients could not be installed" "$log"
        installed "$work/python" "$list"
    fi
    unlock
}

# All Node clients are one npm project; sets `node_folder`, where the sources are copied beside the modules. Called with the
# name of the package that is wanted.
node_clients() {
    local log="$work/node-install.log"
    node_folder="$work/node"
    version "$(sed -n "s/^ *\"${1//\//\\/}\": \"\(.*\)\",*$/\1/p" "$interop/package.json")"
    mkdir -p "$node_folder"
    lock node
    cp "$interop"/package.json "$interop"/package-lock.json "$node_folder/"
    if ! is_current "$node_folder" "$interop/package-lock.json"; then
        (cd "$node_folder" && npm ci --no-audit --no-fund) >"$log" 2>&1 || cannot "the Node clients could not be installed" "$log"
        installed "$node_folder" "$interop/package-lock.json"
    fi
    mkdir -p "$node_folder/shared"
    cp "$interop"/shared/*.mjs "$node_folder/shared/"
    unlock
}

# All Go clients are one module; `go_client NAME MODULE` builds one of them and sets `program`.
go_client() {
    local log="$work/go-$1.log"
    version "$(sed -n "s|^\s*$2 v||p" "$interop/go.mod")"
    program="$work/go/$1"
    (cd "$interop" && go build -o "$program" "./$1") >"$log" 2>&1 || cannot "$1 could not be built" "$log"
}

# The Rust clients are one package; `rust_client NAME` builds them and sets `program`. Both are built at once, so that what they
# share is built once; if that fails, the one that is asked for is built alone.
rust_client() {
    local log="$work/rust-$1.log"
    version "$(sed -n "/^name = \"$1\"/{n;s/^version = \"\(.*\)\"/\1/p}" "$interop/Cargo.lock")"
    program="$work/rust/debug/$1"
    # The C compiler's last word: librdkafka's own flags would take it twice as long.
    local cargo=(env -u RUSTFLAGS CFLAGS="-O0 -g0" CARGO_TARGET_DIR="$work/rust" cargo build --quiet --locked)
    lock rust
    (cd "$interop" && { "${cargo[@]}" --all-features --bins || "${cargo[@]}" --features "$1" --bin "$1"; }) >"$log" 2>&1 ||
        cannot "$1 could not be built" "$log"
    unlock
}

# Apache Kafka's jars: the Java client, its tools and the broker; sets `jars`, a class path.
java_jars() {
    local log="$work/java-install.log"
    jars="$work/java/lib/*"
    lock java
    if ! is_current "$work/java/lib" "$interop/pom.xml"; then
        rm -rf "$work/java/lib"
        mvn -B -q -f "$interop/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
            -DoutputDirectory="$work/java/lib" >"$log" 2>&1 || cannot "Apache Kafka's jars could not be fetched" "$log"
        installed "$work/java/lib" "$interop/pom.xml"
    fi
    unlock
}
