#!/usr/bin/env bash
# A realm of two agents on this machine: builds, joins, pushes, and follows the log.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
demo=target/demo
pids=()

step() { printf '\n== %s\n' "$*"; }
show() { printf '$ realm %s\n' "$*"; "$realm" "$@"; }

stop() {
  local code=$?
  trap - EXIT INT TERM
  if ((${#pids[@]})); then
    step "Stopping the agents"
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    echo "Both have stopped. Their state and logs are in $demo."
  fi
  exit "${1:-$code}"
}
trap stop EXIT
trap 'echo; stop 0' INT TERM

agent() { # NAME TOKEN_FILE
  # A session of its own, so that Ctrl-C reaches this script alone and the stop is orderly.
  setsid "$realm" agent --data "$demo/$1" --name "$1" --no-mdns --http 127.0.0.1:0 \
    --listen /ip4/127.0.0.1/udp/0/quic-v1 --listen /ip4/127.0.0.1/tcp/0 \
    --enroll-file "$2" >"$demo/$1.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 300); do
    [[ ! -s $demo/$1/agent.json ]] || return 0
    if ! kill -0 "${pids[-1]}" 2>/dev/null; then break; fi
    read -rt 0.1 <> <(:) || true
  done
  echo "The agent '$1' did not start. It said:" >&2
  tail -20 "$demo/$1.log" >&2
  exit 1
}

address() { # NAME: where the agent listens; the file says so
  sed -n 's|.*"\(/ip4/127[^"]*\)".*|\1|p' "$demo/$1/agent.json" | head -n 1
}

step "Building realm (a few minutes the first time)"
cargo build --locked -p realm
realm=$target/debug/realm

rm -rf "$demo"
mkdir -p "$demo"
export REALM_CONFIG_DIR=$PWD/$demo/config REALM_STATE_DIR=$PWD/$demo/state
export REALM_DATA_DIR=$PWD/$demo/data XDG_RUNTIME_DIR=$PWD/$demo/run
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
unset REALM_KEY REALM_PASSPHRASE_FILE REALM_AGENT_CONFIG REALM_REALM REALM_VIA

step "Making an owner key and a realm; both stay under $demo"
show init

step "Starting the first agent with an invite"
"$realm" invite --name one >"$demo/one.token"
agent one "$demo/one.token"
first=$(address one)
echo "one listens on $first"

step "Starting the second agent; its invite says where the first is"
"$realm" invite --name two --bootstrap "$first" >"$demo/two.token"
agent two "$demo/two.token"
export REALM_VIA=$first

step "Pushing the committed example: every node runs it"
show push ticker guests/prebuilt/ticker.wasm --env NAME=demo --wait

step "What runs where"
show status

step "Following its output; Ctrl-C stops the demo"
show logs ticker -f
