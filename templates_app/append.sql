-- The append of events as one statement: one round trip, so that the lock, which orders all
-- appends, is held as short as can be. store_writers.py is the only caller. For one new
-- event there is insert.sql.
--
-- ids: of version 8, telling position 0, where they are not given by the caller: each gets its own.
-- datas: a line for each, for JSON text has no line break in it; reading them out of an array's
-- text took the server some 2.5 of 26 µs for each event.
-- streams: the distinct streams of the events and of what the caller expects; expected_versions:
-- NULL where any version will do; stream_of: for each event, which of streams it belongs to.
-- mention_of: for each mention, which of the events it belongs to. All count from 1.
--
-- outcome 'appended': positions, versions and leaves say where each event went; is_known, which of
-- them were in the log already under the same id with the same content (positions only).
-- 'conflict' or 'reused' write nothing: culprit is the stream, or the event, that stands in the
-- way, actual the stream's version, or the position of the event that has the id.
CREATE FUNCTION public.coppice_append(
  ids uuid[], types text[], schemas smallint[], datas text, meta text, given boolean,
  streams text[], expected_versions integer[], stream_of integer[],
  mention_of integer[], mention_kinds text[], mention_keys text[],
  OUT outcome text, OUT culprit integer, OUT actual bigint, OUT recorded_at timestamptz,
  OUT positions bigint[], OUT versions integer[], OUT leaves text[], OUT is_known boolean[]
) LANGUAGE plpgsql
-- A plan made while the table was small would be kept while it grows: never plan to read all of it,
-- or all of a stream.
SET enable_seqscan = off
SET enable_sort = off
AS $body$
DECLARE
  next bigint;
  stamp text;
  count integer := cardinality(ids);
  current integer[];
  version integer;
  data text[] := string_to_array(datas, E'\n');
  old record;
BEGIN
  -- Held to the commit, so that positions are in commit order. An advisory lock, not a row's: that
  -- is handed over in several steps, this one in one, and a row would be written by each append.
  -- Who inserts without it breaks nothing (triggers.py), but may fail where this would wait.
  PERFORM pg_advisory_xact_lock(7310);
  -- Taken under the lock: times never go back against positions, but for the clock itself.
  recorded_at := clock_timestamp();
  next := coalesce((SELECT e.position FROM templates_app_event e
    ORDER BY e.position DESC LIMIT 1), 0);

  is_known := array_fill(false, ARRAY[count]);
  IF given THEN
    FOR i IN 1..count LOOP
      IF substr(ids[i]::text, 15, 1) = '8' THEN
        SELECT e.position, e.stream, e.type, e.schema, e.data INTO old FROM templates_app_event e
          WHERE e.position = ('x' || translate(left(ids[i]::text, 13), '-', ''))::bit(48)::bigint
            AND e.event_id = ids[i];
      ELSE  -- as the index says of itself, or it would not be used
        SELECT e.position, e.stream, e.type, e.schema, e.data INTO old FROM templates_app_event e
          WHERE e.event_id = ids[i] AND substr(e.event_id::text, 15, 1) <> '8';
      END IF;
      CONTINUE WHEN NOT FOUND;
      IF (old.stream, old.type, old.schema, old.data)
          IS DISTINCT FROM (streams[stream_of[i]], types[i], schemas[i], data[i]) THEN
        outcome := 'reused'; culprit := i; actual := old.position;
        RETURN;
      END IF;
      is_known[i] := true;
      positions[i] := old.position;
    END LOOP;
  END IF;

  IF NOT true = ALL (is_known) THEN
    FOR i IN 1..cardinality(streams) LOOP
      -- Not max(): its plan, made and kept while the stream was short, reads all of the stream.
      version := coalesce((SELECT e.version FROM templates_app_event e
        WHERE e.stream = streams[i] ORDER BY e.version DESC LIMIT 1), 0);
      IF version <> expected_versions[i] THEN
        outcome := 'conflict'; culprit := i; actual := version;
        RETURN;
      END IF;
      current[i] := version;
    END LOOP;

    stamp := to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
    FOR i IN 1..count LOOP
      CONTINUE WHEN is_known[i];
      next := next + 1;
      version := current[stream_of[i]] + 1;
      current[stream_of[i]] := version;
      positions[i] := next;
      versions[i] := version;
      -- RFC 6962 leaf hash of the event's RFC 8785 form: keys in order, no white space.
      leaves[i] := encode(sha256('\x00'::bytea || convert_to(
        '{"data":' || data[i] || ',"meta":' || meta || ',"position":' || next
        || ',"recordedAt":"' || stamp || '","schema":' || schemas[i] || ',"stream":"'
        || streams[stream_of[i]] || '","type":"' || types[i] || '","version":' || version || '}',
        'UTF8')), 'hex');
    END LOOP;

    INSERT INTO templates_app_event (
      position, event_id, stream, version, type, schema, data, meta, recorded_at, leaf_hash)
    SELECT positions[n.i],
      CASE WHEN given THEN ids[n.i]
        ELSE encode(substr(int8send(positions[n.i]), 3) || substr(uuid_send(ids[n.i]), 7),
          'hex')::uuid END,
      streams[n.stream], versions[n.i], types[n.i], schemas[n.i], data[n.i],
      coppice_append.meta, coppice_append.recorded_at, leaves[n.i]
    FROM unnest(stream_of) WITH ORDINALITY AS n(stream, i)
    WHERE NOT is_known[n.i];

    INSERT INTO templates_app_mention (kind, key, position)
    SELECT mention_kinds[m.i], mention_keys[m.i], positions[m.nth]
    FROM unnest(mention_of) WITH ORDINALITY AS m(nth, i)
    WHERE NOT is_known[m.nth];
  END IF;
  outcome := 'appended';
END
$body$
