"""The use cases: keyword-only verbs. Views, admin actions, commands and tasks only translate.

``common``    settings -> drivers, sources, rules; who is asking
``leases``    at most one import of a name, and how recovery knows that a holder is dead
``imports``   import_template
``signing``   statements and signatures
``launches``  the gate, sandboxes
``pool``      destroy, reload
``recovery``  what start-up finishes or undoes
``queries``   everything that only reads
``bulk``      re-import many
"""
