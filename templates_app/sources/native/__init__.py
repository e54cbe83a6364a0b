"""The native engine: reads images itself, without any other program.

``registry``   one repository: tags, manifests, configs, blobs; mirrors
``blobs``      a blob over as many connections as it takes
``client``     redirects, retries, challenges
``throttle``   when a registry may be asked again
``tokens``     what is sent as Authorization, to whom
``challenge``  WWW-Authenticate, read
``transport``  one request, one answer
``network``    connections to addresses that were judged, TLS, limits of time
``codecs``     a layer's blob, uncompressed
``tar``        its archive, entry by entry; ``grammar`` is what that must be
``limits``     what one image may cost
``entry``      one entry of a layer's archive, as the reader gives it to the model
``model``      the tree, layer upon layer: what each entry does to it, as operations
``shape``      how that tree changes; ``nodes`` what it is made of; ``manifest`` of those;
               ``rules`` what it must be
``operations`` what the model has the writer do
``engine``     an image's layers into a directory; ``delivery`` is their way, ``crew`` its processes
``reader_process`` parses an image's bytes, and has the model decide
``wire``       how the engine's processes speak
``writer``     executes operations below one directory; ``writer_process`` is its process
``confine``    what a process gives up before it sees a byte of an image
``failures``   errors of a process, raised again in the server
``cache``      layers, manifests and configs by their digest
``incoming``   one of them on its way into the cache, read while it comes
``beneath``    files beneath import roots, opened without following anything
``layout``     an OCI layout in a directory
``archives``   one in a tar file; ``docker_archive`` what `docker save` writes
"""
