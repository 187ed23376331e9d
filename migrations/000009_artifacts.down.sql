DROP TABLE artifacts;
DROP TABLE artifact_chunks;
DROP TABLE artifact_contents;
