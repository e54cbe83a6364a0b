"""Which cases cover which attack, and which clause of the archive's grammar.

The ids are those of docs/reference/attacks.md. ``stack:`` and ``stream:`` are cases of the corpora,
all else are tests; a test holds that each is there, and each attack in both places.
"""

from __future__ import annotations

from tests.corpus import stacks

_ENGINE = "tests/native/test_engine.py::"
_REGISTRY = "tests/unit/test_registry.py::"
_ELSEWHERE = "tests/unit/test_registry_elsewhere.py::"
_TOKENS = "tests/unit/test_tokens.py::"
_HOSTS = "tests/unit/test_hosts.py::"
_DOCUMENTS = "tests/unit/test_documents.py::"
_FAULTS = "tests/native/test_registry_faults.py::"


def _all(group: list[stacks.Stack], *but: str) -> tuple[str, ...]:
    return tuple(f"stack:{one.name}" for one in group if one.name not in but)


ATTACKS: dict[str, tuple[str, ...]] = {
    "names": (*_all(stacks.NAMES), "stream:not-utf-8", "stream:nul-in-pax-path"),
    "symlinked-parents": _all(stacks.SYMLINKS),
    "hard-links": _all(stacks.HARD_LINKS),
    "root-retyped": _all(stacks.ROOT),
    "whiteouts": _all(stacks.WHITEOUTS),
    "depth-and-length": (
        "stack:longest-path",
        "stack:deepest",
        "stack:deepest-replaced",
        "stack:deep-and-shut",
        "stack:path-too-long-through-links",
        "stack:too-deep",
        "stack:too-deep-through-links",
        "stack:too-long-a-target",
        "stream:long-pax-path",
        "stream:long-gnu-name",
        "tests/native/test_writer.py::test_more_directories_than_may_be_open",
    ),
    "programs-of-the-image": (
        "tests/unit/test_verdict.py::test_nothing_is_executed",
        _ENGINE + "test_the_processes_import_no_server",
        _ENGINE + "test_what_the_processes_have_given_up",
    ),
    "descriptors-across-chroot": (_ENGINE + "test_what_the_processes_have_given_up",),
    "devices-and-set-id": (
        *_all(stacks.LEFT_OUT),
        "stack:set-id-and-owner",
        "stack:whiteout-device-is-a-device",
        "stack:device-over-file",
        "stream:device-out-of-range",
        "stream:minor-out-of-range",
        "tests/contract/test_layers.py::test_a_sandbox_has_everything_that_was_filled_and_none_of_the_restrictions",
    ),
    "file-flags": ("stack:flags", "stack:flags-then-replaced"),
    "bombs": (
        "tests/native/test_codecs.py::test_a_bomb_is_refused_before_it_goes_off",
        "tests/native/test_codecs.py::test_a_large_window_is_fine_up_to_what_the_program_calls_long",
        _ENGINE + "test_beyond_a_limit",
        _ENGINE + "test_more_memory_than_a_process_may_use",
        "tests/native/test_model.py::test_a_small_archive_has_no_large_manifest",
        "stream:larger-than-allowed",
        "stream:pax-size-too-large",
    ),
    "large-headers": (
        "stream:large-pax",
        "stream:endless-gnu-name",
        "stream:many-records",
        "stream:xattr-too-large",
        "stream:xattr-too-many",
        "stream:xattr-long-name",
        "tests/native/test_tar.py::test_extended_headers_at_their_limits_cost_little_memory",
    ),
    "parser-differentials": (
        "stream:an-archive-within",
        "stream:an-archive-within-that-is-said-to-be-short",
        "stream:contents-of-a-directory",
        "stream:one-zero-block",
        "tests/native/test_tar.py::test_what_is_taken_other_readers_unpack_alike",
    ),
    "loops-and-negative-sizes": (
        "stream:negative-size",
        "stream:record-of-no-length",
        "stream:record-of-negative-length",
        "stream:negative-pax-header",
        "stream:negative-owner",
    ),
    "lies-of-digest-and-size": (
        _FAULTS + "test_an_import_from_a_registry_that_lies_leaves_nothing",
        _REGISTRY + "test_never_a_byte_beyond_the_promised_size",
        _ENGINE + "test_a_layer_that_is_not_what_the_config_says",
    ),
    "manifest-confusion": (
        _DOCUMENTS + "test_a_document_that_is_index_and_manifest_at_once_is_refused",
        _DOCUMENTS + "test_a_media_type_that_contradicts_the_members_is_refused",
    ),
    "unbounded-bodies": (
        _REGISTRY + "test_a_manifest_is_4_mib_at_the_most",
        _REGISTRY + "test_an_endless_error_is_read_to_64_kib",
        _TOKENS + "test_an_answer_of_a_token_service_is_1_mib_at_the_most",
        _FAULTS + "test_an_import_from_a_registry_that_lies_leaves_nothing",
    ),
    "token-leaks": (
        _ELSEWHERE + "test_credentials_do_not_follow_a_redirect_to_another_host",
        _ELSEWHERE + "test_a_port_is_another_place",
        _TOKENS + "test_a_redirected_token_request_has_no_credentials_elsewhere",
        _ELSEWHERE + "test_a_mirror_sees_no_credentials_but_its_own",
    ),
    "foreign-realms": (
        _TOKENS + "test_only_the_registrys_own_domain_or_a_named_one_sees_credentials",
        _TOKENS + "test_a_token_service_on_the_inside_is_not_asked",
    ),
    "server-side-requests": (
        _HOSTS + "test_a_name_that_leads_inside_is_refused",
        _HOSTS + "test_an_ipv4_address_in_an_ipv6_one_is_judged_by_itself",
        _ELSEWHERE + "test_a_redirect_to_the_inside_is_not_followed",
        _ELSEWHERE + "test_a_name_that_changes_its_mind_leads_nowhere",
        _DOCUMENTS + "test_a_layer_from_elsewhere_is_refused",
    ),
    "decompression-in-the-client": (_REGISTRY + "test_a_body_in_another_encoding_is_not_unpacked",),
    "digests-in-paths": (
        _DOCUMENTS + "test_every_descriptor_is_well_formed",
        _REGISTRY + "test_a_header_that_is_no_digest_says_nothing",
    ),
    "files-that-we-read": (
        "tests/unit/test_verdict.py::test_what_is_no_file_is_never_opened",
        "tests/unit/test_verdict.py::test_nothing_outside_is_looked_at",
        "tests/unit/test_plant.py::test_a_fifo_is_replaced_and_not_waited_for",
        "tests/unit/test_plant.py::test_an_etc_that_is_a_symlink_is_refused",
        "stream:owner-that-means-none",
    ),
    "labels-as-orders": ("tests/e2e/test_traps.py::test_no_word_of_a_caller_can_become_an_option",),
    "cache-poisoning": (
        _ENGINE + "test_a_blob_of_other_bytes_than_its_digest",
        _ENGINE + "test_a_blob_that_rotted_in_the_cache_goes_and_the_next_import_works",
    ),
    "decompressor-that-hangs": (
        _ENGINE + "test_a_process_that_works_no_more_is_not_waited_for",
        _ENGINE + "test_an_interrupt_leaves_no_process",
    ),
}

#: The clauses of the strict grammar.
GRAMMAR: dict[str, tuple[str, ...]] = {
    "checksum-is-verified": ("checksum", "no-checksum", "checksum-modulo", "not-an-archive"),
    "headers-of-ustar-pax-gnu-v7": ("v7", "gnu", "prefix", "pax-path", "gnu-long-name", "magic"),
    "pax-is-for-the-next-entry": ("pax-is-for-one", "pax-path"),
    "a-field-said-twice": (
        "pax-and-gnu-name",
        "gnu-and-pax-name",
        "pax-and-gnu-target",
        "gnu-and-pax-target",
        "two-pax",
        "two-gnu-names",
    ),
    "an-extension-without-an-entry": (
        "pax-at-the-end",
        "gnu-name-at-the-end",
        "global-after-pax",
    ),
    "records-unterminated-or-short": (
        "record-without-end",
        "record-too-long",
        "record-too-short",
        "record-without-a-value",
        "record-and-zeros",
        "gnu-name-without-nul",
    ),
    "numbers-that-are-not-decimal": (
        "pax-size-b'0x5'",
        "pax-size-b'-1'",
        "pax-size-b'1_0'",
        "pax-mtime-b'1e9'",
        "size-in-hexadecimal",
        "size-with-underscores",
    ),
    "nul": ("nul-in-pax-path", "nul-in-pax-linkpath", "nul-in-gnu-name"),
    "empty-path": ("empty-pax-path", "empty-gnu-name", "no-name", "empty-pax-linkpath"),
    "the-last-key-counts": ("last-key-wins",),
    "pax-size-overrides": (
        "pax-size",
        "pax-size-and-gnu-name",
        "an-archive-within-that-is-said-to-be-short",
    ),
    "no-contents-of-links-and-directories": (
        "size-of-a-directory",
        "size-of-a-hard-link",
        "size-of-a-symlink",
        "size-of-a-character-device",
        "size-of-a-fifo",
        "pax-size-of-a-directory",
        "pax-size-of-a-hard-link",
        "contents-of-a-directory",
    ),
    "global-headers": (
        "global-comment",
        "global-owner",
        "global-path",
        "global-linkpath",
        "global-size",
        "global-sparse",
    ),
    "unknown-types": ("type-V", "type-M", "type-N", "type-D", "type-X", "type-Z", "type-8"),
    "sparse": ("sparse-of-gnu", "sparse-of-pax-0", "sparse-of-pax-1", "sparse-of-solaris"),
    "trailing-slash": ("slash-ustar", "slash-v7", "slash-pax", "slash-gnu", "slash-symlink"),
    "one-zero-block-then-data": ("one-zero-block", "one-zero-block-and-a-byte"),
    "no-end": ("no-end", "no-archive", "one-zero-block-at-the-end", "half-a-zero-block"),
    "data-after-the-end": ("something-after-the-end", "an-archive-after-the-end"),
    "gnu-magic-with-prefix": ("prefix-with-gnu-magic", "prefix-in-v7"),
    "device-numbers": ("device-of-pax-0", "device-of-pax-1", "device-out-of-range"),
    "base-256": ("base-256-size", "negative-size", "base-256-with-other-bits"),
}
