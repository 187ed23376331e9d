DROP TABLE logins, session_memory, stream_tickets, used_tokens, signing_keys, enrolment_codes,
    refresh_tokens, sessions, devices, api_keys, role_bindings, users, access_generation;
DROP FUNCTION count_access_change;
