-- The append of one new event as one statement, the plain case of append.sql, which tells more of
-- both. Without arrays and loops, it holds the head row for two thirds of the time.
--
-- expected: the version that the stream must be at, NULL for any. new_position is NULL where it is
-- at another: then nothing was written, and new_version is that other.
CREATE FUNCTION coppice_append_one(
  id uuid, type text, schema smallint, data text, meta text, stream text, expected integer,
  mention_kinds text[], mention_keys text[],
  OUT new_position bigint, OUT new_version integer, OUT now timestamptz, OUT leaf text
) LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_sort = off
AS $body$
BEGIN
  -- The queue before the head row: see append.sql.
  PERFORM pg_advisory_xact_lock(7310);
  SELECT h.size + 1 INTO STRICT new_position FROM templates_app_loghead h WHERE h.id = 1
    FOR UPDATE;
  now := clock_timestamp();

  new_version := coalesce((SELECT e.version FROM templates_app_event e
    WHERE e.stream = coppice_append_one.stream ORDER BY e.version DESC LIMIT 1), 0);
  IF new_version <> expected THEN
    new_position := NULL;
    RETURN;
  END IF;
  new_version := new_version + 1;

  leaf := encode(sha256('\x00'::bytea || convert_to(concat(
    '{"data":', data, ',"meta":', meta, ',"position":', new_position, ',"recordedAt":"',
    to_char(now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '","schema":', schema,
    ',"stream":"', stream, '","type":"', type, '","version":', new_version, '}'), 'UTF8')), 'hex');

  -- The insert moves the head row on: coppice_count_events.
  INSERT INTO templates_app_event (
    position, event_id, stream, version, type, schema, data, meta, recorded_at, leaf_hash)
  VALUES (new_position, id, stream, new_version, type, schema, data, meta, now, leaf);

  INSERT INTO templates_app_mention (kind, key, position)
  SELECT m.kind, m.key, new_position
  FROM unnest(mention_kinds, mention_keys) AS m(kind, key);
END
$body$
