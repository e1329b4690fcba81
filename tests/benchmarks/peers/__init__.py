"""Other systems for late interaction, each behind the same small protocol. ``beside_peers.py`` runs them.

``protocol.py`` says what a system must do, ``systems/`` has one file per system, ``registry.py`` lists them,
``inputs.py`` makes the token embeddings that all of them get, ``measuring.py`` is the process that measures one system,
``running.py`` starts such processes, and ``reporting.py`` writes the table and draws the plot.
"""
