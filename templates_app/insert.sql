-- What each event passes on its way into the table, whoever inserts it and by whatever statement.
--
-- A row that says no position is appended: it gets position, version, time and leaf hash here, and
-- an id of version 8 the position that it begins with. So store_writers.py appends one event: the
-- lock is taken when all of the statement has been made ready, and held for the inserts and the
-- commit alone. If the row says a version, and the stream's next is another, nothing is inserted;
-- that is no error, for an error would harm the caller's transaction.
--
-- A row that says its position (append.sql) must go on from the last event that is committed, or of
-- its own transaction. With the key of positions that leaves no gap and makes their order that of
-- the commits; the lock that appends take has them wait for each other instead of failing.
--
-- No number is negative: checked here and not by the table's constraints, which PostgreSQL parses
-- anew for each statement, under the lock.
--
-- As in append.sql, plans are kept that were made while the table was small.
CREATE OR REPLACE FUNCTION coppice_follow_event() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off
SET enable_sort = off
AS $body$
DECLARE
  next integer;
BEGIN
  IF NEW.version < 0 OR NEW.schema < 0 THEN
    RAISE EXCEPTION 'the log is append-only: no version or schema is negative'
      USING ERRCODE = 'restrict_violation';
  ELSIF NEW.position IS NULL THEN
    PERFORM pg_advisory_xact_lock(7310);  -- the lock that orders all appends: see append.sql
    NEW.recorded_at := clock_timestamp();
    SELECT coalesce((SELECT e.position FROM templates_app_event e
        ORDER BY e.position DESC LIMIT 1), 0) + 1,
      coalesce((SELECT e.version FROM templates_app_event e
        WHERE e.stream = NEW.stream ORDER BY e.version DESC LIMIT 1), 0) + 1
      INTO NEW.position, next;
    IF NEW.version <> next THEN
      RETURN NULL;
    END IF;
    NEW.version := next;
    IF substr(NEW.event_id::text, 15, 1) = '8' THEN
      NEW.event_id := encode(
        substr(int8send(NEW.position), 3) || substr(uuid_send(NEW.event_id), 7), 'hex')::uuid;
    END IF;
    NEW.leaf_hash := encode(sha256('\x00'::bytea || convert_to(concat(
      '{"data":', NEW.data, ',"meta":', NEW.meta, ',"position":', NEW.position, ',"recordedAt":"',
      to_char(NEW.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
      '","schema":', NEW.schema, ',"stream":"', NEW.stream, '","type":"', NEW.type,
      '","version":', NEW.version, '}'), 'UTF8')), 'hex');
  ELSIF NEW.position <> 1 AND NOT EXISTS (
    SELECT FROM templates_app_event e WHERE e.position = NEW.position - 1
  ) THEN
    RAISE EXCEPTION 'the log is append-only: positions go on from the last one'
      USING ERRCODE = 'restrict_violation';
  ELSIF substr(uuid_send(NEW.event_id), 1, 6) <> substr(int8send(NEW.position), 3)
      AND substr(NEW.event_id::text, 15, 1) = '8' THEN  -- in this order: that costs a batch less
    RAISE EXCEPTION 'the log is append-only: an id of version 8 begins with its position'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END
$body$
