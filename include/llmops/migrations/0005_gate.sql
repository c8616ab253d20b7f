-- What the gate's reports name by digest: questions, and what was answered to them, each of which can be erased.

CREATE TABLE gate_texts (
    digest    text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    content   text,
    erased_at timestamptz,
    CONSTRAINT gate_texts_hash CHECK (encode(sha256(convert_to(content, 'UTF8')), 'hex') = digest),
    CONSTRAINT gate_texts_erased CHECK ((content IS NULL) = (erased_at IS NOT NULL))
);
COMMENT ON TABLE gate_texts IS
    'canonical JSON by its sha-256; an erased text leaves its digest, so that reports keep their hash';

GRANT SELECT, INSERT ON gate_texts TO llmops_worker;
GRANT UPDATE (content, erased_at) ON gate_texts TO llmops_worker;
-- The page of a report shows questions: erasing one writes the page again. The page is no part of the evidence.
GRANT UPDATE (markdown) ON gate_reports TO llmops_worker;
GRANT SELECT ON gate_texts TO llmops_serving, llmops_notary;
GRANT SELECT ON gate_reports TO llmops_serving;
