DROP TABLE logins, session_memory, stream_tickets, used_tokens, signing_keys, device_challenges, enrolment_codes,
    refresh_tokens, sessions, devices, api_keys, role_bindings, users, access_generation;
DROP SEQUENCE session_memory_versions;
DROP FUNCTION count_access_change;
