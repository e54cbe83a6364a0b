"""Indexes, manifests, configs: read strictly, chosen by platform as the specification says."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import images
from templates_app.errors import NotAnImage, TreeRefused
from templates_app.names import Digest, Platform
from templates_app.sources import documents
from templates_app.sources.base import Layer
from templates_app.sources.documents import Index, Manifest, fits

LAYER = images.layer([images.file("a", "a")])
IMAGE = images.image([LAYER])


def platform(text):
    return Platform.parse(text)


def manifest(**members):
    """The bytes of an image's manifest with members replaced; None removes one."""
    changed = {**IMAGE.parsed(), **members}
    return images.canonical({key: value for key, value in changed.items() if value is not None})


def descriptor(**members):
    return {**images.describe(b"x", images.OCI_MANIFEST), **members}


def an_index(*entries, **members):
    data = images.index([], members={"manifests": list(entries), **members}).data
    found = documents.read(data)
    assert isinstance(found, Index)
    return found


def of(text, **members):
    """An index's entry for a platform."""
    os, architecture, *variant = text.split("/")
    said = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
    return descriptor(platform=said, **members)


# --- manifests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("docker", [False, True])
def test_an_images_manifest_is_read(docker):
    found = documents.read(images.image([LAYER], docker=docker).data)
    assert isinstance(found, Manifest)
    assert str(found.layers[0].digest) == LAYER.digest
    assert found.layers[0].size == len(LAYER.blob)


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_is_read(docker):
    found = documents.read(images.index([IMAGE], docker=docker).data)
    assert isinstance(found, Index)
    assert [str(one.digest) for one in found.entries] == [IMAGE.digest]


def test_a_manifest_without_a_media_type_is_one_by_its_members():
    assert isinstance(documents.read(manifest(mediaType=None)), Manifest)


@pytest.mark.parametrize(
    ("said", "kind", "fine"),
    [
        ("", images.OCI_MANIFEST, True),
        (images.OCI_MANIFEST, images.OCI_MANIFEST, True),
        (images.OCI_MANIFEST, None, True),
        (images.DOCKER_MANIFEST, None, True),
        (images.DOCKER_MANIFEST, images.OCI_MANIFEST, False),
        (images.OCI_INDEX, images.OCI_MANIFEST, False),
        (images.OCI_INDEX, None, False),
        ("application/json", images.OCI_MANIFEST, False),
        ("text/html", None, False),
    ],
)
def test_a_document_is_what_its_sender_calls_it(said, kind, fine):
    """I1: one that is taken for a manifest here and for an index there has two meanings."""
    data = manifest(mediaType=kind)
    if fine:
        assert isinstance(documents.read(data, said), Manifest)
    else:
        with pytest.raises(NotAnImage, match="which it is not"):
            documents.read(data, said)


def test_what_a_descriptor_brings_along_is_not_used():
    """I3: `data` need not be what the digest says, so it is not looked at."""
    lie = {**IMAGE.parsed()["config"], "data": "bm90IHRoaXM="}
    found = documents.read(manifest(config=lie))
    assert isinstance(found, Manifest)
    assert found.config == documents.read(IMAGE.data).config


def test_an_image_without_layers_is_an_image():
    assert documents.read(manifest(layers=[])).layers == ()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"{}",
        b"\xff\xfe{}",
        b"{} {}",
        b'{"schemaVersion": 2, "schemaVersion": 2, "manifests": []}',
        b'{"schemaVersion": 2, "manifests": [], "x": NaN}',
        b'{"schemaVersion": 2, "manifests": [], "x": 1' + b"0" * 5000 + b"}",
        b'{"schemaVersion": 2, "manifests": ' + b"[" * 100_000 + b"}",
        b'{"schemaVersion": 2, "manifests": {}}',
        b'{"schemaVersion": 2, "manifests": null}',
        b'{"schemaVersion": 2, "manifests": [7]}',
        b'{"schemaVersion": 1, "manifests": []}',
        b'{"schemaVersion": "2", "manifests": []}',
        b'{"manifests": []}',
        b'{"schemaVersion": 2, "manifests": []}' + b" " * documents.MAX_DOCUMENT,
    ],
    ids=lambda data: repr(data[:60]),
)
def test_what_has_no_one_meaning_is_not_an_image(data):
    with pytest.raises(NotAnImage):
        documents.read(data)


@pytest.mark.parametrize("other", ["layers", "config"])
def test_a_document_that_is_index_and_manifest_at_once_is_refused(other):
    """CVE-2021-41190: two readers would take two images for the same digest."""
    both = {**IMAGE.parsed(), "mediaType": None, "manifests": []}
    kept = {k: v for k, v in both.items() if k in ("schemaVersion", "manifests", other)}
    with pytest.raises(NotAnImage, match="at once"):
        documents.read(images.canonical(kept))


def test_a_media_type_that_contradicts_the_members_is_refused():
    with pytest.raises(NotAnImage, match="media type"):
        documents.read(manifest(mediaType=images.OCI_INDEX))
    with pytest.raises(NotAnImage, match="media type"):
        documents.read(images.index([IMAGE], members={"mediaType": images.OCI_MANIFEST}).data)


@pytest.mark.parametrize(
    "kind",
    ["application/vnd.docker.distribution.manifest.v1+prettyjws", "text/html", 7, [], {}],
)
def test_a_media_type_that_is_not_an_images_is_refused(kind):
    with pytest.raises(NotAnImage):
        documents.read(manifest(mediaType=kind))


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.oci.empty.v1+json",
        "application/vnd.cncf.helm.config.v1+json",
        "application/vnd.wasm.config.v0+json",
    ],
)
def test_an_artifact_is_not_an_image(kind):
    with pytest.raises(NotAnImage, match="an artifact"):
        documents.read(manifest(config=descriptor(mediaType=kind)))


def test_a_layer_of_an_unknown_kind_is_refused():
    kind = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    with pytest.raises(NotAnImage, match="unknown kind"):
        documents.read(manifest(layers=[descriptor(mediaType=kind)]))


def test_a_layer_from_elsewhere_is_refused():
    """Programs fetch such a layer from whatever address the manifest says, in our network too."""
    layer = {**IMAGE.parsed()["layers"][0], "urls": ["http://169.254.169.254/latest"]}
    with pytest.raises(TreeRefused) as refused:
        documents.read(manifest(layers=[layer]))
    assert refused.value.extra == {"rule": "layer-urls"}


def test_an_image_has_so_many_layers_and_no_more():
    """Each is a descriptor of the server: one image must not take all."""
    (layer,) = IMAGE.parsed()["layers"]
    most = documents.read(manifest(layers=[layer] * 256))
    assert isinstance(most, Manifest)
    assert len(most.layers) == 256
    with pytest.raises(TreeRefused) as refused:
        documents.read(manifest(layers=[layer] * 257))
    assert refused.value.extra == {"rule": "layers", "layers": 257, "limit": 256}


@pytest.mark.parametrize("place", ["config", "layers"])
@pytest.mark.parametrize(
    "members",
    [
        {"digest": None},
        {"digest": 7},
        {"digest": "sha256"},
        {"digest": "sha256:../../../etc/passwd"},
        {"digest": "sha256:" + "A" * 64},
        {"digest": "sha256:" + "a" * 63},
        {"digest": "sha512:" + "a" * 128},
        {"size": None},
        {"size": -1},
        {"size": True},
        {"size": "1"},
        {"size": 1.5},
        {"size": 2**63},
        {"mediaType": None},
        {"mediaType": 7},
    ],
    ids=str,
)
def test_every_descriptor_is_well_formed(place, members):
    good = IMAGE.parsed()[place]
    bad = {**(good[0] if place == "layers" else good), **members}
    bad = {key: value for key, value in bad.items() if value is not None}
    with pytest.raises(NotAnImage):
        documents.read(manifest(**{place: [bad] if place == "layers" else bad}))


# --- configs -------------------------------------------------------------------------------------


def config(**members):
    changed = {**json.loads(IMAGE.blobs[0]), **members}
    return images.canonical({key: value for key, value in changed.items() if value is not None})


def test_a_config_says_its_platform_and_layers():
    found = documents.read_config(config(variant="v2"), documents.read(IMAGE.data))
    assert documents.config_platform(found) == platform("linux/amd64/v2")


@pytest.mark.parametrize(
    "rootfs",
    [
        None,
        [],
        {},
        {"type": "layers"},
        {"type": "other", "diff_ids": [LAYER.diff_id]},
        {"type": "layers", "diff_ids": LAYER.diff_id},
        {"type": "layers", "diff_ids": []},
        {"type": "layers", "diff_ids": [LAYER.diff_id] * 2},
        {"type": "layers", "diff_ids": [7]},
        {"type": "layers", "diff_ids": ["sha256:x"]},
    ],
    ids=str,
)
def test_a_configs_layers_are_the_manifests(rootfs):
    with pytest.raises(NotAnImage):
        documents.read_config(config(rootfs=rootfs), documents.read(IMAGE.data))


@pytest.mark.parametrize(
    "members",
    [
        {"os": None},
        {"architecture": None},
        {"os": ""},
        {"os": 7},
        {"os": "linux/amd64"},
        {"os": "Linux"},
        {"architecture": "amd64\n"},
        {"variant": 8},
        {"variant": "v8/x"},
    ],
    ids=str,
)
def test_a_config_that_does_not_say_its_platform_is_not_an_images(members):
    found = documents.read_config(config(**members), documents.read(IMAGE.data))
    with pytest.raises(NotAnImage, match="which system"):
        documents.config_platform(found)


# --- the choice ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "wanted", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("freebsd/amd64", "freebsd/amd64", True),
        ("linux/amd64", "freebsd/amd64", False),
        ("freebsd/amd64", "linux/amd64", False),
        ("linux/386", "linux/amd64", False),
        ("linux/arm64", "linux/amd64", False),
        # A lower level runs on a higher one, never the other way.
        ("linux/amd64/v1", "linux/amd64/v3", True),
        ("linux/amd64", "linux/amd64/v3", True),
        ("linux/amd64/v3", "linux/amd64/v2", False),
        ("linux/amd64/v3", "linux/amd64", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm", "linux/arm/v6", False),
        # Without a variant, arm64 is v8 (image-index.md).
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v9", "linux/arm64", False),
        # Levels that we cannot compare fit themselves alone.
        ("linux/ppc64le/power9", "linux/ppc64le/power9", True),
        ("linux/ppc64le/power9", "linux/ppc64le/power10", False),
        ("linux/ppc64le/power9", "linux/ppc64le", False),
        ("linux/arm/v7l", "linux/arm/v8", False),
    ],
)
def test_what_runs_on_what(offered, wanted, runs):
    assert fits(platform(offered), platform(wanted)) is runs


def chosen(index, wanted):
    return [str(one.platform) for one in index.matching(platform(wanted))]


def test_the_first_that_fits_wins():
    index = an_index(of("linux/amd64"), of("freebsd/amd64"), of("linux/arm64"), of("freebsd/amd64"))
    assert chosen(index, "freebsd/amd64") == ["freebsd/amd64", "freebsd/amd64"]
    assert chosen(index, "linux/arm64/v8") == ["linux/arm64"]
    assert chosen(index, "windows/amd64") == []


def test_attestations_are_no_candidates():
    image = images.image([LAYER])
    beside = images.attestation(image)
    index = documents.read(images.index([beside, image]).data)
    assert [str(one.digest) for one in index.candidates()] == [image.digest]
    # Each of its two signs is enough.
    bare = of("unknown/unknown")
    noted = of("linux/amd64", annotations={"vnd.docker.reference.type": "attestation-manifest"})
    assert an_index(bare, noted).candidates() == []
    assert chosen(an_index(bare, noted), "unknown/unknown") == []


def test_kinds_that_we_do_not_know_are_skipped():
    other = of("linux/amd64", mediaType="application/vnd.example+json")
    assert an_index(other).candidates() == []


def test_what_asks_for_features_of_a_system_is_not_for_us():
    entry = of("linux/amd64")
    entry["platform"]["os.features"] = ["win32k"]
    assert chosen(an_index(entry, of("linux/amd64")), "linux/amd64") == ["linux/amd64"]


def test_an_entry_without_a_platform_counts_only_where_it_is_alone():
    silent = descriptor()
    assert len(list(an_index(silent).matching(platform("freebsd/amd64")))) == 1
    assert list(an_index(silent, silent).matching(platform("freebsd/amd64"))) == []
    assert len(list(an_index(silent, of("unknown/unknown")).matching(platform("a/b")))) == 1


def test_an_index_without_a_platform_may_contain_anything():
    nested = descriptor(mediaType=images.OCI_INDEX)
    assert len(list(an_index(nested, of("linux/amd64")).matching(platform("freebsd/amd64")))) == 1


@pytest.mark.parametrize("said", [7, [], "linux/amd64", {"os": "linux"}, {"os": 7}], ids=str)
def test_an_entry_whose_platform_cannot_be_read_never_matches(said):
    index = an_index(descriptor(platform=said))
    assert list(index.matching(platform("linux/amd64"))) == []


def test_a_digest_of_another_algorithm_is_refused_only_when_it_is_chosen():
    other = of("linux/arm64", digest="sha512:" + "a" * 128)
    index = an_index(other, of("linux/amd64"))
    assert chosen(index, "linux/amd64") == ["linux/amd64"]
    (found,) = index.matching(platform("linux/arm64"))
    with pytest.raises(NotAnImage, match="only sha256"):
        found.digest  # noqa: B018 - the property raises


def test_a_refusal_names_what_the_image_offers():
    offered = [platform("linux/amd64"), platform("linux/amd64"), platform("linux/arm/v7")]
    error = documents.incompatible(platform("freebsd/amd64"), offered)
    assert error.detail == (
        "The image has nothing for freebsd/amd64; it offers linux/amd64, linux/arm/v7."
    )
    assert error.extra == {"wanted": "freebsd/amd64", "offered": ["linux/amd64", "linux/arm/v7"]}
    assert "offers nothing" in documents.incompatible(platform("freebsd/amd64"), []).detail
    many = [platform(f"linux/x{number}") for number in range(1000)]
    assert len(documents.incompatible(platform("a/b"), many).extra["offered"]) == 50


# --- whatever comes ------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["mediaType", "digest", "size", "platform", "os", "annotations", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["schemaVersion", "mediaType", "manifests", "config", "layers", "rootfs"]),
        _JSON,
    )
)
def test_no_json_crashes_the_reader(members):
    """Whatever a registry sends is read, or refused by an error of ours."""
    for data in (
        images.canonical(members),
        images.canonical({"schemaVersion": 2, **members}),
        manifest(**{k: v for k, v in members.items() if k != "manifests"}),
    ):
        try:
            found = documents.read(data)
            if isinstance(found, Index):
                list(found.matching(platform("linux/amd64")))
        except (NotAnImage, TreeRefused):
            continue


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(data):
    with pytest.raises(NotAnImage):
        documents.read(data)


def test_chain_ids_are_those_of_the_specification():
    a, b, c = (f"sha256:{letter * 64}" for letter in "abc")
    layers = [Layer(Digest.parse(a), 1, "", Digest.parse(one)) for one in (a, b, c)]
    # printf 'sha256:aa… sha256:bb…' | sha256sum, and so on.
    second = "sha256:" + hashlib.sha256(f"{a} {b}".encode()).hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} {c}".encode()).hexdigest()
    assert documents.chain_ids(layers) == (a, second, third)
    assert documents.chain_ids([]) == ()
