#!/usr/bin/env bash
# Drives tasks through their life by hand; see README.md.
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

submit() { # submit DESCRIPTION AGENT [PARENT]
  call /v1/tasks --json '{"description": "'"$1"'", "input": "Build a dashboard for the team", "agentId": "'"$2"'",
    "dispatch": "manual"'"${3:+, \"parentTaskId\": \"$3\"}"'}' | text id
}

update() { # update ID CHANGES
  show "$(call "/v1/tasks/$1" --request PATCH --json "$2")"
}

show() { # show TASK
  local reason error output
  reason=$(text waitingReason <<<"$1")
  error=$(text error <<<"$1")
  output=$(text output <<<"$1")
  echo "   Status: $(text status <<<"$1")${reason:+ ($reason)}, Progress: $(number progress <<<"$1")%"
  if [ -n "$error" ]; then echo "   Error: $error"; fi
  if [ -n "$output" ]; then echo "   Output: $output"; fi
}

one_per_line=$'}\n{'

feature=$(submit "Feature development" architecture-advisor)
echo "Feature development: $feature"

echo
echo "1. Design API: progress until it is done"
design=$(submit "Design API" architecture-advisor "$feature")
update "$design" '{"status": "planning"}'
update "$design" '{"status": "running"}'
for percent in 25 50 75 100; do
  update "$design" '{"progress": '$percent'}'
done
update "$design" '{"status": "completed", "output": "Six routes, one document"}'

echo
echo "2. Implement code: waits for an answer"
implement=$(submit "Implement code" code-creator "$feature")
update "$implement" '{"status": "planning"}'
update "$implement" '{"status": "running", "progress": 30}'
update "$implement" '{"status": "waiting", "waitingReason": "input", "message": "Which chart library?"}'
update "$implement" '{"status": "running", "message": "The one we have"}'
update "$implement" '{"status": "completed", "progress": 100, "output": "Dashboard implemented"}'

echo
echo "3. Write tests: fails"
tests=$(submit "Write tests" test-generator "$feature")
update "$tests" '{"status": "planning"}'
update "$tests" '{"status": "running", "progress": 20}'
update "$tests" '{"error": "The test framework is not configured"}'

echo
echo "4. Write documentation: a step that is not allowed"
documentation=$(submit "Write documentation" documentation-agent "$feature")
if refusal=$(call "/v1/tasks/$documentation" --request PATCH --json '{"status": "completed"}' 2>/dev/null); then
  echo "The server let a pending task complete." >&2
  exit 1
fi
echo "   Refused: $(text detail <<<"$refusal")"

echo
echo "5. Feature development: cancelled, with what is open below it"
show "$(call "/v1/tasks/$feature/cancel" --request POST)"

echo
echo "6. What became of the parts, newest first"
parts=$(call "/v1/tasks?parentTaskId=$feature")
while IFS= read -r part; do
  echo "   $(text description <<<"$part"): $(text status <<<"$part")"
done <<<"${parts//\},\{/$one_per_line}"

echo
echo "7. The history of \"Implement code\""
events=$(call "/v1/tasks/$implement/events")
while IFS= read -r event; do
  message=$(text message <<<"$event")
  echo "   $(number seq <<<"$event") $(text type <<<"$event"): $(text status <<<"$event")${message:+, $message}"
done <<<"${events//\},\{/$one_per_line}"
