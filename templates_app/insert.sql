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
-- Each name is qualified, operators and types too, whatever search_path and temporary tables who
-- inserts has (triggers.py puts the schema of the table where public stands). To SET the path would
-- do as well, but a function that SETs anything holds the lock for 5 % longer.
--
-- The log is asked for what is last without sorting, which would be to read all of it. PostgreSQL
-- plans it so, by the indexes, but where the table is small; and a plan, once made, would be kept
-- while the table grows. So what was planned for a small one is thrown away.
CREATE OR REPLACE FUNCTION public.coppice_follow_event() RETURNS trigger LANGUAGE plpgsql
AS $body$
DECLARE
  held text;
  rest text;  -- of an id that begins with its position
  version integer;
BEGIN
  IF NEW.version OPERATOR(pg_catalog.<) 0 OR NEW.schema OPERATOR(pg_catalog.<) 0 THEN
    RAISE EXCEPTION 'the log is append-only: no version or schema is negative'
      USING ERRCODE = 'restrict_violation';
  ELSIF NEW.position IS NULL THEN
    IF pg_catalog.substr(NEW.event_id::pg_catalog.text, 15, 1) OPERATOR(pg_catalog.=) '8' THEN
      rest := pg_catalog.substr(NEW.event_id::pg_catalog.text, 14);
    END IF;
    -- The lock that orders all appends: see append.sql. Assigned, for PERFORM would be a query.
    held := pg_catalog.pg_advisory_xact_lock(7310)::pg_catalog.text;
    SELECT
      coalesce((SELECT e.position FROM public.templates_app_event e
        ORDER BY e.position DESC LIMIT 1), 0) OPERATOR(pg_catalog.+) 1,
      coalesce((SELECT e.version FROM public.templates_app_event e
        WHERE e.stream OPERATOR(pg_catalog.=) NEW.stream::pg_catalog.text
        ORDER BY e.version DESC LIMIT 1), 0) OPERATOR(pg_catalog.+) 1,
      pg_catalog.clock_timestamp()
    INTO NEW.position, version, NEW.recorded_at;
    IF NEW.position OPERATOR(pg_catalog.<=) 1000 THEN
      DISCARD PLANS;
    END IF;
    IF NEW.version OPERATOR(pg_catalog.<>) version THEN
      RETURN NULL;
    END IF;
    NEW.version := version;
    IF rest IS NOT NULL THEN
      NEW.event_id := (pg_catalog.lpad(pg_catalog.to_hex(NEW.position), 12, '0')
        OPERATOR(pg_catalog.||) rest)::pg_catalog.uuid;
    END IF;
    NEW.leaf_hash := pg_catalog.encode(pg_catalog.sha256('\x00'::pg_catalog.bytea
      OPERATOR(pg_catalog.||) pg_catalog.convert_to(pg_catalog.concat(
        '{"data":', NEW.data, ',"meta":', NEW.meta, ',"position":', NEW.position,
        ',"recordedAt":"', pg_catalog.to_char(
          NEW.recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        '","schema":', NEW.schema, ',"stream":"', NEW.stream, '","type":"', NEW.type,
        '","version":', NEW.version, '}'), 'UTF8')), 'hex');
    RETURN NEW;
  END IF;
  IF NEW.position OPERATOR(pg_catalog.<>) 1 AND NOT EXISTS (
      SELECT FROM public.templates_app_event e
      WHERE e.position OPERATOR(pg_catalog.=) (NEW.position OPERATOR(pg_catalog.-) 1)) THEN
    DISCARD PLANS;
    RAISE EXCEPTION 'the log is append-only: positions go on from the last one'
      USING ERRCODE = 'restrict_violation';
  ELSIF NEW.position OPERATOR(pg_catalog.<=) 1000 THEN
    DISCARD PLANS;
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
