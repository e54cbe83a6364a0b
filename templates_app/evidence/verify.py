#!/usr/bin/env python3
"""Check an evidence bundle offline:  python3 -I verify.py --log-key log.pub --key release.pub [DIR]

All rests on the keys, the auditor's own copies, and on this program: run one that you trust.
"""

import argparse
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

LIST = "SHA256.sig"


def fail(file: str, why: str) -> NoReturn:
    sys.exit(f"FAILED  {ascii(file)[1:-1]}: {ascii(why)[1:-1]}")  # names, too, can be escapes


def signify(file: str, *words: str | Path) -> bytes:
    program = shutil.which("signify-openbsd") or shutil.which("signify") or sys.exit("no signify")
    done = subprocess.run([program, "-V", "-q", *map(str, words)], capture_output=True, check=False)
    if done.returncode:
        fail(file, done.stderr.decode(errors="replace").strip() or "its signature does not verify")
    return done.stdout


def at(event: dict[str, Any]) -> str:
    return ascii(f"{event['type']} at position {event['position']}, {event['recordedAt']}")[1:-1]


def listed(root: Path, log_key: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Every file of the bundle: there are no others, and the log's key signed for each."""
    form = rb"untrusted comment: verify with log\.pub\n[\w+/]{98}[AEIMQUYcgkosw048]=\n"
    if not re.match(form, (root / LIST).read_bytes()):
        fail(LIST, "it is not written as signify writes it")
    text = signify(LIST, "-e", "-p", log_key, "-x", root / LIST, "-m", "-").decode()
    sums = dict(re.findall(r"^SHA256 \((.+)\) = ([0-9a-f]{64})$", text, re.MULTILINE))
    there = {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir()}
    for name in sorted(there ^ {*sums, LIST}):
        fail(name, "it is not in the signed list" if name in there else "it is missing")
    files = {name: (root / name).read_bytes() for name in sorted(sums)}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums[name]:
            fail(name, "it is not what the log's key has signed for")
    print(f"holds   {len(files)} files are those that the log's key has signed for")
    return files, sums


def leads_to(leaf: bytes, index: int, last: int, proof: list[bytes]) -> bytes | None:
    """The root hash that a proof of inclusion leads to (RFC 9162, section 2.1.3.2)."""
    for one in proof:
        left = index & 1 or index == last
        leaf = hashlib.sha256(b"\1" + (one + leaf if left else leaf + one)).digest()
        while left and not index & 1 and index:
            index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    return leaf if last == 0 else None


def proven(root: Path, files: dict[str, bytes], log_key: str, name: str) -> list[Any]:
    """The template's events: each is in the log, and of its streams none before the last shown."""
    signed = root / "log/checkpoint"
    signify("log/checkpoint", "-p", log_key, "-x", f"{signed}.sig", "-m", signed)
    origin, size, top, _ = files["log/checkpoint"].decode().split("\n")
    print(f"holds   a checkpoint of {size} events of {origin!a} is signed by the log's key")
    file, found, versions = "log/events.jsonl", list[Any](), dict[str, int]()
    proofs = [json.loads(line) for line in files["log/proofs.jsonl"].splitlines()]
    for line, proof in zip(files[file].splitlines(), proofs, strict=True):
        event, hashes = json.loads(line), [bytes.fromhex(one) for one in proof["hashes"]]
        leaf, stream = hashlib.sha256(b"\0" + line).digest(), event["stream"]
        if leads_to(leaf, event["position"] - 1, int(size) - 1, hashes) != base64.b64decode(top):
            fail(file, f"not proven to be in the log: {at(event)}")
        if re.fullmatch(rf"(template|launches|verifications):{re.escape(name)}|key:\w+", stream):
            versions[stream] = versions.get(stream, 0) + 1
            if event["version"] != versions[stream]:
                fail(file, f"an event is left out before the {at(event)}")
        found.append(event)
    print(f"holds   {len(found)} events are in it, of each stream all up to the last one shown:")
    print("       ", ", ".join(f"{one} to version {versions[one]}" for one in sorted(versions)))
    return found


def recorded(files: dict[str, bytes], sums: dict[str, str], found: list[Any]) -> None:
    """The log has the statement, and the files are what that names."""
    text, statement = files["statement.json"].decode(), json.loads(files["statement.json"])
    for event in (one for one in found if one["type"] in ("imported", "reloaded")):
        made = [event["data"], *event["data"].get("added", ()), *event["data"].get("changed", ())]
        if text in [one.get("statement") for one in made]:
            print(f"holds   the statement: {at(event)}, by {event['meta']['actor']!a}")
            break
    else:
        fail("statement.json", "no event of the log has recorded it")
    named = {"template.mtree": statement["subject"][0]["digest"]["sha256"]}
    for one in statement["predicate"]["buildDefinition"].get("resolvedDependencies", ()):
        named[f"image/{one['name']}.json"] = one["digest"]["sha256"]
    for name in (one for one in files if one.startswith("attached/")):
        named[name] = name[9:] if name[9:].encode() in files["log/events.jsonl"] else ""
    for name, wanted in named.items():
        if name in files and sums[name] != wanted:
            fail(name, "it is not what the log and the statement name")
        print(f"{'holds  ' if name in files else 'MISSING'} {name!a}, as recorded: sha256 {wanted}")


def against(event: dict[str, Any], signed: dict[str, Any]) -> Any:
    """Whether by this event the signature of another one does not count any more."""
    data, same = event["data"], signed["data"]
    since = event["position"] if data.get("since") is None else data["since"]
    of = data.get("statementDigest") == same["statementDigest"]
    counts = {"key-revoked": signed["position"] >= since, "signature-withdrawn": of}
    return data.get("publicKey") == same["publicKey"] and counts.get(event["type"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--log-key", required=True, help="log.pub, the auditor's own copy")
    options.add_argument("--key", action="append", default=[], help="a key that may approve")
    options.add_argument("dir", nargs="?", type=Path, default=Path(__file__).parent)
    given = options.parse_args()
    files, sums = listed(given.dir, given.log_key)
    name, good = ascii(json.loads(files["statement.json"])["subject"][0]["name"])[1:-1], 0
    keys = {Path(one).read_text().splitlines()[1]: one for one in given.key}  # without comments
    found = proven(given.dir, files, given.log_key, name)
    recorded(files, sums, found)
    for event in (one for one in found if one["type"] == "signed"):
        if event["data"]["statementDigest"][7:] != sums["statement.json"]:
            continue
        data, file = event["data"], f"signatures/{event['position']}.sig"
        if files.get(file) != data["signature"].encode():
            fail(file, "it is not the signature that the log has")
        if key := keys.get(data["publicKey"]):
            signify(file, "-p", key, "-x", given.dir / file, "-m", given.dir / "statement.json")
        void = [f": not after the {at(one)}" for one in found if against(one, event)]
        good += bool(key and not void)
        word = "VOID   " if void else "holds  " if key else "UNKNOWN"
        print(f"{word} signed by {data['keyLabel']!a}, {at(event)}{''.join(void)}")
    kinds = [ascii(one["type"])[1:-1] for one in found]
    print("       ", ", ".join(f"{kinds.count(one)} x {one}" for one in sorted(set(kinds))))
    if given.key and not good:
        fail("signatures", "none over this statement counts and is by a key that was given")
    print(f"{name}: all of this holds." if good else f"{name}: this holds; no key approves it.")


if __name__ == "__main__":
    main()
