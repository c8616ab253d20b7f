-- Vectors already made: the sha-256 of a text and the embedder's fingerprint give float32 numbers,
-- little-endian, exactly as the embedder returned them. Rows are never updated.
CREATE TABLE vector_cache (
    fingerprint text NOT NULL,
    text_hash bytea NOT NULL CHECK (octet_length(text_hash) = 32),
    vector bytea NOT NULL CHECK (octet_length(vector) > 0 AND octet_length(vector) % 4 = 0),
    PRIMARY KEY (fingerprint, text_hash)
);
ALTER TABLE vector_cache ALTER COLUMN vector SET STORAGE PLAIN;
GRANT SELECT, INSERT ON vector_cache TO llmops_worker;
