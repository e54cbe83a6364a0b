-- Where one new event goes: the plain case of append.sql, which tells more of it. store_writers.py
-- calls it from within the statement that inserts the event, so that the lock is taken when all of
-- that has been made ready, and held for the inserts and the commit alone.
--
-- expected: the version that the stream must be at, NULL for any. new_position is NULL where it is
-- at another: then nothing is to be written, and new_version is that other.
CREATE FUNCTION coppice_place(
  type text, schema smallint, data text, meta text, stream text, expected integer,
  OUT new_position bigint, OUT new_version integer, OUT now timestamptz, OUT leaf text
) LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_sort = off
AS $body$
BEGIN
  PERFORM pg_advisory_xact_lock(7310);  -- the lock that orders all appends: see append.sql
  now := clock_timestamp();
  SELECT coalesce((SELECT e.position FROM templates_app_event e
      ORDER BY e.position DESC LIMIT 1), 0) + 1,
    coalesce((SELECT e.version FROM templates_app_event e
      WHERE e.stream = coppice_place.stream ORDER BY e.version DESC LIMIT 1), 0)
    INTO new_position, new_version;
  IF new_version <> expected THEN
    new_position := NULL;
    RETURN;
  END IF;
  new_version := new_version + 1;
  leaf := encode(sha256('\x00'::bytea || convert_to(concat(
    '{"data":', data, ',"meta":', meta, ',"position":', new_position, ',"recordedAt":"',
    to_char(now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '","schema":', schema,
    ',"stream":"', stream, '","type":"', type, '","version":', new_version, '}'), 'UTF8')), 'hex');
END
$body$
