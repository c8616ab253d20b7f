-- Chunks say who may find them: access holds tags of which a caller must have at least one; none means everybody.
-- Metadata are filtered by jsonpath, which the second index answers. A generation is loaded in batches of whole
-- documents, and says how far it is.

ALTER TABLE index_generations
    ADD COLUMN target            bigint,
    ADD COLUMN target_lineage    text,
    ADD COLUMN done_through      text,
    ADD COLUMN chunks_done       bigint NOT NULL DEFAULT 0,
    ADD COLUMN chunks_planned    bigint NOT NULL DEFAULT 0,
    ADD COLUMN chunks_per_second real;
COMMENT ON COLUMN index_generations.target IS 'version of the chunks table that is being loaded; null when none is';
COMMENT ON COLUMN index_generations.done_through IS 'last document id, in code point order, that is at the target';
GRANT UPDATE (target, target_lineage, done_through, chunks_done, chunks_planned, chunks_per_second)
    ON index_generations TO llmops_worker;

CREATE FUNCTION index_generation_lookups(content text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON public.%I (document_id)', content || '_doc', content);
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON public.%I (source, path)', content || '_src', content);
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON public.%I USING gin (search)', content || '_fts', content);
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON public.%I USING gin (access)', content || '_acc', content);
    EXECUTE format('CREATE INDEX IF NOT EXISTS %I ON public.%I USING gin (metadata jsonb_path_ops)',
                   content || '_met', content);
    -- Vectors stay in their rows: an exact comparison of some thousand would read each from another table.
    EXECUTE format('ALTER TABLE public.%I ALTER COLUMN embedding SET STORAGE MAIN', content);
END
$$;
REVOKE ALL ON FUNCTION index_generation_lookups FROM PUBLIC;

DO $$
DECLARE
    known record;
BEGIN
    FOR known IN SELECT 'generation_' || id AS content FROM index_generations LOOP
        EXECUTE format('ALTER TABLE public.%I ADD COLUMN access text[] NOT NULL DEFAULT ''{}''', known.content);
        PERFORM index_generation_lookups(known.content);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION create_index_generation(
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
            search tsvector GENERATED ALWAYS AS (index_search_vector(title, heading_path, text)) STORED,
            access text[] NOT NULL DEFAULT ''{}'')',
        content, with_dimension);
    PERFORM index_generation_lookups(content);
    EXECUTE format('CREATE TABLE public.%I (word text PRIMARY KEY, chunks bigint NOT NULL)', words);
    EXECUTE format(
        'GRANT SELECT, INSERT, UPDATE, DELETE ON public.%I, public.%I TO llmops_worker', content, words);
    EXECUTE format('GRANT SELECT ON public.%I, public.%I TO llmops_serving', content, words);
END
$$;

-- The index of vectors holds half-precision numbers: half the size, and searches rank what they find by the exact
-- ones. It is built after the first load, which is much faster than row by row, and in memory: a graph that outgrows
-- maintenance_work_mem is finished on disk, tens of times as slowly. Of pgvector's graph one element took
-- 715 bytes beside its numbers, measured by when it says that the graph no longer fits, at 64 and at 384 dimensions;
-- 5 % are added. The limit is the least of what the caller knows to be free and of the setting
-- llmops.index_memory, 2 GB by default: ALTER DATABASE llmops SET llmops.index_memory = '8GB'.
DROP FUNCTION index_generation_vectors(text);
CREATE FUNCTION index_generation_vectors(
    generation_id text, workers integer DEFAULT 0, free_kilobytes bigint DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    content text := 'generation_' || generation_id;
    named text := content || '_vec16';
    known index_generations;
    allowed bigint := pg_size_bytes(coalesce(current_setting('llmops.index_memory', true), '2GB')) / 1024;
    needed bigint;
BEGIN
    SELECT * INTO known FROM index_generations WHERE id = generation_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no generation %', quote_literal(generation_id) USING ERRCODE = '42P01';
    END IF;
    needed := ceil(known.chunks * (known.dimension * 2 + 720) * 1.05 / 1024) + 4096;
    allowed := least(allowed, free_kilobytes, 2147483647);
    IF needed > allowed THEN
        RAISE WARNING 'the index of % would need % MB of memory, allowed are %: it is built on disk, slowly',
            content, needed / 1024, allowed / 1024;
    END IF;
    PERFORM set_config('maintenance_work_mem', greatest(least(needed, allowed), 65536) || 'kB', true);
    PERFORM set_config('max_parallel_maintenance_workers', workers::text, true);
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(format('public.%I', named)) AND NOT indisvalid) THEN
        EXECUTE format('DROP INDEX public.%I', named);
    END IF;
    EXECUTE format(
        'CREATE INDEX IF NOT EXISTS %I ON public.%I USING hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops)',
        named, content, known.dimension);
    EXECUTE format('DROP INDEX IF EXISTS public.%I', content || '_vec');
    EXECUTE format('ANALYZE public.%I', content);
    EXECUTE format('ANALYZE public.%I', 'words_' || generation_id);
    UPDATE index_generations SET vector_index = true WHERE id = generation_id;
END
$$;
REVOKE ALL ON FUNCTION index_generation_vectors FROM PUBLIC;
GRANT EXECUTE ON FUNCTION index_generation_vectors TO llmops_worker;

-- Indexes from before are replaced by the next sync; until then vectors are compared one by one.
UPDATE index_generations SET vector_index = false;
