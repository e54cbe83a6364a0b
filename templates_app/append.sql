-- The append of events as one statement: one round trip, so that the head row's lock, which
-- orders all appends, is held as short as can be. store.py is the only caller.
--
-- Returns one row per event, in the order given (nth counts from 1), with outcome 'appended' or,
-- for an event whose id and content are in the log already, 'known'. Or writes nothing and returns
-- one row that says why: 'conflict' (nth: which of expected_streams, ver: its actual version) or
-- 'reused' (nth: which event's id is in the log with other content).
CREATE FUNCTION coppice_append(
  ids uuid[], streams text[], types text[], schemas smallint[], datas text[], metas text[],
  given boolean, expected_streams text[], expected_versions integer[]
) RETURNS TABLE (outcome text, nth integer, at bigint, ver integer, recorded timestamptz, leaf text)
LANGUAGE plpgsql AS $body$
DECLARE
  head bigint;
  fresh integer := cardinality(ids);
  stamp timestamptz;
  stamp_text text;
BEGIN
  SELECT size INTO STRICT head FROM templates_app_loghead WHERE id = 1 FOR UPDATE;
  -- Taken under the lock: times never go back against positions, but for the clock itself.
  stamp := clock_timestamp();
  stamp_text := to_char(stamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

  IF given THEN
    RETURN QUERY
      SELECT 'reused', n.nth::integer, e.position, e.version, e.recorded_at, e.leaf_hash::text
      FROM unnest(ids, streams, types, schemas, datas)
        WITH ORDINALITY AS n(id, stream, type, schema, data, nth)
      JOIN templates_app_event e ON e.event_id = n.id
      WHERE (e.stream, e.type, e.schema, e.data)
        IS DISTINCT FROM (n.stream, n.type, n.schema, n.data)
      ORDER BY n.nth LIMIT 1;
    IF FOUND THEN
      RETURN;
    END IF;
    RETURN QUERY
      SELECT 'known', n.nth::integer, e.position, e.version, e.recorded_at, e.leaf_hash::text
      FROM unnest(ids) WITH ORDINALITY AS n(id, nth)
      JOIN templates_app_event e ON e.event_id = n.id;
    GET DIAGNOSTICS fresh = ROW_COUNT;
    fresh := cardinality(ids) - fresh;
    IF fresh = 0 THEN
      RETURN;
    END IF;
  END IF;

  IF expected_streams IS NOT NULL THEN
    RETURN QUERY
      SELECT 'conflict', x.nth::integer, NULL::bigint, x.actual, NULL::timestamptz, NULL::text
      FROM (
        SELECT n.nth, n.version, coalesce(
          (SELECT max(e.version) FROM templates_app_event e WHERE e.stream = n.stream), 0) AS actual
        FROM unnest(expected_streams, expected_versions) WITH ORDINALITY AS n(stream, version, nth)
      ) x
      WHERE x.version <> x.actual ORDER BY x.nth LIMIT 1;
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;

  UPDATE templates_app_loghead SET size = head + fresh WHERE id = 1;
  RETURN QUERY
    WITH new AS (
      SELECT n.*,
        head + row_number() OVER (ORDER BY n.nth) AS position,
        (row_number() OVER (PARTITION BY n.stream ORDER BY n.nth) + coalesce((
          SELECT max(e.version) FROM templates_app_event e WHERE e.stream = n.stream), 0)
        )::integer AS version
      FROM unnest(ids, streams, types, schemas, datas, metas)
        WITH ORDINALITY AS n(id, stream, type, schema, data, meta, nth)
      WHERE NOT given OR NOT EXISTS (
        SELECT 1 FROM templates_app_event e WHERE e.event_id = n.id)
    ), written AS (
      INSERT INTO templates_app_event AS w (
        position, event_id, stream, version, type, schema, data, meta, recorded_at, leaf_hash)
      SELECT new.position, new.id, new.stream, new.version, new.type, new.schema, new.data,
        new.meta, stamp,
        -- RFC 6962 leaf hash of the event's RFC 8785 form: keys in order, no white space.
        encode(sha256('\x00'::bytea || convert_to(
          '{"data":' || new.data || ',"meta":' || new.meta || ',"position":' || new.position
          || ',"recordedAt":"' || stamp_text || '","schema":' || new.schema || ',"stream":"'
          || new.stream || '","type":"' || new.type || '","version":' || new.version || '}',
          'UTF8')), 'hex')
      FROM new ORDER BY new.position
      RETURNING w.position, w.leaf_hash
    )
    SELECT 'appended', new.nth::integer, new.position, new.version, stamp, written.leaf_hash::text
    FROM new JOIN written USING (position);
END
$body$
