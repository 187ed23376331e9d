#!/usr/bin/env bash
# Submits a task, follows it to its end and prints its report; see README.md.
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
number() { sed -En "s/.*\"$1\":([0-9]+).*/\1/p"; }
ids() { grep -o '"id":"[^"]*"' | cut -d '"' -f 4 | paste -s -d , - | sed 's/,/, /g'; }

status=$(call /v1/status)
echo "Runtime: mode $(text mode <<<"$status"), version $(text version <<<"$status")," \
  "$(number activeTasks <<<"$status") active of $(number totalTasks <<<"$status") tasks"

id=$(call /v1/tasks --json '{
  "description": "Analyze project architecture",
  "input": "Review the current codebase structure",
  "agentId": "architecture-advisor"
}' | text id)
echo "Task submitted: $id"

progress=0
while IFS= read -r line; do
  case $line in
    data:*)
      now=$(number progress <<<"$line")
      progress=${now:-$progress}
      echo "Status: $(text status <<<"$line"), Progress: $progress%"
      ;;
  esac
done < <(call "/v1/tasks/$id/stream?after=0" --no-buffer)

task=$(call "/v1/tasks/$id")
echo "Current status: $(text status <<<"$task")"
echo "Available agents: $(call /v1/agents | ids)"
echo "Available skills: $(call /v1/skills | ids)"
echo
case $(text status <<<"$task") in
  completed) printf '%b\n' "$(text output <<<"$task" | sed 's/\\"/"/g')" ;;
  *)
    text error <<<"$task" >&2
    exit 1
    ;;
esac
