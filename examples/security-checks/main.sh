#!/usr/bin/env bash
# Asks what a session may do before it does it, and reads what the audit log
# says of that; see README.md.
set -euo pipefail

server=${CODERCLAW_URL:-http://127.0.0.1:7433}
authorization=()

call() { # call PATH [CURL OPTION...]
  local path=$1
  shift
  curl --silent --show-error --fail-with-body ${authorization[@]+"${authorization[@]}"} "$@" "$server$path"
}

# The values of these few plain fields can be cut out; anything more is for jq.
text() { grep -oE "\"$1\":\"([^\"\\]|\\\\.)*\"" | head -n 1 | cut -d '"' -f 4; }

session=$(call /v1/sessions --json '{"login": "'"$CLAW_USER"'", "password": "'"$CLAW_PASSWORD"'", "roles": ["developer"]}')
echo "Session of $(text userId <<<"$session") with the roles [developer]"
authorization=(--header "Authorization: Bearer $(text accessToken <<<"$session")")

for permission in task:submit config:write; do
  decision=$(call /v1/permissions/check --json '{"permission": "'"$permission"'"}')
  case $decision in
    *'"allowed":true'*) verdict=granted ;;
    *) verdict=denied ;;
  esac
  echo "$permission: $verdict: $(text reason <<<"$decision")"
done

id=$(call /v1/tasks --json '{
  "description": "Implement user authentication",
  "input": "Add JWT-based auth to the API",
  "dispatch": "manual"
}' | text id)
echo "Submitted $id"

entries=$(call "/v1/audit?resourceId=$id")
echo "Audited: $(text action <<<"$entries") $(text result <<<"$entries"), $(text reason <<<"$entries")"

call /v1/sessions/current --request DELETE
if call /v1/me > /dev/null 2>&1; then
  echo "the session goes on" >&2
  exit 1
fi
echo "The session has ended"
