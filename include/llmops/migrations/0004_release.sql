-- Releases, the gate's reports, approvals, the ledger of aliases, and what each replica serves.

CREATE TABLE releases (
    release_id  text PRIMARY KEY CHECK (release_id ~ '^[0-9a-f]{64}$'),
    assistant   text NOT NULL,
    manifest    text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE gate_reports (
    report_hash text PRIMARY KEY CHECK (report_hash ~ '^[0-9a-f]{64}$'),
    release_id  text NOT NULL REFERENCES releases,
    baseline    text REFERENCES releases,
    verdict     text NOT NULL CHECK (verdict IN ('PASS', 'FAIL', 'INCOMPLETE')),
    report      text NOT NULL,
    markdown    text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN gate_reports.baseline IS 'the production release that the gate compared with; null when there was none';

CREATE TABLE approval_requests (
    nonce       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    release_id  text NOT NULL REFERENCES releases,
    report_hash text NOT NULL REFERENCES gate_reports,
    assistant   text NOT NULL,
    environment text NOT NULL,
    deadline    timestamptz NOT NULL,
    dag_id      text NOT NULL,
    run_id      text NOT NULL,
    task_id     text NOT NULL,
    opened_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dag_id, run_id, task_id)
);

CREATE TABLE approvals (
    nonce       uuid PRIMARY KEY REFERENCES approval_requests,
    release_id  text NOT NULL REFERENCES releases,
    report_hash text NOT NULL REFERENCES gate_reports,
    decision    text NOT NULL CHECK (decision IN ('approved', 'rejected')),
    approver    text,
    reason      text NOT NULL,
    channel     text NOT NULL CHECK (channel IN ('airflow', 'demo')),
    environment text NOT NULL,
    answered_at timestamptz,
    expires_at  timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CHECK (decision = 'rejected' OR (approver IS NOT NULL AND answered_at IS NOT NULL)),
    CHECK (channel <> 'demo' OR environment = 'dev')
);
COMMENT ON TABLE approvals IS 'written by the notary alone; expires_at bounds the time from approval to promotion';

CREATE TABLE release_ledger (
    entry          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    assistant      text NOT NULL,
    alias          text NOT NULL CHECK (alias IN ('staging', 'production')),
    action         text NOT NULL CHECK (action IN ('stage', 'promote', 'roll back')),
    from_release   text REFERENCES releases,
    to_release     text NOT NULL REFERENCES releases,
    actor          text NOT NULL,
    reason         text NOT NULL,
    report_hash    text REFERENCES gate_reports,
    approval_nonce uuid REFERENCES approvals,
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX release_ledger_by_alias ON release_ledger (assistant, alias, entry DESC);

CREATE TABLE replicas (
    assistant   text NOT NULL,
    replica_id  text NOT NULL,
    release_id  text NOT NULL,
    code_digest text NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (assistant, replica_id)
);

GRANT SELECT, INSERT ON releases, gate_reports, approval_requests, release_ledger TO llmops_worker;
GRANT SELECT ON approvals, replicas TO llmops_worker;
GRANT SELECT ON releases, gate_reports, approval_requests TO llmops_notary;
GRANT SELECT, INSERT ON approvals TO llmops_notary;
GRANT SELECT ON releases, approvals, release_ledger TO llmops_serving;
GRANT SELECT, INSERT, UPDATE, DELETE ON replicas TO llmops_serving;
