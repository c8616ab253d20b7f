-- Index generations: one table of vectors and words per embedder and chunker. Workers own no table, so the
-- functions below create and drop them as the owner: names are validated and quoted, search_path is pinned.

CREATE TABLE index_generations (
    id             text PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9_]{0,44}$'),
    assistant      text NOT NULL,
    embedder       jsonb NOT NULL,
    fingerprint    text NOT NULL,
    dimension      integer NOT NULL CHECK (dimension BETWEEN 1 AND 2000),
    chunker        text NOT NULL,
    state          text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'live', 'retired')),
    watermark      bigint,
    lineage        text,
    fence          bigint NOT NULL DEFAULT 0,
    chunks         bigint NOT NULL DEFAULT 0 CHECK (chunks >= 0),
    vector_index   boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    synced_at      timestamptz
);
COMMENT ON COLUMN index_generations.embedder IS 'the pin of the registered embedder: uri and sha-256 of its files';
COMMENT ON COLUMN index_generations.watermark IS 'version of the chunks table that the generation holds; null before the first load';
COMMENT ON COLUMN index_generations.lineage IS 'identity of the chunks table the watermark counts in; another table means a full comparison';
COMMENT ON COLUMN index_generations.fence IS 'counts committed writes; a writer that slept finds it moved and is refused';

-- What a person searches for in technical text: identifiers as a whole and in their parts, so that
-- psycopg_pool.ConnectionPool is found by "connection pool" and by "ConnectionPool".
CREATE FUNCTION index_words(body text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT SET search_path = pg_catalog
AS $$
    SELECT regexp_replace(body, '[_/\\:=<>()\[\]{}`"''|*#,;!?-]+|\.(?=[[:alpha:]_])', ' ', 'g')
        || coalesce(
            (SELECT ' ' || string_agg(regexp_replace(found[1], '([a-z0-9])([A-Z])', '\1 \2', 'g'), ' ')
             FROM regexp_matches(body, '([A-Za-z0-9]*[a-z0-9][A-Z][A-Za-z0-9]*)', 'g') AS found), '')
$$;

CREATE FUNCTION index_search_vector(title text, heading_path text[], body text) RETURNS tsvector
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, public
AS $$
    SELECT setweight(to_tsvector('pg_catalog.english', public.index_words(left(title, 1000))), 'A')
        || setweight(to_tsvector('pg_catalog.english',
               public.index_words(left(array_to_string(heading_path, ' '), 2000))), 'B')
        || setweight(to_tsvector('pg_catalog.english', public.index_words(body)), 'D')
$$;

CREATE FUNCTION create_index_generation(
    generation_id text, for_assistant text, with_embedder jsonb, with_fingerprint text, with_dimension integer,
    with_chunker text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    content text := 'generation_' || generation_id;
    words text := 'words_' || generation_id;
BEGIN
    IF generation_id !~ '^[a-z][a-z0-9_]{0,44}$' THEN
        RAISE EXCEPTION 'generation id % is not valid', quote_literal(generation_id) USING ERRCODE = '22023';
    END IF;
    -- Of several at once the first to insert the row creates the tables; the others wait here for its commit.
    INSERT INTO index_generations (id, assistant, embedder, fingerprint, dimension, chunker)
    VALUES (generation_id, for_assistant, with_embedder, with_fingerprint, with_dimension, with_chunker)
    ON CONFLICT (id) DO UPDATE
        SET embedder = excluded.embedder,
            state = CASE index_generations.state WHEN 'retired' THEN 'building' ELSE index_generations.state END
        WHERE index_generations.fingerprint = excluded.fingerprint
          AND (index_generations.embedder <> excluded.embedder OR index_generations.state = 'retired');
    IF to_regclass(format('public.%I', content)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format(
        'CREATE TABLE public.%I (
            chunk_id text PRIMARY KEY,
            document_id text NOT NULL,
            document_version text NOT NULL,
            source text NOT NULL,
            path text NOT NULL,
            title text NOT NULL,
            heading_path text[] NOT NULL,
            position integer NOT NULL,
            char_start integer NOT NULL,
            char_end integer NOT NULL,
            text text NOT NULL,
            metadata jsonb NOT NULL,
            embedded text NOT NULL,
            embedding vector(%s) NOT NULL,
            search tsvector GENERATED ALWAYS AS (index_search_vector(title, heading_path, text)) STORED)',
        content, with_dimension);
    EXECUTE format('CREATE INDEX %I ON public.%I (document_id)', content || '_doc', content);
    EXECUTE format('CREATE INDEX %I ON public.%I (source, path)', content || '_src', content);
    EXECUTE format('CREATE INDEX %I ON public.%I USING gin (search)', content || '_fts', content);
    EXECUTE format('CREATE TABLE public.%I (word text PRIMARY KEY, chunks bigint NOT NULL)', words);
    EXECUTE format(
        'GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I, public.%I TO llmops_worker', content, words);
    EXECUTE format('GRANT SELECT ON public.%I, public.%I TO llmops_serving', content, words);
END
$$;

-- Built after the first load, which is much faster than row by row. Serial on purpose: a parallel build
-- needs its whole memory as shared memory, which containers limit to 64 MB.
CREATE FUNCTION index_generation_vectors(generation_id text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    content text := 'generation_' || generation_id;
    known index_generations;
    kilobytes bigint;
BEGIN
    SELECT * INTO known FROM index_generations WHERE id = generation_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no generation %', quote_literal(generation_id) USING ERRCODE = '42P01';
    END IF;
    kilobytes := least(greatest(known.chunks * (known.dimension * 4 + 600) / 1024 * 5 / 4, 65536), 2097151);
    PERFORM set_config('maintenance_work_mem', kilobytes || 'kB', true);
    PERFORM set_config('max_parallel_maintenance_workers', '0', true);
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON public.%I USING hnsw (embedding vector_cosine_ops)',
        content || '_vec', content);
    EXECUTE format('ANALYZE public.%I', content);
    EXECUTE format('ANALYZE public.%I', 'words_' || generation_id);
    UPDATE index_generations SET vector_index = true WHERE id = generation_id;
END
$$;

-- Only a retired generation can be dropped; it waits at most 10 s for its last readers.
CREATE FUNCTION drop_index_generation(generation_id text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    DELETE FROM index_generations WHERE id = generation_id AND state = 'retired';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS public.%I, public.%I',
                   'generation_' || generation_id, 'words_' || generation_id);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION create_index_generation, index_generation_vectors, drop_index_generation FROM PUBLIC;
GRANT EXECUTE ON FUNCTION create_index_generation, index_generation_vectors, drop_index_generation TO llmops_worker;
REVOKE ALL ON FUNCTION index_words, index_search_vector FROM PUBLIC;
GRANT EXECUTE ON FUNCTION index_words, index_search_vector TO llmops_worker, llmops_serving;
GRANT SELECT, UPDATE (state, watermark, lineage, fence, chunks, synced_at) ON index_generations TO llmops_worker;
GRANT SELECT ON index_generations TO llmops_serving;
