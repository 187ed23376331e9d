#!/usr/bin/env bash
# Has a feature made by several agents, one after the other; see README.md.
set -euo pipefail

server=${CODERCLAW_URL:-http://127.0.0.1:7433}
authorization=()
if [ -n "${CODERCLAW_TOKEN:-}" ]; then
  authorization=(--header "Authorization: Bearer $CODERCLAW_TOKEN")
fi

call() { # call PATH [CURL OPTION...]
  local path=$1
  shift
  curl --silent --show-error --fail-with-body ${authorization[@]+"${authorization[@]}"} "$@" "$server$path"
}

# The values of these few plain fields can be cut out; anything more is for jq.
text() { sed -En "s/.*\"$1\":\"(([^\"\\]|\\\\.)*)\".*/\1/p"; }

update() { # update CHANGES
  call "/v1/tasks/$feature" --request PATCH --json "$1" > /dev/null
}

part() { # part DESCRIPTION INPUT AGENT [AFTER]
  local task
  if ! task=$(call /v1/tasks --json '{"description": "'"$1"'", "input": "'"$2"'", "agentId": "'"$3"'",
    "parentTaskId": "'"$feature"'"'"${4:+, \"dependsOn\": [\"$4\"]}"'}'); then
    fail "$(text detail <<<"$task")"
  fi
  text id <<<"$task"
}

finish() { # finish ID: waits until the task has ended
  local task status
  call "/v1/tasks/$1/stream" --no-buffer > /dev/null
  task=$(call "/v1/tasks/$1")
  status=$(text status <<<"$task")
  echo "  $(text description <<<"$task"): $status by $(text agentId <<<"$task")"
  if [ "$status" != completed ]; then
    fail "$(text error <<<"$task")"
  fi
}

fail() { # fail WHY
  update '{"error": "'"$1"'"}'
  echo "$1" >&2
  exit 1
}

feature=$(call /v1/tasks --json '{"description": "Feature development", "input": "Build new dashboard feature",
  "agentId": "architecture-advisor", "dispatch": "manual"}' | text id)
echo "Feature development: $feature"
design=$(part "Design API" "Design RESTful API for dashboard" architecture-advisor)
implement=$(part "Implement code" "Implement dashboard backend" code-creator "$design")
tests=$(part "Write tests" "Create test suite for dashboard" test-generator "$implement")
update '{"status": "planning"}'
update '{"status": "waiting", "waitingReason": "dependency"}'
finish "$design"
finish "$implement"
finish "$tests"
update '{"status": "running"}'
update '{"status": "completed", "progress": 100, "output": "All parts are there"}'

echo
one_per_line=$'}\n{'
tree=$(call "/v1/tasks/$feature/tree")
while IFS= read -r task; do
  case $task in *'"parentTaskId"'*) printf '  ' ;; esac
  echo "$(text description <<<"$task"): $(text status <<<"$task")"
done <<<"${tree//\},\{/$one_per_line}"
