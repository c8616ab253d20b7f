-- Approvals signed by the notary and by people, a ledger whose entries are chained by hash, signed heads of it,
-- promotions as recorded steps, and every attempt to answer an approval request.

ALTER TABLE approvals
    ADD COLUMN statement text,
    ADD COLUMN signature text,
    ADD CHECK ((statement IS NULL) = (signature IS NULL));
COMMENT ON COLUMN approvals.statement IS 'the canonical JSON that the notary signed; an approval without one counts for nothing';

CREATE TABLE personal_signatures (
    release_id  text NOT NULL REFERENCES releases,
    fingerprint text NOT NULL,
    principal   text NOT NULL,
    signature   text NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (release_id, signature)
);
COMMENT ON TABLE personal_signatures IS 'signatures of people over a release id; whoever reads one verifies it';

-- The ledger keeps decisions, refusals and revocations beside the moves of aliases.
ALTER TABLE release_ledger
    ALTER COLUMN entry DROP IDENTITY,
    ALTER COLUMN alias DROP NOT NULL,
    ALTER COLUMN to_release DROP NOT NULL,
    ALTER COLUMN at SET DEFAULT clock_timestamp(),
    DROP CONSTRAINT release_ledger_action_check,
    ADD COLUMN authentication text NOT NULL DEFAULT '',
    ADD COLUMN previous text,
    ADD COLUMN hash text;
COMMENT ON COLUMN release_ledger.authentication IS 'how the name of the actor is known';

-- Fields are written as <octets>:<text>, null as -, so that no two entries have the same text to hash.
CREATE FUNCTION ledger_field(field text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog
AS $$ SELECT coalesce(octet_length(field) || ':' || field, '-') $$;

CREATE FUNCTION ledger_hash(made release_ledger) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, public
AS $$
    SELECT encode(sha256(convert_to(
        ledger_field(made.previous) || ledger_field(made.entry::text) || ledger_field(made.assistant)
        || ledger_field(made.alias) || ledger_field(made.action) || ledger_field(made.from_release)
        || ledger_field(made.to_release) || ledger_field(made.actor) || ledger_field(made.authentication)
        || ledger_field(made.reason) || ledger_field(made.report_hash) || ledger_field(made.approval_nonce::text)
        || ledger_field((extract(epoch FROM made.at) * 1000000)::bigint::text), 'UTF8')), 'hex')
$$;

-- Entries made before there was a chain become its beginning, numbered without gaps.
DO $$
DECLARE
    known release_ledger;
    number bigint := 0;
    head text := repeat('0', 64);
BEGIN
    FOR known IN SELECT * FROM release_ledger ORDER BY entry LOOP
        number := number + 1;
        UPDATE release_ledger SET entry = number, previous = head WHERE entry = known.entry;
        UPDATE release_ledger r SET hash = ledger_hash(r) WHERE entry = number RETURNING hash INTO head;
    END LOOP;
END
$$;

ALTER TABLE release_ledger
    ALTER COLUMN previous SET NOT NULL,
    ALTER COLUMN hash SET NOT NULL,
    ADD CHECK (action IN ('stage', 'promote', 'roll back', 'go back', 'approve', 'reject', 'refuse', 'revoke')),
    ADD CHECK ((alias IS NOT NULL) = (action IN ('stage', 'promote', 'roll back', 'go back'))),
    ADD CHECK (to_release IS NOT NULL OR action IN ('refuse', 'go back'));

-- The only way into the ledger. What each role may enter, and what must be there before, is decided here, so that
-- no process can enter a promotion that the notary did not approve, or a decision that the notary did not make.
CREATE FUNCTION append_ledger_entry(new_entry jsonb) RETURNS release_ledger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    made release_ledger := jsonb_populate_record(NULL::release_ledger, new_entry);
    decides boolean := made.action IN ('approve', 'reject');
    head release_ledger;
    present text;
BEGIN
    IF made.action <> 'refuse'
        AND ((session_user = 'llmops_notary' AND NOT decides) OR (session_user = 'llmops_worker' AND decides))
    THEN
        RAISE EXCEPTION '% may not enter % into the ledger', session_user, quote_literal(made.action)
            USING ERRCODE = '42501';
    END IF;
    PERFORM pg_advisory_xact_lock(7311002);
    SELECT to_release INTO present FROM release_ledger
        WHERE assistant = made.assistant AND alias = 'production' ORDER BY entry DESC LIMIT 1;
    IF made.action = 'stage' AND NOT EXISTS (
        SELECT FROM gate_reports g WHERE g.report_hash = made.report_hash AND g.release_id = made.to_release
            AND g.verdict = 'PASS')
    THEN
        RAISE EXCEPTION 'release % has no PASS of its gate', left(made.to_release, 12) USING ERRCODE = '42501';
    END IF;
    IF made.action = 'promote' AND NOT EXISTS (
        SELECT FROM approvals a JOIN gate_reports g USING (report_hash)
        WHERE a.nonce = made.approval_nonce AND a.decision = 'approved' AND a.signature IS NOT NULL
            AND a.release_id = made.to_release AND g.release_id = made.to_release
            AND a.report_hash = made.report_hash AND a.expires_at > clock_timestamp()
            AND g.baseline IS NOT DISTINCT FROM present)
    THEN
        RAISE EXCEPTION 'release % has no approval by the notary that holds now', left(made.to_release, 12)
            USING ERRCODE = '42501';
    END IF;
    IF made.action = 'go back' AND made.to_release IS NULL AND (
        made.from_release IS DISTINCT FROM present OR EXISTS (
            SELECT FROM release_ledger l WHERE l.assistant = made.assistant AND l.action = 'promote'
                AND l.to_release = present AND l.from_release IS NOT NULL))
    THEN
        RAISE EXCEPTION 'production of % cannot go back to none', made.assistant USING ERRCODE = '42501';
    END IF;
    IF made.action = 'revoke' AND made.to_release = present THEN
        RAISE EXCEPTION 'release % is in production', left(made.to_release, 12) USING ERRCODE = '42501';
    END IF;
    IF made.action IN ('roll back', 'go back') AND made.to_release IS NOT NULL AND NOT EXISTS (
        SELECT FROM release_ledger l WHERE l.assistant = made.assistant AND l.to_release = made.to_release
            AND l.alias = 'production')
    THEN
        RAISE EXCEPTION 'release % never was in production', left(made.to_release, 12) USING ERRCODE = '42501';
    END IF;
    IF made.alias = 'production' AND EXISTS (
        SELECT FROM release_ledger l WHERE l.to_release = made.to_release AND l.action = 'revoke')
    THEN
        RAISE EXCEPTION 'release % is revoked', left(made.to_release, 12) USING ERRCODE = '42501';
    END IF;
    SELECT * INTO head FROM release_ledger ORDER BY entry DESC LIMIT 1;
    made.entry := coalesce(head.entry, 0) + 1;
    made.previous := coalesce(head.hash, repeat('0', 64));
    made.at := clock_timestamp();
    made.authentication := coalesce(made.authentication, '');
    made.hash := ledger_hash(made);
    INSERT INTO release_ledger SELECT made.*;
    RETURN made;
END
$$;
REVOKE ALL ON FUNCTION append_ledger_entry, ledger_hash, ledger_field FROM PUBLIC;
GRANT EXECUTE ON FUNCTION append_ledger_entry TO llmops_worker, llmops_notary;

CREATE TABLE ledger_heads (
    entry     bigint PRIMARY KEY,
    statement text NOT NULL,
    signature text NOT NULL
);
COMMENT ON TABLE ledger_heads IS 'number and hash of entries, signed by the notary: they outlive a ledger that was cut or rewritten';

CREATE TABLE promotions (
    promotion_id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    assistant      text NOT NULL,
    action         text NOT NULL CHECK (action IN ('promote', 'roll back')),
    from_release   text REFERENCES releases,
    to_release     text NOT NULL REFERENCES releases,
    actor          text NOT NULL,
    authentication text NOT NULL,
    reason         text NOT NULL,
    report_hash    text REFERENCES gate_reports,
    approval_nonce uuid REFERENCES approvals,
    state          text NOT NULL DEFAULT 'running'
                   CHECK (state IN ('running', 'complete', 'gone back', 'superseded')),
    steps          jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(steps) = 'array'),
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at       timestamptz,
    CHECK ((state = 'running') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX promotions_running ON promotions (assistant) WHERE state = 'running';
CREATE INDEX promotions_by_release ON promotions (to_release, started_at);
COMMENT ON COLUMN promotions.steps IS 'each step with the time it began and the time it was done, in order';

ALTER TABLE replicas ADD COLUMN address text;
COMMENT ON COLUMN replicas.address IS 'where this replica alone can be asked';

CREATE TABLE approval_attempts (
    attempt bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dag_id  text NOT NULL,
    run_id  text NOT NULL,
    task_id text NOT NULL,
    person  text,
    chosen  text NOT NULL,
    status  integer NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    entry   bigint REFERENCES release_ledger
);
CREATE INDEX approval_attempts_new ON approval_attempts (attempt) WHERE entry IS NULL;
COMMENT ON TABLE approval_attempts IS 'every answer that reached Airflow, with the status it got; entry is its line in the ledger';

REVOKE INSERT ON release_ledger FROM llmops_worker;
GRANT SELECT, INSERT ON personal_signatures TO llmops_worker;
GRANT SELECT ON personal_signatures TO llmops_notary, llmops_serving;
GRANT SELECT ON release_ledger TO llmops_notary;
GRANT SELECT ON ledger_heads, approval_attempts TO llmops_worker;
GRANT SELECT, INSERT ON ledger_heads TO llmops_notary;
GRANT SELECT, UPDATE (entry) ON approval_attempts TO llmops_notary;
GRANT INSERT (dag_id, run_id, task_id, person, chosen, status) ON approval_attempts TO llmops_worker;
GRANT SELECT, INSERT ON promotions TO llmops_worker;
GRANT UPDATE (state, steps, ended_at) ON promotions TO llmops_worker;
GRANT SELECT ON gate_reports TO llmops_serving;
