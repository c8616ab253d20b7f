-- What was answered and what people said about it. The service opens a row before the first byte of an
-- answer and closes it afterwards; nobody but the owner deletes.

CREATE TABLE answer_log (
    answer_id       text PRIMARY KEY CHECK (length(answer_id) BETWEEN 1 AND 64),
    assistant       text NOT NULL,
    release_id      text NOT NULL,
    question        text NOT NULL,
    text            text NOT NULL DEFAULT '',
    refused         boolean NOT NULL DEFAULT false,
    chunks          jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(chunks) = 'array'),
    usage           jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(usage) = 'object'),
    latency_seconds double precision CHECK (latency_seconds >= 0),
    status          text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'complete', 'failed')),
    created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at       timestamptz,
    CHECK ((status = 'open') = (closed_at IS NULL))
);
CREATE INDEX answer_log_created ON answer_log (created_at, answer_id);
CREATE INDEX answer_log_assistant ON answer_log (assistant, created_at);

CREATE TABLE feedback (
    feedback_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    answer_id   text NOT NULL REFERENCES answer_log (answer_id),
    rating      text NOT NULL CHECK (rating IN ('up', 'down')),
    comment     text CHECK (length(comment) <= 10000),
    correction  text CHECK (length(correction) <= 20000),
    person      text CHECK (length(person) <= 200),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX feedback_answer ON feedback (answer_id);
CREATE INDEX feedback_created ON feedback (created_at, feedback_id);

GRANT SELECT, INSERT (answer_id, assistant, release_id, question) ON answer_log TO llmops_serving;
GRANT UPDATE (text, refused, chunks, usage, latency_seconds, status, closed_at) ON answer_log TO llmops_serving;
GRANT SELECT, INSERT (answer_id, rating, comment, correction, person) ON feedback TO llmops_serving;
GRANT SELECT ON answer_log, feedback TO llmops_worker;
