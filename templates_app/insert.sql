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
-- This is run for each row, and nothing is SET for it: that cost a batch 1.4 of 23 µs for each
-- event. So each name is qualified, operators and types too, whatever search_path and temporary
-- tables who inserts has (triggers.py puts the schema of the table where public stands). And the
-- log is only read where a plan cannot be for reading all of it: where it is SET, which is so in
-- append.sql, or in a function for which it is (triggers.py).
CREATE OR REPLACE FUNCTION public.coppice_follow_event() RETURNS trigger LANGUAGE plpgsql
AS $body$
DECLARE
  place bigint[];
  follows boolean;
BEGIN
  IF NEW.version OPERATOR(pg_catalog.<) 0 OR NEW.schema OPERATOR(pg_catalog.<) 0 THEN
    RAISE EXCEPTION 'the log is append-only: no version or schema is negative'
      USING ERRCODE = 'restrict_violation';
  ELSIF NEW.position IS NULL THEN
    PERFORM pg_catalog.pg_advisory_xact_lock(7310);  -- which orders all appends: see append.sql
    NEW.recorded_at := pg_catalog.clock_timestamp();
    place := public.coppice_next(NEW.stream::pg_catalog.text);
    IF NEW.version OPERATOR(pg_catalog.<>) place[2] THEN
      RETURN NULL;
    END IF;
    NEW.position := place[1];
    NEW.version := place[2];
    IF pg_catalog.substr(NEW.event_id::pg_catalog.text, 15, 1) OPERATOR(pg_catalog.=) '8' THEN
      NEW.event_id := pg_catalog.encode(
        pg_catalog.substr(pg_catalog.int8send(NEW.position), 3)
        OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.uuid_send(NEW.event_id), 7),
        'hex')::pg_catalog.uuid;
    END IF;
    NEW.leaf_hash := pg_catalog.encode(pg_catalog.sha256('\x00'::pg_catalog.bytea
      OPERATOR(pg_catalog.||) pg_catalog.convert_to(pg_catalog.concat(
        '{"data":', NEW.data, ',"meta":', NEW.meta, ',"position":', NEW.position,
        ',"recordedAt":"', pg_catalog.to_char(
          NEW.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        '","schema":', NEW.schema, ',"stream":"', NEW.stream, '","type":"', NEW.type,
        '","version":', NEW.version, '}'), 'UTF8')), 'hex');
    RETURN NEW;
  ELSIF NEW.position OPERATOR(pg_catalog.<>) 1 THEN
    IF pg_catalog.current_setting('enable_seqscan') OPERATOR(pg_catalog.=) 'off' THEN
      follows := EXISTS (SELECT FROM public.templates_app_event e
        WHERE e.position OPERATOR(pg_catalog.=) (NEW.position OPERATOR(pg_catalog.-) 1));
    ELSE
      follows := public.coppice_has(NEW.position OPERATOR(pg_catalog.-) 1);
    END IF;
    IF NOT follows THEN
      RAISE EXCEPTION 'the log is append-only: positions go on from the last one'
        USING ERRCODE = 'restrict_violation';
    END IF;
  END IF;
  IF pg_catalog.substr(pg_catalog.uuid_send(NEW.event_id), 1, 6)
      OPERATOR(pg_catalog.<>) pg_catalog.substr(pg_catalog.int8send(NEW.position), 3)
      AND pg_catalog.substr(NEW.event_id::pg_catalog.text, 15, 1) OPERATOR(pg_catalog.=) '8' THEN
    -- In this order: that costs a batch less.
    RAISE EXCEPTION 'the log is append-only: an id of version 8 begins with its position'
      USING ERRCODE = 'restrict_violation';
  END IF;
  RETURN NEW;
END
$body$
